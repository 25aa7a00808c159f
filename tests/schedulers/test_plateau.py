"""``reduce_lr_on_plateau`` beside PyTorch's, and how it is advanced: by updates, or once an epoch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import jaxopt_core as jo
from jaxopt_core import schedulers
from tests import oracle

LR = 0.5
STEPS = 60
RNG = np.random.default_rng(0)
FALLING = (2.0 * 0.9 ** np.arange(STEPS) + RNG.normal(0, 0.1, STEPS)).tolist()
METRICS = {
    "noisy": FALLING,
    "with NaN and inf": [np.nan, *FALLING[:10], np.nan, np.inf, *FALLING[10:20], -np.inf, *FALLING[20:50]],
    "only NaN": [np.nan] * 30,
    "around zero": (0.5 - np.arange(STEPS) / 20 + RNG.normal(0, 0.2, STEPS)).tolist(),
}
ROWS = [
    {},
    {"patience": 0},
    {"patience": 2, "factor": 0.5},
    {"patience": 1, "mode": "max"},
    {"patience": 1, "mode": "max", "threshold_mode": "abs", "threshold": 0.1},
    {"patience": 1, "threshold_mode": "abs", "threshold": 0.05, "cooldown": 3},
    {"patience": 2, "threshold": 0.2, "cooldown": 1},
    {"patience": 0, "factor": 0.5, "min_lr": 0.06},
    {"patience": 0, "factor": 0.5, "eps": 0.02},
    {"patience": 0, "factor": 0.0, "min_lr": 0.01},
    {"patience": 0, "factor": 0.5, "min_lr": 0.9},
]


def rates(arguments, metrics):
    return schedulers.evaluate(schedulers.reduce_lr_on_plateau(LR, **arguments), len(metrics), values=metrics)


@pytest.mark.parametrize("arguments", ROWS, ids=str)
@pytest.mark.usefixtures("x64")
def test_values(arguments):
    for name, metrics in METRICS.items():
        spec = ("ReduceLROnPlateau", arguments)
        expected = oracle.run_scheduler(spec, len(metrics), LR, metrics=metrics)["lr"]
        np.testing.assert_allclose(rates(arguments, metrics), expected, rtol=1e-12, err_msg=name)


def test_float32_decides_alike():
    metrics = METRICS["noisy"]
    expected = oracle.run_scheduler(("ReduceLROnPlateau", ROWS[2]), len(metrics), LR, metrics=metrics)["lr"]
    assert len(set(expected)) > 3
    np.testing.assert_allclose(rates(ROWS[2], metrics), expected, rtol=1e-6)


PARAMS = {"head": jnp.ones(3), "body": jnp.ones(2)}


def plateau(**arguments):
    return schedulers.reduce_lr_on_plateau(LR, patience=0, factor=0.5, per_epoch=True, **arguments)


def rate(state):
    return jax.tree.map(float, jo.read_hyperparams(state)["lr"])


def test_value_in_every_update():
    # As a PyTorch loop that steps the scheduler after each batch: the new rate is that of the next update.
    tx = jo.sgd(lr=schedulers.reduce_lr_on_plateau(LR, patience=1, factor=0.5))
    losses, grads = [3.0, 2.0, 2.0, 2.0, 2.0, 1.0], np.ones((6, 3))
    step = jax.jit(lambda params, state, value: tx.update(params, state, params, value=value))
    ours, params, state = [], jnp.ones(3), tx.init(jnp.ones(3))
    for loss in losses:
        updates, state = step(jnp.ones(3), state, loss)
        params = jo.apply_updates(params, updates)
        ours.append(params)
    spec = ("ReduceLROnPlateau", {"patience": 1, "factor": 0.5})
    theirs = oracle.run_scheduler_beside_optimizer(spec, "SGD", {"lr": LR}, np.ones(3), grads, losses)
    np.testing.assert_allclose(np.stack(ours), theirs, rtol=1e-6)
    assert step._cache_size() == 1


def test_update_without_value_says_so():
    tx = jo.sgd(lr=schedulers.reduce_lr_on_plateau(LR))
    state = tx.init(PARAMS)
    for update in (tx.update, jax.jit(tx.update)):
        with pytest.raises(
            ValueError, match=r"received no value .* value=loss.* per_epoch=True .* step_schedules"
        ):
            update(PARAMS, state, PARAMS)


def test_per_epoch_ignores_updates():
    tx = jo.sgd(lr=plateau())
    state = tx.init(PARAMS)
    for _ in range(5):
        _, state = tx.update(PARAMS, state, PARAMS)
        _, state = tx.update(PARAMS, state, PARAMS, value=1.0)
    assert rate(state) == LR
    assert int(state.hyperparams["lr"].state.last_epoch) == 0
    state = jo.step_schedules(jo.step_schedules(state, 1.0), 1.0)
    assert rate(state) == LR / 2
    updates, state = tx.update(PARAMS, state, PARAMS)
    assert float(updates["head"][0]) == -LR / 2


def test_step_schedules_is_pure_and_compiles_once():
    state = jo.adam(lr=plateau()).init(PARAMS)
    step = jax.jit(jo.step_schedules)
    once = step(state, 1.0)
    twice = step(once, np.float32(2.0))
    assert (rate(state), rate(once), rate(twice)) == (LR, LR, LR / 2)
    assert jax.tree.structure(twice) == jax.tree.structure(state)
    assert jax.tree.map(lambda x: x.dtype, twice) == jax.tree.map(lambda x: x.dtype, state)
    assert step._cache_size() <= 2  # a Python number is weakly typed


LABELS = {"head": "a", "body": "b"}
NESTINGS = {
    "chain": lambda tx: optax.chain(optax.clip_by_global_norm(1.0), optax.chain(tx)),
    "masked": lambda tx: optax.masked(tx, {"head": True, "body": False}),
    "partition": lambda tx: optax.partition({"a": tx, "b": jo.adamw()}, LABELS),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
}


@pytest.mark.parametrize("nesting", NESTINGS)
def test_any_nesting(nesting):
    tx = NESTINGS[nesting](jo.sgd(lr=plateau()))
    state = tx.init(PARAMS)
    for loss in (1.0, 1.0):
        _, state = tx.update(PARAMS, state, PARAMS)
        state = jo.step_schedules(state, loss)
    _, state = tx.update(PARAMS, state, PARAMS)
    rates = rate(state)
    assert LR / 2 in (rates.values() if isinstance(rates, dict) else [rates])


def test_other_hyperparameters_and_lowest_rates_by_path():
    lr = jo.by_path({"head": plateau(min_lr=0.2)}, default=plateau())
    tx = jo.adam(lr=lr, betas=(0.9, plateau()))
    state = tx.init(PARAMS)
    for _ in range(4):
        state = jo.step_schedules(state, 1.0)
    assert rate(state) == {"head": pytest.approx(0.2), "default": LR / 8}
    assert float(jo.read_hyperparams(state)["betas"][1]) == LR / 8


def test_min_lr_by_path_names_the_remedy():
    for min_lr in ([0.1, 0.2], jo.by_path({"head": 0.1}, default=0.2)):
        with pytest.raises(TypeError, match=r"min_lr must be a number.*by_path"):
            schedulers.reduce_lr_on_plateau(LR, min_lr=min_lr)


def test_step_schedules_with_nothing_to_step():
    for lr in (0.1, schedulers.step_lr(0.1, 3), schedulers.reduce_lr_on_plateau(0.1)):
        with pytest.raises(ValueError, match=r"No schedule in this state waits.*per_epoch=True"):
            jo.step_schedules(jo.sgd(lr=lr).init(PARAMS), 1.0)


@pytest.mark.parametrize("value", ["1", None, 1j, jnp.ones(2), [1.0, 2.0]], ids=str)
def test_wrong_value(value):
    with pytest.raises((TypeError, ValueError), match=r"value of a plateau's metric must be a"):
        jo.step_schedules(jo.sgd(lr=plateau()).init(PARAMS), value)


@pytest.mark.parametrize(
    "value", [np.float64(1), jnp.bfloat16(1), jnp.int32(1), jnp.ones((1, 1)), 1, True], ids=repr
)
def test_any_scalar_is_a_value(value):
    state = jo.step_schedules(jo.sgd(lr=plateau()).init(PARAMS), value)
    assert float(state.hyperparams["lr"].state.best) == 1


def test_batch_of_states():
    tx = jo.sgd(lr=plateau())
    states = jax.vmap(lambda _: tx.init(PARAMS))(jnp.arange(2))
    for values in ([1.0, 1.0], [0.5, 2.0]):
        states = jo.step_schedules(states, jnp.asarray(values))
    assert jo.read_hyperparams(states)["lr"].tolist() == [LR, LR / 2]


def test_checkpoint(tmp_path):
    tx = jo.adamw(lr=jo.by_path({"head": plateau()}, default=plateau(cooldown=2)))
    state = jo.step_schedules(jo.step_schedules(tx.init(PARAMS), 1.0), 1.0)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
    with ocp.StandardCheckpointer() as checkpointer:
        back = checkpointer.restore(tmp_path / "state", jax.eval_shape(tx.init, PARAMS))
    for _ in range(3):
        state, back = jo.step_schedules(state, 1.0), jo.step_schedules(back, 1.0)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert jax.tree.map(float, jax.tree.leaves(back.hyperparams)) == jax.tree.map(
        float, jax.tree.leaves(state.hyperparams)
    )


def test_donation():
    tx = jo.sgd(lr=plateau(), momentum=0.5)
    step = jax.jit(tx.update, donate_argnums=1)
    state = tx.init(PARAMS)
    for _ in range(3):
        _, state = step(PARAMS, state, PARAMS)
        state = jax.jit(jo.step_schedules, donate_argnums=0)(state, 1.0)
    assert rate(state) == LR / 4
    assert step._cache_size() == 1


def test_flax_nnx():
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, jo.sgd(lr=plateau()), wrt=nnx.Param)
    for _ in range(2):
        optimizer.opt_state = jo.step_schedules(optimizer.opt_state, 1.0)
    before = model.bias[...]
    optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
    np.testing.assert_allclose(before - model.bias[...], LR / 2)
