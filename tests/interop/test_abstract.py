"""Weights from files into models of which only the shapes exist, and files with old names."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import jaxopt_core as jo
from jaxopt_core import interop
from jaxopt_core.models import DenseNet, layers, pure
from tests import oracle_models as oracle


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.fc = layers.Linear(3, 4, rngs=rngs)
        self.bn = layers.BatchNorm1d(4)
        self.drop = nnx.List([layers.Dropout(0.5, rngs=rngs) for _ in range(2)])

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.bn(self.fc(x))
        return self.drop[0](jnp.ones_like(x)) + 10 * self.drop[1](jnp.ones_like(x))


def abstract() -> Any:
    return nnx.eval_shape(lambda: Net(nnx.Rngs(0)))


def state_dict(counter: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"fc.weight": (4, 3)} | dict.fromkeys(
        ["fc.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"], (4,)
    )
    made: dict[str, Any] = {n: rng.uniform(0.5, 1, s).astype(np.float32) for n, s in shapes.items()}
    return made | ({"bn.num_batches_tracked": np.array(7)} if counter else {})


def test_shapes_are_filled_as_arrays_are() -> None:
    theirs = state_dict()
    _, params, rest = pure(abstract())
    layout = interop.make_layout(params, theirs, rest=rest)
    key = jax.random.key(1)
    filled = [interop.params_from_torch(theirs, layout, like=tree, rngs=key) for tree in (params, rest)]

    _, *real = pure(Net(nnx.Rngs(0)))
    assert str(interop.make_layout(real[0], theirs, rest=real[1])) == str(layout)
    expected = [interop.params_from_torch(theirs, layout, like=tree) for tree in real]
    assert jax.tree.structure(filled) == jax.tree.structure(expected)
    assert filled[1]["bn"]["num_batches_tracked"] == 7
    for (path, ours), other in zip(
        jax.tree_util.tree_leaves_with_path(filled), jax.tree.leaves(expected), strict=True
    ):
        assert isinstance(ours, jax.Array), path
        assert (ours.shape, ours.dtype) == (other.shape, other.dtype), path
        if "key" not in str(path):
            np.testing.assert_array_equal(ours, other, err_msg=str(path))


def test_random_streams_start_from_the_key_each_on_its_own() -> None:
    theirs = state_dict()
    apply, params, rest = pure(abstract())
    layout = interop.make_layout(params, theirs, rest=rest)
    with pytest.raises(interop.LayoutError, match=r"'drop/0/rngs/key' is a random stream.*give rngs="):
        interop.params_from_torch(theirs, layout, like=rest)
    params = interop.params_from_torch(theirs, layout, like=params)
    forward = jax.jit(apply, static_argnames="train")

    def dropped(seed: int) -> np.ndarray:
        streams = interop.params_from_torch(theirs, layout, like=rest, rngs=jax.random.key(seed))
        output, _ = forward(params, streams, jnp.ones((64, 3)), train=True)
        return np.asarray(output)

    first = dropped(0)
    assert set(np.unique(first)) == {0, 2, 20, 22}  # the two masks are not the same
    np.testing.assert_array_equal(dropped(0), first)
    assert (dropped(1) != first).any()


def test_torchs_axes_from_shapes_alone() -> None:
    theirs = state_dict()
    _, params, rest = pure(abstract())
    layout = interop.make_layout(params, theirs, rest=rest)
    tx = jo.adafactor(axes=layout.torch_axes(params))
    slots = tx.init(interop.params_from_torch(theirs, layout, like=params)).slots
    assert slots["row_var"]["fc"]["kernel"].shape == (1, 4)  # a mean over PyTorch's last axis, ours first


def test_nnx_variables_linen_and_shardings() -> None:
    variables = nnx.split(abstract(), nnx.Param, ...)[1]
    layout = interop.make_layout(
        variables, {"fc.weight": (4, 3), **dict.fromkeys(["fc.bias", "bn.weight", "bn.bias"], (4,))}
    )
    wanted = {name: value for name, value in state_dict().items() if name in layout.tensors}
    filled = interop.params_from_torch(wanted, layout, like=variables)
    assert jax.tree.structure(filled) == jax.tree.structure(variables)
    np.testing.assert_array_equal(filled["fc"]["kernel"][...], wanted["fc.weight"].T)

    dense = jax.eval_shape(linen.Dense(4).init, jax.random.key(0), jnp.ones((1, 3)))["params"]
    rule = interop.make_layout(dense, {"weight": (4, 3), "bias": (4,)})
    assert rule.paths("weight") == ["kernel"]
    place = jax.sharding.SingleDeviceSharding(jax.devices()[3])
    like = {"kernel": jax.ShapeDtypeStruct((3, 4), jnp.float32, sharding=place)}
    weight = {"weight": wanted["fc.weight"]}
    kernel = interop.params_from_torch(weight, interop.make_layout(like, weight), like=like)["kernel"]
    assert kernel.sharding == place


def test_wrong_shapes_and_dtypes_are_told_without_arrays() -> None:
    like = {"fc": {"kernel": jax.ShapeDtypeStruct((3, 5), jnp.float32)}}
    with pytest.raises(interop.LayoutError, match=r"'fc\.weight' has shape \(4, 3\), which does not fit"):
        interop.make_layout(like, {"fc.weight": (4, 3)})
    like = {"fc": {"kernel": jax.ShapeDtypeStruct((3, 4), jnp.bfloat16)}}
    layout = interop.make_layout(like, {"fc.weight": (4, 3)})
    with pytest.raises(interop.LayoutError, match="is bfloat16; PyTorch's is float32"):
        interop.params_from_torch({"fc.weight": np.ones((4, 3), np.float32)}, layout, like=like)


def test_optimizers_still_want_arrays() -> None:
    with pytest.raises(TypeError, match=r"'w' is no array: got ShapeDtypeStruct"):
        jo.sgd().init({"w": jax.ShapeDtypeStruct((3,), jnp.float32)})


@pytest.mark.parametrize("like", [abstract, lambda: Net(nnx.Rngs(0))], ids=["shapes", "arrays"])
def test_files_from_before_batches_were_counted(like: Any) -> None:
    theirs = state_dict(counter=False)
    _, params, rest = pure(like())
    layout = interop.make_layout(params, theirs, rest=rest)
    key = jax.random.key(0)
    filled = interop.params_from_torch(theirs, layout, like=rest, rngs=key)
    assert filled["bn"]["num_batches_tracked"] == 0
    params = interop.params_from_torch(theirs, layout, like=params)
    back = interop.params_to_torch(params, layout, rest=filled)
    assert {name: value.tolist() for name, value in back.items()} == {
        name: value.tolist() for name, value in theirs.items()
    }


def test_published_densenets_have_old_names() -> None:
    """``denselayer1.norm.1`` for ``denselayer1.norm1``, and no counters."""
    module = oracle.densenet(4, (2, 2), 8, 5)
    new = {n: a.astype(np.float32) for n, a in oracle.weights(module).items() if a.dtype == np.float64}
    old = {}
    for name, value in new.items():
        *before, part, leaf = name.split(".")
        is_inside = part in ("norm1", "conv1", "norm2", "conv2")
        old[".".join([*before, *(part[:-1], part[-1])] if is_inside else [*before, part]) + f".{leaf}"] = (
            value
        )
    assert "features.denseblock2.denselayer1.norm.1.running_mean" in old
    assert len(old.keys() - new.keys()) == 4 * (2 + 2 * 4)

    _, params, rest = pure(nnx.eval_shape(lambda: DenseNet(4, (2, 2), 8, num_classes=5, rngs=nnx.Rngs(0))))
    with pytest.raises(interop.LayoutError, match=r"'features\.denseblock1\.denselayer1\.norm\.1\.weight'"):
        interop.make_layout(params, old, rest=rest)
    layout = interop.make_layout(params, old, rest=rest, rename={r"\.(norm|conv)\.([12])\.": r".\1\2."})
    plain = interop.make_layout(params, new, rest=rest)
    for tree in (params, rest):
        expected = interop.params_from_torch(new, plain, like=tree)
        jax.tree.map(
            np.testing.assert_array_equal, interop.params_from_torch(old, layout, like=tree), expected
        )
    back = interop.params_to_torch(
        *(interop.params_from_torch(old, layout, like=params), layout),
        rest=interop.params_from_torch(old, layout, like=rest),
    )
    assert list(back) == list(old)
    assert all(np.array_equal(back[name], old[name]) for name in old)
