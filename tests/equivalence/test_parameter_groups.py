"""The parameter groups that people port, each against PyTorch's own ``param_groups`` over 100 steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_core as jo
from tests import oracle
from tests.equivalence import trees

STEPS = 100
SHAPES = {
    "embed/table": (7, 4),
    "layers/0/kernel": (4, 4),
    "layers/0/bias": (4,),
    "layers/1/kernel": (4, 4),
    "layers/1/bias": (4,),
    "norm/scale": (4,),
    "head/kernel": (4, 3),
}

pytestmark = pytest.mark.usefixtures("x64")


def arrays(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {path: rng.normal(size=shape) for path, shape in SHAPES.items()}


PARAMS = arrays(0)
GRADS = [arrays(1 + t) for t in range(STEPS)]


def flat(tree: Any) -> dict[str, np.ndarray]:
    pairs, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(leaf) for p, leaf in pairs}


def ours(tx: Any) -> tuple[dict[str, np.ndarray], Any]:
    @jax.jit
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return jo.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, trees.nested(PARAMS))
    state = tx.init(params)
    for grads in GRADS:
        params, state = step(params, state, trees.nested(grads))
    assert step._cache_size() == 1
    return flat(params), state


def theirs(optimizer: str, paths: Any = SHAPES, **kwargs: Any) -> dict[str, np.ndarray]:
    params = {path: PARAMS[path] for path in paths}
    grads = [{path: step[path] for path in paths} for step in GRADS]
    return oracle.run(optimizer, params, grads, **kwargs)[-1].params


def assert_same(actual: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert actual.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_allclose(actual[path], value, rtol=1e-12, atol=1e-14, err_msg=path)
        assert np.any(value != PARAMS[path]), path


def test_no_decay_on_biases_and_norms():
    tx = jo.adamw(lr=1e-2, weight_decay=jo.by_path({r"(bias|scale)$": 0.0}, default=0.1))
    groups = {path: {"weight_decay": 0.0} for path in SHAPES if path.endswith(("bias", "scale"))}
    expected = theirs("AdamW", arguments={"lr": 1e-2, "weight_decay": 0.1}, groups=groups)
    assert_same(ours(tx)[0], expected)


def test_layer_wise_rate_decay():
    depth = {"^embed": 0, "^layers/0": 1, "^layers/1": 2}
    rates = {pattern: 1e-2 * 0.5 ** (3 - d) for pattern, d in depth.items()}
    tx = jo.adamw(lr=jo.by_path(rates, default=1e-2))
    groups = {path: {"lr": 1e-2} for path in SHAPES} | {
        path: {"lr": rates[f"^{place}"]}
        for path in SHAPES
        for place in ("embed", "layers/0", "layers/1")
        if path.startswith(place)
    }
    assert_same(ours(tx)[0], theirs("AdamW", groups=groups))


def test_frozen_backbone_without_state():
    labels = jo.by_path({"^(embed|layers)/": "frozen"}, default="trained").tree
    tx = optax.partition({"frozen": optax.set_to_zero(), "trained": jo.adamw(lr=1e-2)}, labels)
    params, state = ours(tx)
    trained = [path for path in SHAPES if path.startswith(("norm", "head"))]
    assert_same({path: params[path] for path in trained}, theirs("AdamW", trained, arguments={"lr": 1e-2}))
    for path in set(SHAPES) - set(trained):
        np.testing.assert_array_equal(params[path], PARAMS[path])
    elements = sum(PARAMS[path].size for path in trained)
    # Two slots for what is trained, a count and a rate; nothing for what is frozen.
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 2 * elements + 2


def test_muon_for_matrices_and_adamw_for_the_rest():
    def labels(params: Any) -> Any:
        inner = jo.by_path({r"^layers/\d+/kernel$": "muon"}, default="adamw")
        return inner.tree(params)

    # In float32 here, as Newton-Schulz runs in bfloat16 in PyTorch and here: float64 shows nothing more.
    tx = optax.partition({"muon": jo.muon(lr=1e-2), "adamw": jo.adamw(lr=1e-3)}, labels)
    matrices = [path for path in SHAPES if path.startswith("layers") and path.endswith("kernel")]
    rest = [path for path in SHAPES if path not in matrices]
    params, _ = ours(tx)
    assert_same({p: params[p] for p in rest}, theirs("AdamW", rest, arguments={"lr": 1e-3}))
    expected = theirs("Muon", matrices, arguments={"lr": 1e-2})
    for path, value in expected.items():
        # A last bit of bfloat16 may fall the other way in any of 100 steps: 0.4 % of a step of 0.01 to 0.02.
        np.testing.assert_allclose(params[path], value, atol=3e-3)
        assert np.abs(value - PARAMS[path]).max() > 0.1


def test_a_schedule_for_each_group():
    tx = jo.sgd(
        lr=jo.by_path(
            {"^head": lambda count: 0.1 * 0.9 ** count.astype(float)},
            default=lambda count: 0.01 / (1 + count.astype(float)),
        ),
        momentum=0.9,
    )
    changes = [
        {"lr": {path: 0.1 * 0.9**t if path.startswith("head") else 0.01 / (1 + t) for path in SHAPES}}
        for t in range(STEPS)
    ]
    groups: dict[str, Any] = {path: {} for path in SHAPES}
    expected = theirs("SGD", arguments={"momentum": 0.9}, groups=groups, changes=changes)
    assert_same(ours(tx)[0], expected)


def test_several_arguments_for_each_group():
    tx = jo.adamw(
        lr=jo.by_path({"^embed": 1e-4, "^head": 1e-2}, default=1e-3),
        betas=jo.by_path({"^head": (0.5, 0.9)}, default=(0.9, 0.999)),
        amsgrad=jo.by_path({"norm": True}, default=False),
    )
    groups: dict[str, dict[str, Any]] = {path: {} for path in SHAPES}
    groups["embed/table"] = {"lr": 1e-4}
    groups["head/kernel"] = {"lr": 1e-2, "betas": (0.5, 0.9)}
    groups["norm/scale"] = {"amsgrad": True}
    assert_same(ours(tx)[0], theirs("AdamW", arguments={"lr": 1e-3}, groups=groups))
