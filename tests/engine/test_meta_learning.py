"""Derivatives through several updates, with respect to what the updates are made of."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_core as jo
from tests.engine.cases import NAMES, NUMERIC, REPRESENTATIVE, make, usual_arguments

STEPS = 2

# Muon's iterations are rounded to bfloat16: differences of such a function say nothing of its derivative.
SMOOTH = [name for name in NAMES if name != "muon"]
# PyTorch keeps some scalars of these in float32, which is a staircase to small differences.
STAIRCASE = {"asgd", "nadam"}


def normal(dtype: Any) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)).astype(dtype))


def outer_loss(tx: Any, dtype: Any, *, sparse: bool = False, unused: bool = False) -> jax.Array:
    """The loss after the steps on a quadratic; the gradient of ``unused`` is exactly zero."""
    target = normal(dtype)
    params = {"used": target[::-1]} | ({"unused": jnp.ones((3, 2), dtype)} if unused else {})
    scale = jnp.linspace(0.5, 2.0, 6, dtype=dtype).reshape(3, 2)

    def loss(params: Any) -> jax.Array:
        return jnp.sum(scale * jnp.square(params["used"] - target))

    state = tx.init(params)
    if tx.rule.name == "RAdam":  # whose first five steps do not look at the variance
        state = state._replace(count=jnp.asarray(8, jnp.int32))
    for _ in range(STEPS):
        grads = jax.grad(loss)(params)
        if sparse:
            grads = {k: jo.sparse_rows(jnp.arange(3), g, 3) for k, g in grads.items()}
        updates, state = tx.update(grads, state, params)
        params = jo.apply_updates(params, updates)
    return loss(params)


@pytest.mark.parametrize(
    "optimizer", [*SMOOTH[:4], *(pytest.param(name, marks=pytest.mark.slow) for name in SMOOTH[4:])]
)
def test_derivative_with_respect_to_every_hyperparameter(optimizer, x64):
    del x64
    leaves, treedef = jax.tree.flatten(usual_arguments(optimizer))
    values = jnp.asarray(leaves, jnp.float64)

    @jax.jit
    @jax.value_and_grad
    def outer(values: jax.Array) -> jax.Array:
        arguments = jax.tree.unflatten(treedef, list(values))
        tx = getattr(jo, optimizer)(**arguments)
        return outer_loss(tx, jnp.float64, sparse=optimizer == "sparse_adam")

    _, gradient = outer(values)
    h, rtol = (2.0**-11, 2e-3) if optimizer in STAIRCASE else (2.0**-20, 1e-5)
    for i, name in enumerate(str(a) for a in NUMERIC if a.optimizer == optimizer):
        shift = h * jnp.zeros_like(values).at[i].set(1)
        difference = (outer(values + shift)[0] - outer(values - shift)[0]) / (2 * h)
        np.testing.assert_allclose(gradient[i], difference, rtol=rtol, atol=1e-3 * rtol, err_msg=name)


@pytest.mark.parametrize("optimizer", REPRESENTATIVE)
def test_learning_rate_beside_a_gradient_of_exactly_zero(optimizer):
    def outer(lr: jax.Array) -> jax.Array:
        tx = getattr(jo, optimizer)(lr=lr)
        return outer_loss(tx, jnp.float32, sparse=optimizer == "sparse_adam", unused=True)

    slope = jax.jit(jax.grad(outer))(jnp.float32(0.01))
    assert np.isfinite(slope)
    assert slope != 0


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_flags_beside_a_gradient_of_exactly_zero(optimizer):
    flag = {"rmsprop": "centered", "adam": "amsgrad"}[optimizer]

    def outer(lr: jax.Array) -> jax.Array:
        return outer_loss(getattr(jo, optimizer)(lr=lr, **{flag: True}), jnp.float32, unused=True)

    assert np.isfinite(jax.jit(jax.grad(outer))(jnp.float32(0.01)))


def test_learning_the_rate_lowers_the_outer_loss(x64):
    del x64
    outer = jax.jit(jax.value_and_grad(lambda lr: outer_loss(make("adamw", lr=lr), jnp.float64)))
    lr = jnp.asarray(0.01)
    first, _ = outer(lr)
    for _ in range(20):
        loss, slope = outer(lr)
        lr = lr - 1e-3 * slope
    assert loss < 0.7 * first


def test_derivative_with_respect_to_the_start_and_the_state(x64):
    # As MAML has it: through the parameters, and through the slots of a warm start.
    del x64
    tx = make("adam")
    start = normal(jnp.float64)

    def outer(start: jax.Array, average: jax.Array) -> jax.Array:
        state = tx.init(start)
        state = state._replace(slots=state.slots | {"exp_avg": average})
        updates, _ = tx.update(jnp.sin(start), state, start)
        return jnp.sum(jnp.square(start + updates))

    slopes = jax.grad(outer, argnums=(0, 1))(start, start)
    for i, slope in enumerate(slopes):
        h = 1e-6 * jnp.zeros_like(start).at[1, 1].set(1)
        up, down = ([start, start] for _ in range(2))
        up[i], down[i] = start + h, start - h
        np.testing.assert_allclose(slope[1, 1], (outer(*up) - outer(*down)) / 2e-6, rtol=1e-6)
