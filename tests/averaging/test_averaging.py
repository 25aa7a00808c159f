"""Averages equal PyTorch's ``AveragedModel``, step by step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

import jaxopt_core as jo
from jaxopt_core import averaging, gradients
from jaxopt_core.models import pure
from tests.averaging import theirs

swa_utils = torch.optim.swa_utils
FUNCTIONS = {
    "swa": (None, {}),
    "swa, spelt out": (averaging.get_swa_avg_fn(), {"avg_fn": swa_utils.get_swa_avg_fn()}),
    "ema": (averaging.get_ema_avg_fn(0.9), {"avg_fn": swa_utils.get_ema_avg_fn(0.9)}),
    "ema of many": (averaging.get_ema_avg_fn(0.25), {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.25)}),
    "own": (lambda a, p, n: a * 0.5 + p * 0.5 + 0 * n, {"avg_fn": lambda a, p, n: a * 0.5 + p * 0.5}),
}


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_functions(name, use_buffers, dtype, tolerance):
    rng = np.random.default_rng(0)
    weights, running = rng.normal(size=(2, 100, 5)).astype(dtype)
    ours, arguments = FUNCTIONS[name]
    with jax.enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("standard"):
        averaged = averaging.init_average(jnp.asarray(weights[0]), jnp.asarray(running[0]))
        take = jax.jit(lambda a, p, b: averaging.average(a, p, b, avg_fn=ours, use_buffers=use_buffers))
        for p, b, want in zip(
            weights, running, theirs.averages(weights, running, use_buffers, **arguments), strict=True
        ):
            averaged = take(averaged, jnp.asarray(p), jnp.asarray(b))
            np.testing.assert_allclose(averaged.params, want[0], rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(averaged.buffers, want[1], rtol=tolerance, atol=tolerance)
    assert int(averaged.n_averaged) == 100


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_beside_the_optimizer_after_each_step(kind):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        link = averaging.ema(0.9) if kind == "ema" else averaging.swa()
        tx = optax.chain(jo.adamw(lr=0.1), link)
        params = {"w": jnp.asarray(rng.normal(size=4)), "none": None}
        state, history, ours = tx.init(params), [], []
        np.testing.assert_array_equal(averaging.averaged_params(state)["w"], params["w"])
        update = jax.jit(tx.update)
        for _ in range(100):
            updates, state = update({"w": jnp.asarray(rng.normal(size=4)), "none": None}, state, params)
            params = jo.apply_updates(params, updates)
            history.append(np.asarray(params["w"]))
            ours.append(averaging.averaged_params(state)["w"])
    avg_fn = swa_utils.get_ema_avg_fn(0.9) if kind == "ema" else None
    expected = theirs.averages(history, history, avg_fn=avg_fn)
    np.testing.assert_allclose(np.stack(ours), np.stack([w for w, _ in expected]), rtol=1e-12, atol=1e-12)


def test_start_and_every_as_the_loop_over_epochs():
    tx = optax.chain(jo.sgd(lr=1.0), averaging.swa(start=4, every=3))
    params = jnp.zeros(1)
    state, epochs = tx.init(params), []
    for step in range(1, 14):
        updates, state = tx.update(-jnp.ones(1), state, params)
        params = jo.apply_updates(params, updates)
        if step > 4 and (step - 4) % 3 == 0:
            epochs.append(params)
        want = np.mean(epochs) if epochs else 0.0
        np.testing.assert_allclose(averaging.averaged_params(state), [want], rtol=1e-6)


def test_inside_and_outside_of_accumulation():
    for outside, want in [(True, 4), (False, 2)]:
        inner = jo.sgd() if outside else optax.chain(jo.sgd(), averaging.ema())
        tx = gradients.accumulate(inner, 2)
        tx = optax.chain(tx, averaging.ema()) if outside else tx
        state = tx.init(jnp.zeros(1))
        for _ in range(4):
            _, state = tx.update(jnp.ones(1), state, jnp.zeros(1))
        n_averaged = state[1].n_averaged if outside else state.inner_state[1].n_averaged
        assert int(n_averaged) == want


def test_swap_in_and_out():
    tx = optax.chain(jo.sgd(lr=1.0), averaging.ema(0.5))
    params = {"w": jnp.zeros(2), "none": None}
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update({"w": -jnp.ones(2), "none": None}, state, params)
        params = jo.apply_updates(params, updates)
    average = averaging.averaged_params(state)
    swapped, held = averaging.swap(params, state)
    np.testing.assert_array_equal(swapped["w"], average["w"])
    back, again = averaging.swap(swapped, held)
    jax.tree.map(np.testing.assert_array_equal, (back, again), (params, state))
    with pytest.raises(ValueError, match="one average in it; found 0"):
        averaging.swap(params, jo.sgd().init(params))


def test_wide_average_of_half_precision_moves():
    params = jnp.ones(1, jnp.bfloat16)
    narrow, wide = averaging.ema(), averaging.ema(dtype=jnp.float32)
    for tx, moves in [(narrow, False), (wide, True)]:
        state = tx.init(params)
        _, state = tx.update(jnp.zeros(1, jnp.bfloat16), state, params)
        _, state = tx.update(jnp.ones(1, jnp.bfloat16), state, params)
        assert (float(averaging.averaged_params(state)[0]) > 1.0) is moves


def test_integers_and_keys_are_copied():
    rest = {"count": jnp.asarray(3), "key": jax.random.key(0), "mean": jnp.zeros(1)}
    averaged = averaging.init_average(jnp.zeros(1), rest)
    for value in (1.0, 3.0):
        rest = rest | {"count": jnp.asarray(int(value)), "mean": jnp.full(1, value)}
        averaged = averaging.average(averaged, jnp.zeros(1), rest, use_buffers=True)
    assert (int(averaged.buffers["count"]), float(averaged.buffers["mean"][0])) == (3, 2.0)


def test_wrong_arguments():
    with pytest.raises(
        ValueError, match=r"Invalid decay value 1\.5 provided. Please provide a value in \[0,1\]"
    ):
        averaging.ema(1.5)
    with pytest.raises(ValueError, match="every at least 1"):
        averaging.swa(every=0)
    with pytest.raises(ValueError, match="needs the parameters"):
        averaging.ema().update(jnp.zeros(1), averaging.ema().init(jnp.zeros(1)))


class Normalised(nnx.Module):
    def __init__(self, momentum):
        rngs = nnx.Rngs(0)
        self.linear = nnx.Linear(4, 5, rngs=rngs)
        self.bn = nnx.BatchNorm(5, momentum=momentum, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.bn(self.linear(x)))


@pytest.mark.parametrize("momentum", [0.99, 0.9, 0.0])
def test_update_bn(momentum):
    apply, params, rest = pure(Normalised(momentum))
    rng = np.random.default_rng(0)
    batches = [(10 * rng.normal(size=(8, 4)) + 3).astype(np.float32) for _ in range(6)]
    fresh = averaging.update_bn(apply, params, rest, ((x, None) for x in batches))
    mean, var = theirs.batch_statistics(
        np.asarray(params["linear"]["kernel"]), np.asarray(params["linear"]["bias"]), batches
    )
    np.testing.assert_allclose(fresh["bn"]["mean"], mean, rtol=1e-5, atol=1e-5)
    # PyTorch's running variance is the unbiased one.
    np.testing.assert_allclose(fresh["bn"]["var"], var * 7 / 8, rtol=1e-5)
    assert jax.tree.structure(fresh) == jax.tree.structure(rest)


def test_update_bn_refuses():
    apply, params, rest = pure(Normalised(0.9))
    with pytest.raises(ValueError, match="there was no batch"):
        averaging.update_bn(apply, params, rest, [])
    with pytest.raises(ValueError, match="matches none"):
        averaging.update_bn(apply, params, rest, [], statistics="typo")
    assert averaging.update_bn(apply, params, {"other": 1}, []) == {"other": 1}

    def frozen(params, rest, x, train):
        del params, train
        return x, rest

    with pytest.raises(ValueError, match="'mean' does not follow the batches"):
        averaging.update_bn(frozen, (), {"mean": jnp.zeros(2)}, [jnp.ones(2)])
