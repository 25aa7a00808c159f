"""Accumulation equals PyTorch's loop of several ``backward`` and one ``step``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_core as jo
from jaxopt_core import gradients
from tests.gradients import theirs
from tests.gradients.test_clip import as_jax, tree


def follow(tx, params, grads, last=None):
    params = as_jax(params)
    state, history = tx.init(params), []
    update = jax.jit(tx.update)
    for t, grad in enumerate(grads):
        updates, state = update(as_jax(grad), state, params, last=jnp.asarray(t == last))
        params = jo.apply_updates(params, updates)
        history.append(params)
    return history, state, update


def assert_equal(history, expected, tolerance=1e-12):
    for t, (ours, want) in enumerate(zip(history, expected, strict=True)):
        for name in want:
            np.testing.assert_allclose(
                ours[name], want[name], rtol=tolerance, atol=tolerance, err_msg=f"{t} {name}"
            )


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize(("wide", "tolerance"), [(True, 1e-12), (False, 3e-5)])
def test_over_a_run_with_clipping_and_a_schedule(wide, tolerance, reduction):
    with jax.enable_x64(wide):
        dtype = np.float64 if wide else np.float32
        params, grads = tree(99, dtype), [tree(t, dtype) for t in range(120)]
        inner = optax.chain(
            gradients.clip_grad_norm(1.0), jo.adamw(lr=jo.schedulers.exponential_lr(0.01, 0.9))
        )
        history, state, update = follow(gradients.accumulate(inner, 3, reduction), params, grads)
        expected = theirs.train(
            params,
            grads,
            "AdamW",
            every=3,
            divide=reduction == "mean",
            max_norm=1.0,
            lr=0.01,
            scheduler=lambda opt: torch.optim.lr_scheduler.ExponentialLR(opt, 0.9),
        )
        assert_equal(history, expected, tolerance)
        assert int(state.gradient_step) == 40
        np.testing.assert_allclose(jo.read_hyperparams(state)["lr"], 0.01 * 0.9**39, rtol=1e-5)
        assert update._cache_size() == 1


@pytest.mark.usefixtures("x64")
def test_last_group_is_told_or_flushed():
    params, grads = tree(99), [tree(t) for t in range(8)]
    tx = gradients.accumulate(jo.adamw(), 3)
    expected = theirs.train(params, grads, "AdamW", every=3, last=7)
    told, state, _ = follow(tx, params, grads, last=7)
    assert_equal(told, expected)
    assert (int(state.mini_step), int(state.gradient_step)) == (0, 3)

    history, state, _ = follow(tx, params, grads)
    updates, state = jax.jit(tx.flush)(state, history[-1])
    assert_equal([jo.apply_updates(history[-1], updates)], expected[-1:])
    again, unchanged = tx.flush(state, history[-1])
    assert not any(np.any(u) for u in jax.tree.leaves(again))
    jax.tree.map(np.testing.assert_array_equal, unchanged.inner_state, state.inner_state)
    assert int(unchanged.gradient_step) == 3


def test_mean_of_an_early_end():
    tx = gradients.accumulate(jo.sgd(lr=1.0), 4, "mean")
    state = tx.init(jnp.zeros(1))
    _, state = tx.update(jnp.full(1, 1.0), state, jnp.zeros(1))
    updates, _ = tx.update(jnp.full(1, 3.0), state, jnp.zeros(1), last=True)
    assert updates.tolist() == [-2.0]


@pytest.mark.parametrize("way", ["update", "flush"])
@pytest.mark.usefixtures("x64")
def test_missing_gradients(way):
    # bias: never; kernel: in some updates of each group; scale: now and then for whole groups.
    params = tree(99)
    grads = []
    for t in range(24):
        grad = tree(t) | {"bias": None}
        if t % 3 != 1:
            grad["kernel"] = None
        if (t // 3) % 2:
            grad["scale"] = None
        grads.append(grad)
    expected = theirs.train(params, grads, "AdamW", every=3, weight_decay=0.5)
    if way == "update":
        tx = gradients.accumulate(jo.adamw(weight_decay=0.5), 3)
        history, state, _ = follow(tx, params, grads)
    else:
        tx = gradients.accumulate(jo.adamw(weight_decay=0.5), 100)
        now, history = as_jax(params), []
        state = tx.init(now)
        for t, grad in enumerate(grads):
            updates, state = tx.update(as_jax(grad), state, now)
            assert not any(np.any(u) for u in jax.tree.leaves(updates))
            if t % 3 == 2:
                updates, state = tx.flush(state, now)
                now = jo.apply_updates(now, updates)
            history.append(now)
    assert_equal(history, expected)
    np.testing.assert_array_equal(history[-1]["bias"], params["bias"])
    steps = state.inner_state.slots["step"]
    assert [int(steps[name]) for name in ("bias", "kernel", "scale")] == [0, 8, 4]


def test_scan_and_donation():
    tx = gradients.accumulate(jo.adam(lr=0.1), 2)
    params = jnp.zeros(4)

    def run(params, state, grads):
        def step(carry, grad):
            params, state = carry
            updates, state = tx.update(grad, state, params)
            return (jo.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), grads)[0]

    grads = jnp.stack([jnp.full(4, float(t)) for t in range(5)])
    scanned, state = jax.jit(run, donate_argnums=(0, 1))(jnp.zeros(4), tx.init(params), grads)
    history, looped, _ = follow(tx, {"w": params}, [{"w": g} for g in grads])
    np.testing.assert_allclose(scanned, history[-1]["w"], rtol=1e-6)
    assert int(state.mini_step) == int(looped.mini_step) == 1


def test_memory_is_one_tree():
    params = {"w": jnp.zeros((64, 64)), "frozen": None}
    plain, tx = jo.adamw(), gradients.accumulate(jo.adamw(), 4)

    def size(t):
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(t.init(params)))

    assert size(tx) - size(plain) <= 64 * 64 * 4 + 16


def test_optax_inside_and_waiting_costs_no_step():
    inner = optax.trace(0.9)
    tx = gradients.accumulate(inner, 2)
    params = {"w": jnp.ones(2)}
    state = tx.init(params)
    _, state = tx.update({"w": jnp.ones(2)}, state, params)
    jax.tree.map(np.testing.assert_array_equal, state.inner_state, inner.init(params))
    updates, state = tx.update({"w": 2 * jnp.ones(2)}, state, params)
    want, _ = inner.update({"w": 3 * jnp.ones(2)}, inner.init(params), params)
    np.testing.assert_allclose(updates["w"], want["w"], rtol=1e-6)


def test_groups_that_grow():
    tx = gradients.accumulate(jo.sgd(lr=1.0), lambda steps: 1 + steps)
    state, made = tx.init(jnp.zeros(1)), []
    for _ in range(6):
        updates, state = tx.update(jnp.ones(1), state, jnp.zeros(1))
        made.append(-float(updates[0]))
    assert made == [1.0, 0.0, 2.0, 0.0, 0.0, 3.0]


def test_wrong_arguments():
    for steps in (0, 1.5, True):
        with pytest.raises(ValueError, match="steps must be an integer of at least 1"):
            gradients.accumulate(jo.sgd(), steps)
    with pytest.raises(ValueError, match="reduction must be 'sum' or 'mean'; got 'max'"):
        gradients.accumulate(jo.sgd(), 2, "max")
    tx = gradients.accumulate(jo.sgd(), 2)
    state = tx.init({"table": jnp.zeros((3, 1))})
    rows = {"table": jo.sparse_rows(jnp.asarray([1]), jnp.ones((1, 1)), 3)}
    with pytest.raises(TypeError, match="'table' is sparse"):
        tx.update(rows, state, {"table": jnp.zeros((3, 1))})
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update({"table": jnp.zeros((3, 1))}, state)
