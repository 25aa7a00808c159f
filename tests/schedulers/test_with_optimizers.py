"""Parameters under a schedule, step by step, beside PyTorch's optimizer and scheduler."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_core as jo
from jaxopt_core import schedulers
from tests import oracle
from tests.schedulers.rows import decay, make

STEPS = 40
START = np.random.default_rng(1).normal(size=(3, 2))
GRADS = np.random.default_rng(2).normal(size=(STEPS, 3, 2))


def trajectory(tx, steps=STEPS, **extra):
    @jax.jit
    def run(params, grads):
        def step(carry, grad):
            updates, state = tx.update(grad, carry[1], carry[0], **extra)
            params = jo.apply_updates(carry[0], updates)
            return (params, state), params

        return jax.lax.scan(step, (params, tx.init(params)), grads)[1]

    return np.asarray(run(jnp.asarray(START), jnp.asarray(GRADS[:steps])))


ONE = ("OneCycleLR", {"max_lr": 0.1, "total_steps": STEPS + 1})
CYCLIC = ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 6, "mode": "triangular2"})
NESTED = ("SequentialLR", {"schedulers": [("LinearLR", {"total_iters": 8}), ONE], "milestones": [8]})
CYCLES = [ONE, CYCLIC, NESTED]
RATES = [
    ("CosineAnnealingLR", {"T_max": 15, "eta_min": 0.01}),
    ("MultiplicativeLR", {"lr_lambda": decay}),
    (
        "ChainedScheduler",
        {
            "schedulers": [
                ("CosineAnnealingLR", {"T_max": 9, "eta_min": 0.01}),
                ("ExponentialLR", {"gamma": 0.95}),
            ]
        },
    ),
    (
        "SequentialLR",
        {"schedulers": [("LinearLR", {}), ("MultiplicativeLR", {"lr_lambda": decay})], "milestones": [5]},
    ),
]


@pytest.mark.parametrize("spec", CYCLES, ids=lambda spec: spec[0])
@pytest.mark.usefixtures("x64")
def test_cycle_with_sgd(spec):
    cycle = make(spec, 0.1)
    arguments = {"lr": 0.1, "momentum": 0.5}
    expected = oracle.run_scheduler_beside_optimizer(spec, "SGD", arguments, START, GRADS)
    got = trajectory(jo.sgd(lr=cycle.lr, momentum=cycle.momentum))
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("spec", CYCLES, ids=lambda spec: spec[0])
@pytest.mark.usefixtures("x64")
def test_cycle_with_adam(spec):
    cycle = make(spec, 0.1)
    expected = oracle.run_scheduler_beside_optimizer(spec, "Adam", {"lr": 0.1}, START, GRADS)
    got = trajectory(jo.adam(lr=cycle.lr, betas=(cycle.momentum, 0.999)))
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("spec", RATES, ids=lambda spec: spec[0])
@pytest.mark.usefixtures("x64")
def test_rate_with_adamw(spec):
    expected = oracle.run_scheduler_beside_optimizer(spec, "AdamW", {"lr": 0.1}, START, GRADS)
    np.testing.assert_allclose(trajectory(jo.adamw(lr=make(spec, 0.1))), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    "theirs",
    [("StepLR", {"step_size": 2}), ("MultiplicativeLR", {"lr_lambda": decay})],
    ids=lambda row: row[0],
)
def test_per_epoch(theirs):
    rates = oracle.run_scheduler(theirs, 6, 0.1)["lr"]
    schedule = schedulers.per_epoch(make(theirs, 0.1), 7)
    got = schedulers.evaluate(schedule, 42)
    np.testing.assert_allclose(got, np.repeat(rates, 7), rtol=2e-6)
    tx = jo.sgd(lr=schedule)
    steps = -np.diff(trajectory(tx), axis=0, prepend=np.float32(START)[None])
    np.testing.assert_allclose(steps, np.repeat(rates, 7)[:STEPS, None, None] * GRADS, rtol=1e-3, atol=1e-6)


def test_per_epoch_of_a_cycle():
    cycle = make(CYCLIC)
    slow = schedulers.per_epoch(cycle, 3)
    for name in ("lr", "momentum"):
        whole = getattr(cycle, name)(np.arange(4))
        np.testing.assert_array_equal(getattr(slow, name)(np.arange(12)), np.repeat(whole, 3))


def test_per_epoch_errors():
    with pytest.raises(ValueError, match=r"per_epoch=True.*step_schedules"):
        schedulers.per_epoch(schedulers.reduce_lr_on_plateau(0.1), 3)
    with pytest.raises(ValueError, match=r"no values between"):
        schedulers.per_epoch(schedulers.multiplicative_lr(0.1, decay), 3, fractional=True)
    with pytest.raises(ValueError, match=r"Expected positive integer steps_per_epoch, but got 0"):
        schedulers.per_epoch(schedulers.step_lr(0.1, 3), 0)


@pytest.mark.parametrize(
    "schedule", [schedulers.step_lr(0.1, 5), schedulers.multiplicative_lr(0.1, decay)], ids=repr
)
def test_transformation_at_the_end_of_a_chain(schedule):
    chained = optax.chain(optax.trace(0.9), schedulers.scale_by_learning_rate(schedule))
    np.testing.assert_allclose(
        trajectory(chained), trajectory(jo.sgd(lr=schedule, momentum=0.9)), rtol=1e-5, atol=1e-6
    )


def test_transformation_by_path_and_dtype():
    lr = jo.by_path({"a": schedulers.step_lr(0.5, 1)}, default=2.0)
    tx = schedulers.scale_by_learning_rate(lr, flip_sign=False)
    params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.complex64), "c": None}
    updates, state = tx.update(params, tx.init(params), params)
    assert (updates["a"].dtype, updates["b"].dtype, updates["c"]) == (jnp.bfloat16, jnp.complex64, None)
    assert (float(updates["a"][0]), complex(updates["b"][0])) == (0.5, 2 + 0j)
    assert jax.tree.map(float, jo.read_hyperparams(state)["lr"]) == {"a": 0.5, "default": 2.0}


def test_transformation_passes_the_metric_on():
    tx = schedulers.scale_by_schedule(schedulers.reduce_lr_on_plateau(1.0, patience=0, factor=0.5))
    state = tx.init(jnp.ones(2))
    for expected in (1.0, 1.0, 0.5):
        updates, state = tx.update(jnp.ones(2), state, value=1.0)
        assert float(updates[0]) == expected


def test_a_cycle_is_not_a_rate():
    with pytest.raises(TypeError, match=r"lr must be .* pass its .lr and its .momentum"):
        jo.sgd(lr=schedulers.one_cycle_lr(0.1, total_steps=10))
