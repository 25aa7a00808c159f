"""The direction of the step: ``maximize`` negates the gradient and nothing else; decay always shrinks."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_core as jo
from tests.engine.cases import NAMES, assert_equal, gradients, make, parameters

BOTH = [name for name in NAMES if "maximize" in inspect.signature(getattr(jo, name)).parameters]
DECAYING = [name for name in NAMES if "weight_decay" in inspect.signature(getattr(jo, name)).parameters]


def test_all_but_muon_can_maximize():
    assert set(NAMES) - set(BOTH) == {"muon"}


@pytest.mark.parametrize("optimizer", BOTH)
def test_maximizing_is_minimizing_the_negative(optimizer):
    up, down = make(optimizer, maximize=True), make(optimizer)
    above = below = parameters(optimizer)
    states = up.init(above), down.init(below)
    for t in range(3):
        grads = gradients(optimizer, t)
        negative = jax.tree.map(lambda g: -g if jnp.issubdtype(g.dtype, jnp.floating) else g, grads)
        updates, up_state = up.update(negative, states[0], above)
        above = jo.apply_updates(above, updates)
        updates, down_state = down.update(grads, states[1], below)
        below = jo.apply_updates(below, updates)
        states = up_state, down_state
    assert_equal(above, below)
    assert_equal(*states)


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("optimizer", DECAYING)
def test_decay_shrinks(optimizer, maximize):
    direction = {"maximize": maximize} if optimizer in BOTH else {}
    tx = make(optimizer, weight_decay=0.125, **direction)
    params = {"w": jnp.asarray([[1.0, -2.0], [0.5, -0.25]])}
    updates, _ = tx.update({"w": jnp.zeros((2, 2))}, tx.init(params), params)
    assert (np.sign(updates["w"]) == -np.sign(params["w"])).all()


@pytest.mark.parametrize("optimizer", sorted(set(DECAYING) - {"adafactor", "muon", "adamw"}))
def test_no_decay_leaves_alone_what_has_no_gradient(optimizer):
    extra = {"lambd": 0.0} if optimizer == "asgd" else {}
    tx = make(optimizer, weight_decay=0, **extra)
    params = {"w": jnp.ones((2, 2))}
    updates, _ = tx.update({"w": jnp.zeros((2, 2))}, tx.init(params), params)
    assert not np.any(updates["w"])
