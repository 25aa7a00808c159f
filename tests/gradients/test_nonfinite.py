"""Gradients that are not finite are left out, and too many in a row end the run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_core as jo
from jaxopt_core import gradients

INNER = {
    "adamw": lambda: jo.adamw(lr=lambda count: 0.1 / (1.0 + count.astype(jnp.float32))),
    "chain": lambda: optax.chain(gradients.clip_grad_norm(1.0), jo.sgd(lr=0.1, momentum=0.9)),
    "nadam": jo.nadam,
    "optax": lambda: optax.chain(optax.trace(0.9), optax.scale(-0.1)),
    "accumulate": lambda: gradients.accumulate(jo.adam(), 2),
}


@pytest.mark.parametrize(("name", "jit"), [*((name, True) for name in INNER), ("chain", False)])
def test_skipped_updates_leave_no_trace(name, jit):
    rng = np.random.default_rng(0)
    inner = INNER[name]()
    tx = gradients.skip_nonfinite(inner, 2)
    params = alone = {"w": jnp.ones((2, 3)), "b": jnp.ones(3)}
    state, inner_state = tx.init(params), inner.init(params)
    update = jax.jit(tx.update) if jit else tx.update
    for t in range(9):
        grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
        bad = t % 4 in (1, 2)
        given = grads | ({"b": jnp.asarray([jnp.nan if t % 2 else jnp.inf, 1.0, 1.0])} if bad else {})
        updates, state = update(given, state, params)
        params = optax.apply_updates(params, updates)
        if not bad:
            wanted, inner_state = inner.update(grads, inner_state, alone)
            alone = optax.apply_updates(alone, wanted)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), params, alone)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            state.inner_state,
            inner_state,
        )
    assert (int(state.consecutive), int(state.total)) == (0, 4)


def test_large_gradients_are_finite():
    big = {"w": jnp.full(3, 3e38)}
    assert bool(gradients.all_finite(big, norm_of=big))
    assert not bool(gradients.all_finite({"w": jnp.asarray([3e38, jnp.nan])}, norm_of=big))


@pytest.mark.parametrize("jit", [True, False])
def test_raises_after_the_limit(jit):
    tx = gradients.skip_nonfinite(jo.sgd(lr=1.0), 2)
    params = jnp.ones(2)
    state = tx.init(params)
    update = jax.jit(tx.update) if jit else tx.update
    bad = jnp.asarray([jnp.nan, 1.0])
    for _ in range(2):
        updates, state = update(bad, state, params)
        assert not np.any(updates)
    error = jax.errors.JaxRuntimeError if jit else FloatingPointError
    with pytest.raises(error, match="not finite 3 times in a row; at most 2 are left out"):
        jax.block_until_ready(update(bad, state, params))
    _, state = update(jnp.ones(2), state, params)
    assert (int(state.consecutive), int(state.total)) == (0, 2)


def test_missing_gradients_are_still_skipped():
    tx = gradients.skip_nonfinite(jo.adamw(weight_decay=0.5), 2)
    params = {"a": jnp.ones(1), "b": jnp.ones(1)}
    state = tx.init(params)
    update = jax.jit(tx.update)
    for a in (jnp.nan, 1.0, 1.0):
        updates, state = update({"a": jnp.full(1, a), "b": None}, state, params)
        assert updates["b"] is None
    assert [int(state.inner_state.slots["step"][name]) for name in "ab"] == [2, 0]


def test_states_that_share_a_value_keep_their_own():
    # Two slots become the same array, but were different ones before.
    both = optax.GradientTransformation(
        lambda p: {"one": jnp.zeros_like(p), "two": jnp.ones_like(p), "same": jnp.zeros_like(p)},
        lambda g, s, p=None: (g, {"one": (new := jnp.sin(g)), "two": new, "same": s["same"]}),
    )
    tx = gradients.skip_nonfinite(both, 5)
    state = tx.init(jnp.zeros(2))
    _, skipped = jax.jit(tx.update)(jnp.full(2, jnp.inf), state)
    jax.tree.map(np.testing.assert_array_equal, skipped.inner_state, state.inner_state)
    _, taken = jax.jit(tx.update)(jnp.ones(2), state)
    np.testing.assert_allclose(taken.inner_state["two"], np.sin(1.0), rtol=1e-6)


def test_one_pass_without_copies():
    # A copy of a slot, or a buffer for the updates, would cost more than the check.
    params = {"w": jnp.zeros((512, 512))}
    tx = gradients.skip_nonfinite(optax.chain(gradients.clip_grad_norm(1.0), jo.adamw()), 5)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return jo.apply_updates(params, updates), state

    arguments = (params, tx.init(params), params)
    text = jax.jit(step, donate_argnums=(0, 1)).lower(*arguments).compile().as_text()
    assert not [line for line in text.splitlines() if "f32[512,512]" in line and " copy(" in line]


def test_wrong_limit():
    for limit in (-1, 1.5, True):
        with pytest.raises(ValueError, match="max_consecutive must be an integer of at least 0"):
            gradients.skip_nonfinite(jo.sgd(), limit)
