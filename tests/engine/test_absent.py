"""Leaves that are not there: absent parameters, and parameters without a gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxopt_core as jo
from tests.engine.cases import REPRESENTATIVE, assert_equal, gradients, make, parameters

every = pytest.mark.parametrize("optimizer", REPRESENTATIVE)


def step(tx: Any, params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
    updates, state = tx.update(grads, state, params)
    return jo.apply_updates(params, updates), state


def slots_of(state: Any, name: str) -> dict[str, Any]:
    return {slot: tree[name] for slot, tree in state.slots.items()}


@every
@pytest.mark.parametrize("absent", [None, optax.MaskedNode()], ids=["None", "MaskedNode"])
def test_absent_parameters(optimizer, absent):
    tx = make(optimizer)
    leaf, grad = parameters(optimizer)["layer"]["kernel"], gradients(optimizer, 0)["layer"]["kernel"]
    params = {"a": absent, "b": leaf}
    state = tx.init(params)
    after, state = step(tx, params, state, {"a": absent, "b": grad})
    alone, alone_state = step(tx, {"b": leaf}, tx.init({"b": leaf}), {"b": grad})
    assert after["a"] is absent
    assert_equal(after["b"], alone["b"])
    assert all(tree["a"] is absent for tree in state.slots.values())
    assert_equal(slots_of(state, "b"), slots_of(alone_state, "b"))
    assert "step" not in state.slots


@every
@pytest.mark.parametrize("absent", [None, optax.MaskedNode()], ids=["None", "MaskedNode"])
def test_absent_gradients_skip_the_parameter_whole(optimizer, absent):
    tx = make(optimizer)
    leaves = parameters(optimizer)["layer"]
    params = {"a": leaves["kernel"], "b": leaves["kernel"] + 1}

    def grads(t: int, missing: str = "") -> Any:
        grad = gradients(optimizer, t)["layer"]["kernel"]
        return {name: absent if name == missing else grad for name in params}

    full, state = step(tx, params, tx.init(params), grads(0))
    assert "step" not in state.slots
    after, skipped = step(tx, full, state, grads(1, "a"))
    # No decay, no step, no slot of it moves; those of the other do.
    assert_equal(after["a"], full["a"])
    before = slots_of(state, "a")
    assert_equal({k: v for k, v in slots_of(skipped, "a").items() if k != "step"}, before)
    assert jax.tree.map(int, skipped.slots["step"]) == {"a": 1, "b": 2}
    assert int(skipped.count) == 2
    # From then on each goes on from its own step: as two optimizers would.
    last, state = step(tx, after, skipped, grads(2))
    assert jax.tree.map(int, state.slots["step"]) == {"a": 2, "b": 3}
    for name, times in {"a": [0, 2], "b": [0, 1, 2]}.items():
        own, own_state = {name: params[name]}, tx.init({name: params[name]})
        for t in times:
            own, own_state = step(tx, own, own_state, {name: grads(t)[name]})
        assert_equal(last[name], own[name])


def test_all_gradients_absent():
    tx = make("adamw")
    params = {"a": jnp.ones(2)}
    after, state = step(tx, params, tx.init(params), {"a": None})
    assert_equal(after, params)
    assert int(state.count) == 1
    assert int(state.slots["step"]["a"]) == 0


def test_absent_gradients_still_advance_the_schedule():
    tx = jo.sgd(lr=lambda count: jnp.where(count < 1, 1.0, 0.5))
    params = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    after, state = step(tx, params, tx.init(params), {"a": None, "b": jnp.ones(2)})
    after, state = step(tx, after, state, {"a": jnp.ones(2), "b": None})
    assert after["a"].tolist() == [-0.5, -0.5]
    assert after["b"].tolist() == [-1.0, -1.0]


def test_gradient_of_an_absent_parameter_is_not_passed_on():
    # None in the parameters: there is nothing to update.
    tx = make("sgd")
    params = {"a": None, "b": jnp.ones(2)}
    updates, _ = tx.update({"a": jnp.ones(2), "b": jnp.ones(2)}, tx.init(params), params)
    assert updates["a"] is None


@every
def test_empty_tree(optimizer):
    for params in ({}, [], (), {"a": None}, {"a": {}}):
        tx = make(optimizer)
        updates, state = tx.update(params, tx.init(params), params)
        assert updates == params
        assert int(state.count) == 1
        assert jo.apply_updates(params, updates) == params
        assert float(jo.read_hyperparams(state)["lr"]) == 0.125
