"""What cannot be a hyperparameter, or cannot be set, is refused in words that say what to do."""

from __future__ import annotations

import re

import jax.numpy as jnp
import pytest

import jaxopt_core as jo

PARAMS = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
PAIR = (0.5, 0.75)


def state_of(**arguments):
    return jo.adam(**arguments).init(PARAMS)


# --- set_hyperparams ----------------------------------------------------------------------------------


def test_set_a_scheduled_one():
    message = r"lr follows a schedule, which would overwrite 0\.5 .* number or an array"
    with pytest.raises(ValueError, match=message):
        jo.set_hyperparams(state_of(lr=lambda count: 0.1), lr=0.5)


def test_set_a_scheduled_element():
    state = state_of(betas=(lambda count: 0.9, jnp.asarray(0.999)))
    with pytest.raises(ValueError, match=r"betas\[0\] follows a schedule"):
        jo.set_hyperparams(state, betas=(0.5, 0.999))


def test_set_an_unknown_name():
    message = r"'learning_rate'; what can change is: eps, lr"
    with pytest.raises(ValueError, match=message):
        jo.set_hyperparams(state_of(eps=jnp.asarray(1e-8)), learning_rate=0.5)


def test_set_a_compiled_number():
    with pytest.raises(ValueError, match=r"'weight_decay'.* give weight_decay=jnp\.asarray"):
        jo.set_hyperparams(state_of(), weight_decay=0.5)


def test_set_in_a_state_without_optimizer():
    with pytest.raises(ValueError, match=r"what can change is: nothing"):
        jo.set_hyperparams((), lr=0.5)


@pytest.mark.parametrize("betas", [(0.5,), (0.5, 0.5, 0.5), 0.5, "ab"], ids=str)
def test_set_a_tuple_of_wrong_length(betas):
    state = state_of(betas=(jnp.asarray(0.9), jnp.asarray(0.999)))
    with pytest.raises((ValueError, TypeError), match=rf"betas.*{re.escape(repr(betas))}"):
        jo.set_hyperparams(state, betas=betas)


def test_set_a_fixed_element():
    state = state_of(betas=(jnp.asarray(0.9), 0.999))
    with pytest.raises(ValueError, match=r"betas\[1\] is a fixed number.* leave it None"):
        jo.set_hyperparams(state, betas=(0.5, 0.5))


def test_set_an_unknown_pattern():
    state = state_of(lr=jo.by_path({"bias": 0.5}, default=0.25))
    with pytest.raises(ValueError, match=r"lr has no entry 'bais'; it has: bias, default"):
        jo.set_hyperparams(state, lr={"bais": 0.5})


@pytest.mark.parametrize(
    "value",
    ["0.1", 1j, lambda count: 0.1, {"kernel": 0.1}, (0.1, 0.2)],
    ids=["string", "complex", "function", "dict", "tuple"],
)
def test_set_a_wrong_type(value):
    with pytest.raises((TypeError, ValueError), match=r"lr"):
        jo.set_hyperparams(state_of(), lr=value)


@pytest.mark.parametrize("value", [jnp.ones(3), jnp.ones(1)], ids=["three", "one"])
def test_set_an_array_that_is_no_scalar(value):
    with pytest.raises(ValueError, match=rf"lr.*scalar.*\({value.size},\)"):
        jo.set_hyperparams(state_of(), lr=value)


# --- Construction -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    ["0.1", None, 1j, {"kernel": 0.1}, (0.1, 0.2), object()],
    ids=["string", "None", "complex", "dict", "tuple", "object"],
)
@pytest.mark.parametrize("name", ["lr", "eps", "weight_decay"])
def test_wrong_type(name, value):
    with pytest.raises((TypeError, ValueError), match=name):
        jo.adam(**{name: value})


@pytest.mark.parametrize("shape", [(1,), (2,), (2, 2)], ids=str)
def test_array_that_is_no_scalar(shape):
    with pytest.raises(
        ValueError, match=rf"lr must be a scalar; got an array of shape {re.escape(str(shape))}"
    ):
        jo.adam(lr=jnp.ones(shape))


def test_schedule_that_returns_no_scalar():
    with pytest.raises(ValueError, match=r"lr.*scalar.*\(2,\)"):
        state_of(lr=lambda count: jnp.ones(2))


@pytest.mark.parametrize(
    "betas",
    [0.9, (0.9,), (0.9, 0.99, 0.999), None, jnp.asarray([0.9, 0.99]), lambda count: PAIR],
    ids=["number", "one", "three", "None", "array", "schedule"],
)
def test_tuple_of_wrong_length(betas):
    with pytest.raises((ValueError, TypeError), match=r"betas"):
        jo.adam(betas=betas)


def test_tuple_of_wrong_length_by_path():
    with pytest.raises((ValueError, TypeError), match=r"betas"):
        jo.adam(betas=jo.by_path({"bias": (0.9,)}, default=(0.9, 0.999)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": jo.by_path({"bias": -0.1}, default=0.1)}, "Invalid learning rate: -0.1"),
        ({"lr": jo.by_path({"bias": 0.1}, default=-0.5)}, "Invalid learning rate: -0.5"),
        ({"betas": jo.by_path({"a": (0.9, 1.5)}, default=PAIR)}, "Invalid beta parameter at index 1: 1.5"),
        ({"betas": (jo.by_path({"a": 1.0}, default=0.9), 0.5)}, "Invalid beta parameter at index 0: 1.0"),
        ({"lr": jo.by_path({"a": jo.by_path({"b": -2.0}, default=1.0)}, default=1.0)}, "rate: -2.0"),
    ],
    ids=["lr", "default", "betas by_path", "by_path in betas", "nested"],
)
def test_pytorchs_checks_inside_by_path(arguments, message):
    with pytest.raises(ValueError, match=message):
        jo.adam(**arguments)


# --- by_path ------------------------------------------------------------------------------------------


def test_pattern_that_matches_nothing():
    tx = jo.adam(lr=jo.by_path({"bais": 0.1}, default=0.1))
    with pytest.raises(ValueError, match=r"'bais' of lr matches no parameter. The paths are: bias, kernel"):
        tx.init(PARAMS)


@pytest.mark.parametrize(
    "betas",
    [
        jo.by_path({"bais": PAIR}, default=PAIR),
        (jo.by_path({"bais": 0.5}, default=0.5), 0.75),
        jo.by_path({"bias": jo.by_path({"bais": PAIR}, default=PAIR)}, default=PAIR),
    ],
    ids=["whole", "element", "nested"],
)
def test_pattern_that_matches_nothing_in_a_tuple(betas):
    with pytest.raises(ValueError, match=r"'bais' of betas matches no parameter"):
        jo.adam(betas=betas).init(PARAMS)


def test_pattern_that_matches_only_what_is_absent():
    # The frozen parameter is in the tree of a masked run: its pattern is no typo.
    tx = jo.adam(lr=jo.by_path({"bias": 0.1}, default=0.2))
    tx.init({"kernel": jnp.ones(2), "bias": None})


def test_pattern_that_is_no_regular_expression():
    with pytest.raises(ValueError, match=r"'\(bias' is not a regular expression"):
        jo.by_path({"(bias": 0.1}, default=0.1)


def test_pattern_named_default():
    with pytest.raises(ValueError, match=r"default="):
        jo.by_path({"default": 0.1}, default=0.1)


@pytest.mark.parametrize("patterns", [{1: 0.1}, [("bias", 0.1)], "bias", None], ids=repr)
def test_patterns_of_wrong_type(patterns):
    with pytest.raises(TypeError, match=r"by_path"):
        jo.by_path(patterns, default=0.1)


# --- What is compiled into the program ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [("muon", "ns_steps"), ("adam", "amsgrad"), ("rmsprop", "centered"), ("sgd", "maximize")],
)
def test_structure_cannot_be_an_array(optimizer, name):
    with pytest.raises(TypeError, match=name):
        getattr(jo, optimizer)(**{name: jnp.asarray(1)})
