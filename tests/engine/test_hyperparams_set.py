"""Hyperparameters are read and set in any nesting, and what is set is what jit has compiled for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_core as jo
from tests.engine.cases import (
    assert_close,
    make,
    run,
)


@pytest.fixture
def optax_promotes() -> Iterator[None]:
    """Optax's schedules divide integers."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.parametrize(
    "value",
    [0.25, 1, np.float64(0.25), np.float32(0.25), jnp.asarray(0.25)],
    ids=["float", "int", "float64", "float32", "array"],
)
def test_set_keeps_dtype_and_strong_type(value):
    state = jo.adamw().init(jnp.ones(2))
    lr = jo.set_hyperparams(state, lr=value).hyperparams["lr"]
    assert lr.dtype == jnp.float32
    assert not lr.weak_type
    assert float(lr) == float(value)


def test_set_value_may_be_donated_and_used_again():
    lr = jnp.asarray(0.25, jnp.float32)
    tx = jo.sgd(lr=jo.by_path({"a": 0.5}, default=1.0))
    step = jax.jit(tx.update, donate_argnums=1)
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    state = jo.set_hyperparams(tx.init(params), lr=lr)
    _, state = step(params, state, params)
    _, state = step(params, jo.set_hyperparams(state, lr=lr), params)
    assert float(lr) == 0.25


def test_set_in_a_jitted_function():
    tx = jo.sgd(lr=0.5)
    halve = jax.jit(lambda s: jo.set_hyperparams(s, lr=jo.read_hyperparams(s)["lr"] / 2))
    assert float(jo.read_hyperparams(halve(tx.init(jnp.ones(2))))["lr"]) == 0.25


def test_set_leaves_the_old_state_as_it_was():
    state = jo.sgd(lr=jo.by_path({"a": 0.5}, default=0.25)).init({"a": jnp.ones(2), "b": jnp.ones(2)})
    jo.set_hyperparams(state, lr=1.0)
    assert {k: float(v) for k, v in jo.read_hyperparams(state)["lr"].items()} == {"a": 0.5, "default": 0.25}


def test_set_in_a_batch_of_states():
    # The states of a sweep: one number for all, or one for each.
    state = jax.vmap(lambda lr: jo.sgd(lr=lr).init(jnp.ones(2)))(jnp.asarray([0.5, 0.25, 0.125]))
    assert jo.set_hyperparams(state, lr=1.0).hyperparams["lr"].tolist() == [1.0, 1.0, 1.0]
    each = jo.set_hyperparams(state, lr=jnp.asarray([1.0, 2.0, 3.0]))
    assert each.hyperparams["lr"].tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match=r"lr.*\(2,\)"):
        jo.set_hyperparams(state, lr=jnp.ones(2))


# --- Nesting ------------------------------------------------------------------------------------------

PARAMS = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
LABELS = {"kernel": "a", "bias": "b"}
NESTINGS: dict[str, Callable[[Any], Any]] = {
    "chain": lambda tx: optax.chain(optax.clip_by_global_norm(1e6), tx),
    "chain in chain": lambda tx: optax.chain(optax.identity(), optax.chain(tx, optax.identity())),
    "named_chain": lambda tx: optax.named_chain(("clip", optax.clip(1e6)), ("step", tx)),
    "masked": lambda tx: optax.masked(tx, {"kernel": True, "bias": True}),
    "partition": lambda tx: optax.partition({"a": tx, "b": optax.set_to_zero()}, LABELS),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 1),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "deep": lambda tx: optax.chain(
        optax.apply_if_finite(optax.masked(optax.chain(tx), {"kernel": True, "bias": False}), 3)
    ),
}


@pytest.mark.parametrize("nesting", NESTINGS)
def test_read_and_set_in_any_nesting(nesting):
    def kernel_step(lr: float, after: dict[str, Any]) -> Any:
        tx = NESTINGS[nesting](jo.sgd(lr=lr, momentum=jnp.asarray(0.0)))
        state = jo.set_hyperparams(tx.init(PARAMS), **after)
        with jax.numpy_dtype_promotion("standard"):  # MultiSteps divides by an int32
            updates, state = tx.update(PARAMS, state, PARAMS)
        return updates["kernel"], jo.read_hyperparams(state)

    update, read = kernel_step(0.5, {"lr": 0.125, "momentum": 0.25})
    assert_close(update, kernel_step(0.125, {})[0])
    assert float(update[0, 0]) == -0.125
    assert {name: float(value) for name, value in read.items()} == {"lr": 0.125, "momentum": 0.25}


def test_several_optimizers_are_told_apart_by_place():
    tx = optax.partition({"a": jo.sgd(lr=0.5), "b": jo.adam(lr=0.25)}, LABELS)
    state = tx.init(PARAMS)
    read = jo.read_hyperparams(state)["lr"]
    assert sorted(map(float, read.values())) == [0.25, 0.5]
    place_of_a = next(place for place, lr in read.items() if float(lr) == 0.5)

    both = jo.read_hyperparams(jo.set_hyperparams(state, lr=0.125))["lr"]
    assert [float(lr) for lr in both.values()] == [0.125, 0.125]
    one = jo.read_hyperparams(jo.set_hyperparams(state, lr={place_of_a: 0.125}))["lr"]
    assert {p: float(lr) for p, lr in one.items()} == {p: 0.125 if p == place_of_a else 0.25 for p in read}


def test_what_only_one_of_several_has():
    tx = optax.chain(jo.sgd(lr=0.5, momentum=jnp.asarray(0.5)), jo.adam(lr=0.25))
    state = jo.set_hyperparams(tx.init(PARAMS), momentum=0.75)
    assert float(jo.read_hyperparams(state)["momentum"]) == 0.75


@pytest.mark.usefixtures("optax_promotes")
def test_schedules_of_optax():
    # Stateless, and wrapped into Optax's own stateful schedule.
    decay = optax.schedules.warmup_cosine_decay_schedule(0.0, 0.5, 2, 4)
    plain = run(jo.sgd(lr=decay), "sgd")
    stateful = run(jo.sgd(lr=optax.schedules.WrappedSchedule(decay)), "sgd")
    assert_close(stateful.params, plain.params)
    assert float(jo.read_hyperparams(plain.state)["lr"]) == float(decay(2))


def test_inject_hyperparams_of_optax_too():
    state = optax.inject_hyperparams(optax.sgd)(learning_rate=0.5).init(PARAMS)
    state = jo.set_hyperparams(state, learning_rate=0.25)
    assert float(jo.read_hyperparams(state)["learning_rate"]) == 0.25


# --- The shapes in which values are shown -------------------------------------------------------------


def test_read_before_the_first_update_is_what_it_will_use():
    state = jo.sgd(lr=lambda count: 0.5 ** (count + 1)).init(PARAMS)
    assert float(jo.read_hyperparams(state)["lr"]) == 0.5


def test_read_after_an_update_is_what_it_used():
    tx = jo.sgd(lr=lambda count: 0.5 ** (count + 1))
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert float(jo.read_hyperparams(state)["lr"]) == 0.5
    updates, state = tx.update(PARAMS, state, PARAMS)
    assert float(jo.read_hyperparams(state)["lr"]) == 0.25
    assert float(updates["bias"][0]) == -0.25


def test_numbers_other_than_the_rate_are_not_in_the_state():
    assert list(jo.read_hyperparams(jo.adam().init(PARAMS))) == ["lr"]


def test_tuple_shows_none_for_what_is_fixed():
    betas = jo.read_hyperparams(jo.adam(betas=(jnp.asarray(0.5), 0.999)).init(PARAMS))["betas"]
    assert float(betas[0]) == 0.5
    assert betas[1] is None


def test_by_path_shows_patterns():
    tx = jo.sgd(lr=jo.by_path({"bias$": 0.25}, default=0.5))
    state = jo.set_hyperparams(tx.init(PARAMS), lr={"bias$": 0.125})
    assert {k: float(v) for k, v in jo.read_hyperparams(state)["lr"].items()} == {
        "bias$": 0.125,
        "default": 0.5,
    }
    both = jo.read_hyperparams(jo.set_hyperparams(state, lr=1.0))["lr"]
    assert {k: float(v) for k, v in both.items()} == {"bias$": 1.0, "default": 1.0}


def test_none_leaves_alone():
    state = jo.sgd(lr=0.5).init(PARAMS)
    assert float(jo.read_hyperparams(jo.set_hyperparams(state, lr=None))["lr"]) == 0.5


def test_float64_parameters_have_float64_hyperparameters(x64):
    del x64
    state = make("adam").init({"w": jnp.ones(2, jnp.float64)})
    state = jo.set_hyperparams(state, lr=0.1)
    assert state.hyperparams["lr"].dtype == jnp.float64
    assert float(jo.read_hyperparams(state)["lr"]) == 0.1


def test_set_between_steps_equals_the_schedule():
    scheduled = run(jo.adamw(lr=lambda count: 0.5**count), "adamw")
    by_hand = run(
        jo.adamw(lr=1.0),
        "adamw",
        before={t: lambda s, t=t: jo.set_hyperparams(s, lr=0.5**t) for t in range(3)},
    )
    assert_close(by_hand.params, scheduled.params)
