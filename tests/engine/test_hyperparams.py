"""Every number among every optimizer's arguments may be an array, a tracer, a schedule or by_path."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_core as jo
from tests.engine.cases import (
    NAMES,
    NUMERIC,
    REPRESENTATIVE,
    Argument,
    Run,
    assert_close,
    assert_equal,
    differ,
    make,
    run,
    steps_of,
    usual_arguments,
)

every_argument = pytest.mark.parametrize("argument", NUMERIC, ids=str)
every_tuple = pytest.mark.parametrize("argument", [a for a in NUMERIC if a.index is not None], ids=str)

ROWS = 1 + max(sum(argument.optimizer == name for argument in NUMERIC) for name in NAMES)


def build(argument: Argument, value: Any) -> Any:
    return getattr(jo, argument.optimizer)(**argument.given(value))


@functools.cache
def fixed(argument: Argument, value: float) -> Run:
    return run(build(argument, value), argument.optimizer)


@functools.cache
def switched(argument: Argument) -> Run:
    """The other value first, set by hand to the usual one before the last update."""
    tx = build(argument, jnp.asarray(argument.other, jnp.float32))
    return run(
        tx,
        argument.optimizer,
        before={
            switch(argument): lambda state: jo.set_hyperparams(state, **argument.setting(argument.usual))
        },
    )


def switch(argument: Argument) -> int:
    """The update from which a changing hyperparameter has its usual value: the last one."""
    return steps_of(argument.optimizer) - 1


def trajectory(result: Run) -> Any:
    # Whether a buffer has been set is remembered only where the momentum may change.
    slots = [{k: v for k, v in s.items() if k != "momentum_buffer_set"} for s in result.slots]
    return result.params, slots


def mixed(argument: Argument) -> Any:
    """The kernel as with the other value, all else as with the usual one."""
    other, usual = fixed(argument, argument.other), fixed(argument, argument.usual)
    return [
        {"layer": {"kernel": o["layer"]["kernel"], "bias": u["layer"]["bias"]}}
        for o, u in zip(other.params, usual.params, strict=True)
    ]


def test_every_optimizer_is_here():
    assert {argument.optimizer for argument in NUMERIC} == {
        *("adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "asgd", "muon", "nadam"),
        *("radam", "rmsprop", "rprop", "sgd", "sparse_adam"),
    }


@pytest.mark.slow
@every_argument
def test_number_matters(argument):
    # The other tests compare trajectories that differ in this number: they must differ visibly.
    usual, other = fixed(argument, argument.usual), fixed(argument, argument.other)
    assert differ(trajectory(usual), trajectory(other))


@every_argument
def test_array_equals_number(argument):
    result = run(build(argument, jnp.asarray(argument.other, jnp.float32)), argument.optimizer)
    assert_close(trajectory(result), trajectory(fixed(argument, argument.other)))
    assert argument.of(jo.read_hyperparams(result.state)) == argument.other


@pytest.mark.parametrize(
    "value",
    [np.asarray(0.125), np.float32(0.125), jnp.asarray(0.125, jnp.bfloat16), jnp.asarray(0.125)],
    ids=["numpy float64", "numpy scalar", "bfloat16", "weakly typed"],
)
def test_array_of_any_float_dtype(value):
    result = run(jo.sgd(lr=value, momentum=value), "sgd")
    assert_equal(result.params, run(jo.sgd(lr=0.125, momentum=jnp.float32(0.125)), "sgd").params)


def test_integer_array():
    result = run(jo.sgd(lr=jnp.asarray(1)), "sgd")
    assert_equal(result.params, run(jo.sgd(lr=1), "sgd").params)


@pytest.mark.parametrize("optimizer", REPRESENTATIVE)
def test_tracers_equal_numbers(optimizer):
    # One run of vmap: every argument is a tracer, and in row i the i-th has its other value.
    usual = jax.tree.map(np.float32, usual_arguments(optimizer))
    chosen = [argument for argument in NUMERIC if argument.optimizer == optimizer]
    rows = [argument.given(np.float32(argument.other)) for argument in chosen]
    rows += [usual] * (ROWS - len(rows))  # one length for all optimizers, whose operations compile once

    @jax.vmap
    def together(arguments: Any) -> Any:
        return trajectory(run(getattr(jo, optimizer)(**arguments), optimizer))

    results = together(jax.tree.map(lambda *values: jnp.asarray(np.float32(values)), *rows))
    for i, argument in enumerate(chosen):
        one = jax.tree.map(lambda leaf: leaf[i], results)  # noqa: B023
        assert_close(one, trajectory(fixed(argument, argument.other)), rtol=2e-5, atol=1e-5)
    assert_close(
        jax.tree.map(lambda leaf: leaf[-1], results), trajectory(fixed(chosen[0], chosen[0].usual)), atol=1e-5
    )


@every_argument
def test_schedule(argument):
    tx = build(argument, lambda count: jnp.where(count < switch(argument), argument.other, argument.usual))
    result = run(tx, argument.optimizer)
    assert_close(trajectory(result), trajectory(switched(argument)))
    assert differ(trajectory(result), trajectory(fixed(argument, argument.usual)))
    assert argument.of(jo.read_hyperparams(result.state)) == argument.usual


@dataclasses.dataclass(frozen=True)
class Metric:
    """A stateful schedule in Optax's protocol: another value once a metric has been above a half."""

    before: float
    after: float

    def init(self) -> jax.Array:
        return jnp.zeros([], bool)

    def update(self, state: jax.Array, *, value: Any, **extra: Any) -> jax.Array:
        del extra
        return state | (jnp.asarray(value) > 0.5)

    def __call__(self, state: jax.Array, **extra: Any) -> jax.Array:
        del extra
        return jnp.where(state, self.after, self.before)


@pytest.mark.slow
@every_argument
def test_stateful_schedule(argument):
    metrics = [{"value": jnp.float32(t == switch(argument) - 1)} for t in range(steps_of(argument.optimizer))]
    tx = build(argument, Metric(argument.other, argument.usual))
    result = run(tx, argument.optimizer, extra=metrics)
    assert_close(trajectory(result), trajectory(switched(argument)))
    assert argument.of(jo.read_hyperparams(result.state)) == argument.usual


@every_argument
def test_by_path(argument):
    value = jo.by_path({"kernel$": argument.other}, default=argument.usual)
    assert_close(run(build(argument, value), argument.optimizer).params, mixed(argument))


@pytest.mark.slow
@every_argument
def test_by_path_of_everything(argument):
    # An array, a schedule and by_path again, inside one by_path.
    nowhere = jnp.asarray(jnp.nan, jnp.float32)
    value = jo.by_path(
        {
            "bias": lambda count: jnp.full_like(count, argument.usual, dtype=jnp.float32),
            "layer": jo.by_path({"kernel$": jnp.float32(argument.other)}, default=nowhere),
        },
        default=nowhere,
    )
    result = run(build(argument, value), argument.optimizer)
    assert_close(result.params, mixed(argument))


@pytest.mark.slow
@every_argument
def test_by_path_set(argument):
    start = jnp.asarray(argument.usual, jnp.float32)
    tx = build(argument, jo.by_path({"kernel$": start}, default=argument.usual))
    entry = argument.setting({"kernel$": jnp.asarray(argument.other, jnp.float32)})
    late = jo.set_hyperparams(tx.init({"kernel": jnp.ones((3, 2))}), **entry)
    assert argument.of(jo.read_hyperparams(late))["kernel$"] == argument.other
    if argument.name == "initial_accumulator_value":
        return  # read by init alone, as in PyTorch
    result = run(tx, argument.optimizer, before={0: lambda state: jo.set_hyperparams(state, **entry)})
    assert_close(result.params, mixed(argument))


@every_tuple
def test_tuple_by_path(argument):
    def whole(value: float) -> tuple[float, ...]:
        return argument.given(value)[argument.name]

    value = jo.by_path({"kernel$": whole(argument.other)}, default=whole(argument.usual))
    arguments = argument.given(argument.usual) | {argument.name: value}
    tx = getattr(jo, argument.optimizer)(**arguments)
    assert_close(run(tx, argument.optimizer).params, mixed(argument))


@every_tuple
def test_tuple_by_path_read_and_set(argument):
    pairs = {"kernel$": argument.given(jnp.asarray(argument.usual, jnp.float32))[argument.name]}
    value = jo.by_path(pairs, default=argument.given(argument.usual)[argument.name])
    tx = getattr(jo, argument.optimizer)(**argument.given(argument.usual) | {argument.name: value})
    setting = {argument.name: {"kernel$": argument.setting(argument.other)[argument.name]}}
    result = run(tx, argument.optimizer, before={0: lambda state: jo.set_hyperparams(state, **setting)})
    assert_close(result.params, mixed(argument))
    read = jo.read_hyperparams(result.state)[argument.name]
    assert set(read) == {"kernel$"}
    assert read["kernel$"][argument.index] == argument.other
    assert all(v is None for i, v in enumerate(read["kernel$"]) if i != argument.index)


@pytest.mark.parametrize("flag", ["maximize", "amsgrad"])
def test_flag_by_path(flag):
    # Gradients that shrink, so that the largest average of squares is not the last one.
    def flagged_run(value: Any) -> Run:
        tx = optax.chain(optax.scale_by_schedule(lambda count: 0.1**count), make("adam", **{flag: value}))
        return run(tx, "adam")

    result = flagged_run(jo.by_path({"kernel$": True}, default=False))
    plain, flagged = (flagged_run(value).params[-1] for value in (False, True))
    assert differ(plain["layer"]["kernel"], flagged["layer"]["kernel"])
    assert_close(result.params[-1]["layer"]["kernel"], flagged["layer"]["kernel"])
    assert_close(result.params[-1]["layer"]["bias"], plain["layer"]["bias"])


def test_schedule_that_is_a_named_tuple():
    class Decay(NamedTuple):
        start: float
        rate: float

        def __call__(self, count: jax.Array) -> jax.Array:
            return self.start * self.rate**count

    result = run(jo.sgd(lr=Decay(0.5, 0.5)), "sgd")
    assert_close(result.params, run(jo.sgd(lr=lambda count: 0.5 * 0.5**count), "sgd").params)
