"""Loss scaling follows ``torch.amp.GradScaler`` step by step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_core as jo
from jaxopt_core import gradients, precision
from jaxopt_core.data import load_digits
from tests.gradients import theirs

STATE = ["scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"]


def some_gradients(steps, dtype, bad_every):
    rng = np.random.default_rng(0)
    for t in range(steps):
        grads = {"w": rng.normal(size=(3, 2)).astype(dtype), "b": rng.normal(size=2).astype(dtype)}
        if rng.random() < 1 / bad_every:
            grads["b"][t % 2] = (np.inf, -np.inf, np.nan)[t % 3]
        yield grads


@pytest.mark.parametrize(
    ("steps", "wide", "tolerance", "max_norm"),
    [
        (300, True, 1e-12, None),
        pytest.param(2000, True, 1e-12, None, marks=pytest.mark.slow),
        pytest.param(2000, False, 1e-4, 0.5, marks=pytest.mark.slow),
    ],
)
def test_follows_gradscaler(steps, wide, tolerance, max_norm):
    arguments = {"init_scale": 2.0**10, "growth_interval": 7}
    with jax.enable_x64(wide):
        dtype = np.float64 if wide else np.float32
        params = {"w": np.ones((3, 2), dtype), "b": np.zeros(2, dtype)}
        grads = list(some_gradients(steps, dtype, bad_every=15))
        expected = theirs.scaler_run(params, grads, max_norm, 1e-3, **arguments)
        inner = jo.adamw(lr=1e-3)
        if max_norm is not None:
            inner = optax.chain(gradients.clip_grad_norm(max_norm), inner)
        tx = precision.with_loss_scale(inner, precision.dynamic_loss_scale(**arguments))

        def step(carry, grads):
            params, state = carry

            def loss(params):
                return tx.scale(sum((params[name] * grads[name]).sum() for name in params), state)

            updates, state = tx.update(jax.grad(loss)(params), state, params)
            params = jo.apply_updates(params, updates)
            return (params, state), (params, state.loss_scale)

        now = jax.tree.map(jnp.asarray, params)
        stacked = jax.tree.map(lambda *g: jnp.stack(g), *grads)
        (_, state), (history, scales) = jax.jit(lambda c, g: jax.lax.scan(step, c, g))(
            (now, tx.init(now)), stacked
        )
    for name in params:
        np.testing.assert_allclose(
            history[name], np.stack([p[name] for p, _ in expected]), rtol=tolerance, atol=tolerance
        )
    np.testing.assert_array_equal(scales.scale, [s["scale"] for _, s in expected])
    np.testing.assert_array_equal(scales.growth_tracker, [s["_growth_tracker"] for _, s in expected])
    bad = sum(not np.isfinite(g["b"]).all() for g in grads)
    assert int(state.skipped) == bad > steps / 40
    assert len({float(s["scale"]) for _, s in expected}) > 5
    count = state.inner_state.count if max_norm is None else state.inner_state[1].count
    assert int(count) == steps - bad
    assert list(state.loss_scale.state_dict()) == list(expected[-1][1]) == STATE
    assert state.loss_scale.state_dict() == expected[-1][1]


def test_grows_only_to_a_finite_scale():
    scaler = precision.dynamic_loss_scale(init_scale=2.0**126, growth_interval=1)
    theirs_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=1)
    state = scaler.init()
    param = torch.zeros(1, requires_grad=True)
    opt = torch.optim.SGD([param])
    for _ in range(4):
        theirs_scaler.scale(param.sum() * 0).backward()
        theirs_scaler.step(opt)
        theirs_scaler.update()
        state = scaler.update(state, True)
        assert state.state_dict() == theirs_scaler.state_dict()
    assert float(state.scale) == 2.0**127


def test_state_dict_goes_both_ways():
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_factor=4.0, growth_interval=3)
    state = precision.LossScaleState.from_state_dict(scaler.state_dict())
    good = precision.dynamic_loss_scale().update(state, True)
    scaler.load_state_dict(good.state_dict())
    assert scaler.state_dict() == good.state_dict() == {**state.state_dict(), "_growth_tracker": 1}


def test_static_scale_stays_and_skips():
    tx = precision.with_loss_scale(jo.sgd(lr=1.0), precision.static_loss_scale(4.0))
    params = jnp.zeros(1)
    state = tx.init(params)
    for grad, want in [(8.0, -2.0), (jnp.inf, 0.0), (4.0, -1.0)]:
        updates, state = tx.update(jnp.full(1, grad), state, params)
        assert updates.tolist() == [want]
    assert (float(state.loss_scale.scale), int(state.skipped)) == (4.0, 1)


def test_unscaling_twice_is_seen():
    scaler = precision.dynamic_loss_scale()
    unscaled = scaler.unscale({"w": jnp.ones(1)}, scaler.init())
    with pytest.raises(RuntimeError, match="has already been called"):
        scaler.unscale(unscaled, scaler.init())
    with pytest.raises(RuntimeError, match="called twice"):
        precision.with_loss_scale(precision.with_loss_scale(jo.sgd())).init(jnp.ones(1))


def test_unscale_keeps_what_is_not_there_and_dtypes():
    scaler = precision.static_loss_scale(4.0)
    grads = {
        "none": None,
        "half": jnp.ones(1, jnp.bfloat16),
        "z": jnp.ones(1, jnp.complex64),
        "rows": jo.sparse_rows(jnp.asarray([1]), jnp.ones((1, 1)), 3),
    }
    unscaled, finite = scaler.unscale(grads, scaler.init())
    assert bool(finite)
    assert unscaled["none"] is None
    assert unscaled["half"].dtype == jnp.bfloat16
    assert float(unscaled["z"][0].real) == float(unscaled["rows"].data[0, 0]) == 0.25


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"The growth factor must be > 1\.0"):
        precision.dynamic_loss_scale(growth_factor=1.0)
    with pytest.raises(ValueError, match=r"The backoff factor must be < 1\.0"):
        precision.dynamic_loss_scale(backoff_factor=1.0)
    with pytest.raises(ValueError, match="growth interval"):
        precision.dynamic_loss_scale(growth_interval=0)
    with pytest.raises(ValueError, match="positive and finite"):
        precision.static_loss_scale(float("inf"))
    scaler = precision.dynamic_loss_scale()
    with pytest.raises(ValueError, match="Attempting to unscale FP16 gradients: 'w' is float16"):
        scaler.unscale({"w": jnp.ones(1, jnp.float16)}, scaler.init())
    with pytest.raises(ValueError, match="one loss scale in it; found 0"):
        scaler.scale(jnp.ones(()), jo.sgd().init(jnp.ones(1)))


def test_accumulation_around_it():
    tx = gradients.accumulate(precision.with_loss_scale(jo.sgd(lr=1.0), precision.static_loss_scale(4.0)), 2)
    params = jnp.zeros(1)
    state = tx.init(params)
    for want in (0.0, -2.0):
        grads = jax.grad(lambda p: precision.static_loss_scale(4.0).scale(p.sum(), state))(params)  # noqa: B023
        updates, state = tx.update(grads, state, params)
        assert updates.tolist() == [want]


def _accuracy(half):
    digits = load_digits()
    key = jax.random.key(0)
    widths = (64, 64, 10)
    params = [
        {"kernel": jax.random.normal(k, (a, b)) / a**0.5, "bias": jnp.zeros(b)}
        for k, a, b in zip(jax.random.split(key), widths, widths[1:], strict=False)
    ]
    # A start that is too large overflows, so the run also shows the search for a scale.
    tx = precision.with_loss_scale(
        jo.adamw(lr=3e-3), precision.dynamic_loss_scale(2.0**24, growth_interval=50)
    )
    dtype = jnp.float16 if half else jnp.float32

    def logits(params, images):
        first, second = jax.tree.map(lambda p: p.astype(dtype), params)
        hidden = jax.nn.relu(images.astype(dtype) @ first["kernel"] + first["bias"][None])
        return (hidden @ second["kernel"] + second["bias"][None]).astype(jnp.float32)

    def step(carry, picked):
        params, state = carry

        def loss(params):
            images, labels = (
                jnp.asarray(digits.train.images)[picked],
                jnp.asarray(digits.train.labels)[picked],
            )
            losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits(params, images), labels)
            return tx.scale(losses.mean(), state)

        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (jo.apply_updates(params, updates), state), None

    picks = jax.random.randint(key, (500, 64), 0, len(digits.train.labels))
    (params, state), _ = jax.jit(lambda c: jax.lax.scan(step, c, picks))((params, tx.init(params)))
    right = np.argmax(logits(params, jnp.asarray(digits.test.images)), -1) == digits.test.labels
    return right.mean(), state


@pytest.mark.slow
def test_float16_reaches_float32_on_digits():
    single, _ = _accuracy(half=False)
    half, state = _accuracy(half=True)
    assert single > 0.95
    assert abs(half - single) <= 0.01
    assert int(state.skipped) > 0
    assert int(state.inner_state.count) + int(state.skipped) == 500
