"""Small parameters computed together, by ``bucketed``, are as if alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_core as jo
from jaxopt_core import runs
from tests.engine.cases import NAMES, assert_close, make

BUCKETED = [name for name in NAMES if make(name).rule.elementwise and not make(name).rule.sparse]
STEPS = 2


@pytest.fixture(autouse=True)
def short_runs(monkeypatch):
    """Small numbers, so that few parameters make several runs."""
    monkeypatch.setattr(runs, "LENGTH", 2)
    monkeypatch.setattr(runs, "LARGEST", 6)


def params() -> Any:
    """More than one run of a shape, and what cannot be joined."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    tree = {
        "many": [draw(2, 3) for _ in range(5)],
        "large": [draw(4, 3), draw(4, 3)],
    }
    return tree | {
        "scalars": [draw(), draw()],
        "empty": [draw(0, 2), draw(0, 2)],
        "absent": [None, None],
        "half": [draw(2).astype(jnp.bfloat16), draw(2).astype(jnp.bfloat16)],
    }


def grads_of(tree: Any, t: int) -> Any:
    def grad(p: Any) -> Any:
        return jnp.cos(3 * p + t).astype(p.dtype)

    return jax.tree.map(grad, tree)


def trained(tx: Any, start: Any) -> tuple[Any, Any]:
    state = tx.init(start)
    for t in range(STEPS):
        grads = grads_of(start, t)
        updates, state = tx.update(grads, state, start)
        start = jo.apply_updates(start, updates)
    return start, state


@pytest.mark.parametrize(
    "arguments",
    [
        {"lr": jo.by_path({"many/1": 0.5, "large": jnp.float32(0.25)}, default=1.0), "momentum": 0.5},
        {"momentum": jo.by_path({"many/0": 0.0}, default=0.5)},
    ],
    ids=["by_path", "by_path of structure"],
)
def test_bucketed_by_path(arguments):
    alone, _ = trained(jo.sgd(**arguments), params())
    assert_close(trained(jo.bucketed(jo.sgd(**arguments)), params())[0], alone, rtol=1e-6)


@pytest.mark.parametrize("optimizer", BUCKETED)
def test_bucketed(optimizer):
    tx = jo.bucketed(make(optimizer))
    expected, alone = trained(make(optimizer), params())
    after, state = trained(tx, params())
    assert_close(after, expected, rtol=1e-6)
    assert int(state.count) == STEPS
    # The elements of a slot are those of the trees, in runs.
    for name, arrays in state.slots.items():
        leaves = jax.tree.leaves(alone.slots[name])
        assert sum(a.size for a in arrays.values()) == sum(leaf.size for leaf in leaves)
        assert len(arrays) < len(leaves)
    assert jo.read_hyperparams(state) == jo.read_hyperparams(alone)


@pytest.mark.parametrize("optimizer", sorted(set(NAMES) - set(BUCKETED)))
def test_bucketed_refuses_what_is_not_elementwise(optimizer):
    with pytest.raises(ValueError, match=r"elementwise"):
        jo.bucketed(make(optimizer))


def test_bucketed_refuses_what_is_not_ours():
    with pytest.raises(ValueError, match=r"elementwise optimizer of this package"):
        jo.bucketed(optax.adam(0.1))
    with pytest.raises(ValueError, match=r"elementwise optimizer of this package"):
        jo.bucketed(jo.lbfgs())


def test_bucketed_refuses_a_missing_gradient():
    tx, start = jo.bucketed(make("adam")), [jnp.ones(2), jnp.ones(2)]
    with pytest.raises(ValueError, match=r"cannot skip a parameter: '1' has no gradient"):
        tx.update([jnp.ones(2), None], tx.init(start), start)


def test_bucketed_state_does_not_go_to_the_plain_optimizer():
    tx, start = make("adam"), [jnp.ones(2), jnp.ones(2)]
    with pytest.raises(ValueError, match=r"other parameters"):
        tx.update(start, jo.bucketed(tx).init(start), start)
    with pytest.raises(ValueError, match=r"bucketed|other parameters"):
        jo.bucketed(tx).update(start, tx.init(start), start)


def test_bucketed_has_no_count_for_every_parameter():
    tx, start = jo.bucketed(make("adam")), {"a": [jnp.ones(2), jnp.ones(2)]}
    with pytest.raises(ValueError, match=r"bucketed"):
        jo.count_per_parameter(tx.init(start), start)


def test_bucketed_under_jit_with_donation_and_new_rates():
    tx = jo.bucketed(jo.adamw(lr=0.5))
    step = jax.jit(tx.update, donate_argnums=1)
    start = params()
    state = tx.init(start)
    for t, lr in enumerate((0.5, 0.25, 0.125)):
        state = jo.set_hyperparams(state, lr=lr)
        old = jax.tree.leaves(state)
        updates, state = step(grads_of(start, t), state, start)
        start = jo.apply_updates(start, updates)
        assert all(leaf.is_deleted() for leaf in old)
    assert step._cache_size() == 1
    expected = params()
    state = jo.adamw(lr=0.5).init(expected)
    for t, lr in enumerate((0.5, 0.25, 0.125)):
        updates, state = jo.adamw().update(grads_of(expected, t), jo.set_hyperparams(state, lr=lr), expected)
        expected = jo.apply_updates(expected, updates)
    # bfloat16 may round to the other side.
    halves = [tree.pop("half") for tree in (start, expected)]
    assert_close(start, expected)
    assert_close(*halves, rtol=2**-7)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("count", [1, 2, 8, 9, 16, 17, 70])
def test_join_and_split(shape, count):
    parts = [jnp.asarray(np.random.default_rng(i).normal(size=shape)) for i in range(count)]
    joined = runs.join(parts)
    if count > 1:
        np.testing.assert_array_equal(joined, np.concatenate([np.atleast_1d(part) for part in parts]))
    for part, again in zip(parts, runs.split(joined, parts), strict=True):
        np.testing.assert_array_equal(part, again)
        assert part.shape == again.shape


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="it is about XLA's fusions on CPUs")
def test_no_run_has_a_kernel_of_its_own(monkeypatch):
    # A concatenation outside of a fusion would be compiled once for every run.
    monkeypatch.setattr(runs, "LENGTH", 16)
    tree = [jnp.ones(5) for _ in range(64)]
    tx = jo.bucketed(jo.adamw())
    text = jax.jit(tx.update).lower(tree, tx.init(tree), tree).compile().as_text()
    entry = text[text.index("ENTRY") :]
    assert "fusion(" in entry
    assert "concatenate(" not in entry
