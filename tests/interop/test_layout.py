"""Which PyTorch tensor is which leaf: Flax's conventions, rules, and what does not fit."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen, nnx

from jaxopt_core import interop
from jaxopt_core.models import pure
from tests.interop.problem import CORRESPONDENCE, Problem
from tests.interop.torch_runs import to_numpy


class TorchNet(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, (3, 2))
        self.line = torch.nn.Conv1d(4, 6, 3, groups=2, bias=False)
        self.bn = torch.nn.BatchNorm2d(4)
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(5, 5), torch.nn.Linear(5, 5)])
        self.words = torch.nn.Embedding(7, 5)
        self.ln = torch.nn.LayerNorm(5)
        self.attn = torch.nn.MultiheadAttention(8, 2)


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.words = nnx.Embed(7, 5, rngs=rngs)
        self.attn = nnx.MultiHeadAttention(2, 8, rngs=rngs, decode=False, dropout_rate=0.1)
        self.bn = nnx.BatchNorm(4, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(5, 5, rngs=rngs) for _ in range(2)])
        self.line = nnx.Conv(4, 6, (3,), feature_group_count=2, use_bias=False, rngs=rngs)
        self.conv = nnx.Conv(3, 4, (3, 2), rngs=rngs)
        self.ln = nnx.LayerNorm(5, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)


def model() -> tuple[Any, Any, dict[str, np.ndarray]]:
    _, params, rest = pure(Net(nnx.Rngs(0)))
    torch.manual_seed(0)
    net = TorchNet()
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape) if tensor.is_floating_point() else torch.tensor(3))
    return params, rest, to_numpy(net.state_dict())


def test_a_network_of_flax_has_pytorchs_names() -> None:
    params, rest, state_dict = model()
    layout = interop.make_layout(params, state_dict, rest=rest)
    carried = interop.params_from_torch(state_dict, layout, like=params)
    np.testing.assert_array_equal(carried["conv"]["kernel"], state_dict["conv.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(carried["line"]["kernel"], state_dict["line.weight"].transpose(2, 1, 0))
    np.testing.assert_array_equal(carried["blocks"][1]["kernel"], state_dict["blocks.1.weight"].T)
    np.testing.assert_array_equal(carried["words"]["embedding"], state_dict["words.weight"])
    np.testing.assert_array_equal(carried["ln"]["scale"], state_dict["ln.weight"])
    buffers = interop.params_from_torch(state_dict, layout, like=rest)
    np.testing.assert_array_equal(buffers["bn"]["var"], state_dict["bn.running_var"])
    assert layout.ignored == ("bn.num_batches_tracked",)
    assert layout.order == tuple(name for name, _ in TorchNet().named_parameters())


def test_the_way_back_is_bitwise() -> None:
    params, rest, state_dict = model()
    layout = interop.make_layout(params, state_dict, rest=rest)
    params = interop.params_from_torch(state_dict, layout, like=params)
    rest = interop.params_from_torch(state_dict, layout, like=rest)
    back = interop.params_to_torch(params, layout, rest=rest, like=state_dict)
    assert list(back) == list(state_dict)
    for name, value in state_dict.items():
        assert (back[name].dtype, back[name].tobytes()) == (value.dtype, value.tobytes()), name
    TorchNet().load_state_dict({name: torch.from_numpy(value) for name, value in back.items()})


def test_attention_computes_what_pytorchs_does() -> None:
    params, rest, state_dict = model()
    layout = interop.make_layout(params, state_dict, rest=rest)
    carried = interop.params_from_torch(state_dict, layout, like=params)["attn"]
    x = np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float32)
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.load_state_dict(
        {
            name.removeprefix("attn."): torch.from_numpy(value)
            for name, value in state_dict.items()
            if name.startswith("attn.")
        }
    )
    ours = nnx.MultiHeadAttention(2, 8, rngs=nnx.Rngs(0), decode=False)
    nnx.update(ours, carried)
    with torch.no_grad():
        expected = theirs(*[torch.from_numpy(x)] * 3)[0]
    np.testing.assert_allclose(ours(x), expected.numpy(), rtol=1e-5, atol=1e-5)


def test_lossless_for_the_problem_written_by_hand() -> None:
    problem = Problem(list(CORRESPONDENCE), dtype="float32")
    layout = interop.make_layout(problem.tree(problem.start), problem.shapes())
    zeros = jax.tree.map(jnp.zeros_like, problem.tree(problem.start))
    tree = interop.params_from_torch(problem.start, layout, like=zeros)
    jax.tree.map(np.testing.assert_array_equal, tree, problem.tree(problem.start))


def test_linen_and_nnx_variables() -> None:
    class Small(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            return linen.BatchNorm(use_running_average=False, name="bn")(linen.Dense(4, name="fc")(x))

    variables = Small().init(jax.random.key(0), jnp.ones((2, 3)))
    names = {"fc.weight": (4, 3), "fc.bias": (4,), "bn.weight": (4,), "bn.bias": (4,)}
    names |= {"bn.running_mean": (4,), "bn.running_var": (4,), "bn.num_batches_tracked": ()}
    params, rest = {"params": variables["params"]}, {"batch_stats": variables["batch_stats"]}
    assert interop.make_layout(params, names, rest=rest).paths("fc.weight") == ["params/fc/kernel"]
    assert interop.make_layout(variables["params"], names, rest=variables["batch_stats"]).paths(
        "bn.weight"
    ) == ["bn/scale"]
    state = nnx.state(nnx.Linear(3, 4, rngs=nnx.Rngs(0)))  # with nnx's variables, not plain arrays
    layout = interop.make_layout(state, {"weight": (4, 3), "bias": (4,)})
    carried = interop.params_from_torch(
        {"weight": np.ones((4, 3), np.float32), "bias": np.ones(4, np.float32)}, layout, like=state
    )
    assert jax.tree.structure(carried) == jax.tree.structure(state)


def test_without_a_state_dict_the_names_are_flaxs_conventions() -> None:
    params, rest, state_dict = model()
    layout = interop.make_layout(params, rest=rest)
    expected = {n for n in state_dict if "attn" not in n and "num_batches" not in n}
    assert expected <= layout.tensors.keys()
    assert all(layout.tensors[name] == state_dict[name].shape for name in expected)
    assert layout.tensors["attn.query.weight"] == layout.tensors["attn.out.weight"] == (8, 8)
    assert layout.order is None


def test_a_linear_layer_after_a_flatten() -> None:
    channels, height, width = 3, 2, 4
    images = np.random.default_rng(0).normal(size=(5, channels, height, width)).astype(np.float32)
    weight = np.random.default_rng(1).normal(size=(6, channels * height * width)).astype(np.float32)
    params = {"fc": {"kernel": jnp.zeros(weight.shape[::-1])}}
    rules = [interop.after_flatten(r"fc\.weight", "fc/kernel", channels, height, width)]
    layout = interop.make_layout(params, {"fc.weight": weight}, rules=rules)
    kernel = interop.params_from_torch({"fc.weight": weight}, layout, like=params)["fc"]["kernel"]
    ours = images.transpose(0, 2, 3, 1).reshape(5, -1) @ np.asarray(kernel)
    np.testing.assert_allclose(ours, images.reshape(5, -1) @ weight.T, atol=1e-5)
    back = interop.params_to_torch({"fc": {"kernel": kernel}}, layout)
    np.testing.assert_array_equal(back["fc.weight"], weight)


def test_tensors_are_cut_and_joined() -> None:
    rng = np.random.default_rng(0)
    state_dict = {
        "0.qkv.weight": rng.normal(size=(12, 4)).astype(np.float32),  # 8 of query, 2 each of key and value
        "0.w1.weight": rng.normal(size=(5, 4)).astype(np.float32),
        "0.w3.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "0.mask": np.zeros((2, 2), np.float32),
    }
    rules = [
        interop.Rule(
            r"(\d)\.qkv\.weight",
            (r"layers/\1/query/kernel", r"layers/\1/key/kernel", r"layers/\1/value/kernel"),
        ),
        interop.Rule(r"(\d)\.w1\.weight", r"layers/\1/up/kernel", axes=(1, 0), part=0, axis=1),
        interop.Rule(r"(\d)\.w3\.weight", r"layers/\1/up/kernel", axes=(1, 0), part=1, axis=1),
        interop.Rule(r".*mask", None),
    ]
    shapes = {"query": (4, 2, 4), "key": (4, 1, 2), "value": (4, 1, 2), "up": (4, 8)}
    params = {"layers": [{name: {"kernel": jnp.zeros(shape)} for name, shape in shapes.items()}]}
    layout = interop.make_layout(params, state_dict, rules=rules)
    (tree,) = interop.params_from_torch(state_dict, layout, like=params)["layers"]
    np.testing.assert_array_equal(tree["query"]["kernel"].reshape(4, 8), state_dict["0.qkv.weight"][:8].T)
    np.testing.assert_array_equal(tree["value"]["kernel"].reshape(4, 2), state_dict["0.qkv.weight"][10:].T)
    np.testing.assert_array_equal(tree["up"]["kernel"][:, 5:], state_dict["0.w3.weight"].T)
    back = interop.params_to_torch({"layers": [tree]}, layout, like=state_dict)
    assert list(back) == list(state_dict)
    for name, value in state_dict.items():
        np.testing.assert_array_equal(back[name], value)


def test_the_first_rule_that_matches_decides() -> None:
    square = {"a.weight": (3, 3)}
    rules = [interop.Rule(r"a\.weight", "a/kernel", axes=(0, 1)), interop.Rule(r".*", None)]
    (piece,) = interop.make_layout({"a": {"kernel": jnp.ones((3, 3))}}, square, rules=rules).pieces
    assert piece.axes == (0, 1)


def test_tied_weights_are_one_leaf() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(5, 3)
            self.head = torch.nn.Linear(3, 5, bias=False)
            self.head.weight = self.embed.weight

    net = Tied()
    params = {"embed": {"embedding": jnp.zeros((5, 3))}}
    layout = interop.make_layout(params, net.state_dict())
    assert (layout.tied, layout.order) == ({"head.weight": "embed.weight"}, ("embed.weight",))
    carried = interop.params_from_torch(net.state_dict(), layout, like=params)
    back = interop.params_to_torch(carried, layout)
    assert back["head.weight"] is back["embed.weight"]
    net.load_state_dict({name: torch.from_numpy(value) for name, value in back.items()})

    copies = {name: np.array(value) for name, value in to_numpy(net.state_dict()).items()}
    with pytest.raises(interop.LayoutError, match=r"equal to 'embed.weight'.*tied"):
        interop.make_layout(params, copies)
    assert interop.make_layout(params, copies, tied={"head.weight": "embed.weight"}).tied == layout.tied
    apart = params | {"head": {"kernel": jnp.zeros((3, 5))}}
    with pytest.raises(interop.LayoutError, match=r"tied to 'embed\.weight'"):
        interop.make_layout(apart, net.state_dict())


def test_wrappers_and_renames() -> None:
    params = {"layers": [{"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, {"kernel": jnp.ones((3, 1))}]}
    names = {
        "module._orig_mod.0.weight": (3, 2),
        "module._orig_mod.0.bias": (3,),
        "module._orig_mod.2.weight": (1, 3),
    }
    rename = {r"^module\._orig_mod\.(\d+)": lambda found: f"layers.{int(found[1]) // 2}"}
    layout = interop.make_layout(params, names, rename=rename)
    assert layout.paths("module._orig_mod.2.weight") == ["layers/1/kernel"]
    wrapped = {
        name.replace("module._orig_mod.", "module.layers.").replace(".2.", ".1."): s
        for name, s in names.items()
    }
    assert interop.make_layout(params, wrapped).order == tuple(wrapped)


def test_everything_that_does_not_fit_is_listed_at_once() -> None:
    params = {
        "stem": {"kernel": jnp.ones((3, 3, 2, 4)), "bias": jnp.ones(4)},
        "norm": {"scale": jnp.ones(4), "weight": jnp.ones(4)},
        "head": {"kernel": jnp.ones((4, 5))},
    }
    names = {
        "stem.weight": (4, 2, 5, 5),
        "stam.bias": (4,),
        "norm.weight": (4,),
        "head.weight": (5, 4),
        "x.y": (1,),
    }
    with pytest.raises(interop.LayoutError) as caught:
        interop.make_layout(params, names)
    assert str(caught.value).splitlines() == [
        "PyTorch's tensors and the tree do not fit each other:",
        "  'stem.weight' has shape (4, 2, 5, 5), which does not fit 'stem/kernel' of shape (3, 3, "
        "2, 4) by Flax's "
        "convention",
        "  'stam.bias' of shape (4,) matches no leaf (nearest: 'stem/bias')",
        "  'x.y' of shape (1,) matches no leaf",
        "  no tensor matches the leaf 'stem/bias' of shape (4,) (nearest: 'stam.bias')",
        "  the tensor 'norm.weight' is matched 2 times, by 'norm/scale', 'norm/weight'",
    ]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (interop.Rule("w", "kernal"), r"leads to 'kernal', which is no leaf \(nearest: 'kernel'\)"),
        (interop.Rule("w", "kernel", axes=(0, 1)), r"does not fit 'kernel' of shape \(6, 4\) with view"),
        (interop.Rule("w", "kernel", axes=(0, 0)), "does not fit"),
        (interop.Rule("w", "kernel", view=(5, -1), axes=(1, 0)), "does not fit"),
        (interop.Rule("w", ("kernel", "bias"), axis=0), "have 5 together|does not fit"),
        (
            interop.Rule("w", "kernel", axes=(1, 0), part=1, axis=0),
            "to be joined along axis 0 from 'w' as part 1",
        ),
        (interop.Rule(".", "kernel", axes=(1, 0)), "the leaf 'kernel' is matched 2 times, by 'w', 'v'"),
    ],
)
def test_rules_that_cannot_be(rule: interop.Rule, message: str) -> None:
    params = {"kernel": jnp.ones((6, 4)), "bias": jnp.ones(6)}
    with pytest.raises(interop.LayoutError, match=message):
        interop.make_layout(params, {"w": (4, 6), "v": (4, 6), "bias": (6,)}, rules=[rule])


def test_a_state_dict_that_is_not_the_layouts() -> None:
    params = {"a": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "n": jnp.zeros([], jnp.int32)}
    names = {"a.weight": (3, 2), "a.bias": (3,), "n": ()}
    layout = interop.make_layout(params, names)
    wrong = {"a.weight": np.ones((3, 2)), "a.bais": np.ones(3, np.float32), "n": np.array(2**40)}
    with pytest.raises(interop.LayoutError) as caught:
        interop.params_from_torch(wrong, layout, like=params)
    assert caught.value.problems == (
        "'a.bias' is missing",
        "'a.bais' is not in the layout",
        "'a.weight': 'a/kernel' is float32; PyTorch's is float64. Cast the one or the other first",
        "'n': 'n' is int32; 1099511627776 does not fit",
    )
    with pytest.raises(interop.LayoutError, match="no leaf 'a/kernel'"):
        interop.params_to_torch({"n": jnp.zeros([], jnp.int32)}, layout)
    with pytest.raises(TypeError, match="'model' is a dict"):
        interop.make_layout(params, {"model": names})


def test_values_keep_their_device_and_special_numbers() -> None:
    device = jax.devices()[3]
    params = {"w": jax.device_put(jnp.zeros(4), device)}
    special = np.array([np.nan, -0.0, np.inf, 1e-45], np.float32)
    layout = interop.make_layout(params, {"w": special})
    carried = interop.params_from_torch({"w": special}, layout, like=params)
    assert carried["w"].devices() == {device}
    assert interop.params_to_torch(carried, layout)["w"].tobytes() == special.tobytes()
