"""Optimizers under JAX's transformations: jit, vmap, scan, grad, donation, shape evaluation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import jaxopt_core as jo
from tests.engine.cases import (
    REPRESENTATIVE,
    assert_close,
    assert_equal,
    gradients,
    kernel,
    make,
    parameters,
    usual_arguments,
)

every = pytest.mark.parametrize("optimizer", REPRESENTATIVE)
STEPS = 3


def step_of(tx: Any) -> Any:
    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params)
        return jo.apply_updates(params, updates), state

    return step


def loop(tx: Any, optimizer: str) -> tuple[list[Any], Any]:
    params = kernel(parameters(optimizer))
    state, history = tx.init(params), []
    for t in range(STEPS):
        params, state = step_of(tx)(params, state, kernel(gradients(optimizer, t)))
        history.append(params)
    return history, state


# --- jit and scan -------------------------------------------------------------------------------------


@every
def test_scan_over_steps_equals_the_loop(optimizer):
    # jit is in it: scan compiles the step.
    tx = make(optimizer)
    step = step_of(tx)
    grads = [kernel(gradients(optimizer, t)) for t in range(STEPS)]

    def body(carry: Any, grads: Any) -> Any:
        params, state = step(*carry, grads)
        return (params, state), params

    @jax.jit
    def scanned(params: Any, grads: Any) -> Any:
        return jax.lax.scan(body, (params, tx.init(params)), grads)

    with jax.checking_leaks():
        (_, state), history = scanned(
            kernel(parameters(optimizer)), jax.tree.map(lambda *g: jnp.stack(g), *grads)
        )
    expected, last = loop(tx, optimizer)
    assert_close([jax.tree.map(lambda p: p[t], history) for t in range(STEPS)], expected)  # noqa: B023
    assert_close(state, last)


@every
def test_the_state_keeps_its_types(optimizer):
    # Whatever the numbers are: scan and while_loop ask for it, and a second compilation follows otherwise.
    arrays = jax.tree.map(jnp.float32, usual_arguments(optimizer))
    for tx in (make(optimizer), getattr(jo, optimizer)(**arrays)):
        params = kernel(parameters(optimizer))
        before = jax.eval_shape(tx.init, params)
        args = params, before, kernel(gradients(optimizer, 0))
        after_params, after = jax.eval_shape(step_of(tx), *args)
        assert after == before
        assert after_params == jax.eval_shape(lambda p: p, params)
        assert not any(leaf.weak_type for leaf in jax.tree.leaves((before, after)))
        real = tx.init(params)
        assert jax.eval_shape(lambda s: s, real) == before
        assert not any(leaf.weak_type for leaf in jax.tree.leaves(real))


def test_gradients_missing_in_a_scan():
    tx = jo.adamw()
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    state = jo.count_per_parameter(tx.init(params), params)

    def body(carry: Any, grad: Any) -> Any:
        return step_of(tx)(*carry, {"a": grad, "b": None}), None

    (after, state), _ = jax.lax.scan(body, (params, state), jnp.ones((4, 2)))
    assert_equal(after["b"], params["b"])
    assert jax.tree.map(int, state.slots["step"]) == {"a": 4, "b": 0}
    assert int(state.count) == 4


def test_adding_the_counts_inside_a_scan_is_refused_by_jax():
    tx = jo.adamw()
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}

    def body(carry: Any, grad: Any) -> Any:
        return step_of(tx)(*carry, {"a": grad, "b": None}), None

    with pytest.raises(TypeError, match=r"step"):
        jax.lax.scan(body, (params, tx.init(params)), jnp.ones((4, 2)))


# --- vmap ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_sweep_in_one_program(optimizer):
    # As a user writes it: jit of vmap of scan, over three numbers, with the data shared. That every
    # argument of every optimizer may be a tracer is in test_hyperparams.py.
    grads = [kernel(gradients(optimizer, t)) for t in range(STEPS)]
    stacked = jax.tree.map(lambda *g: jnp.stack(g), *grads)
    name = {"adamw": "betas", "muon": "momentum"}[optimizer]

    @jax.jit
    def sweep(lrs: jax.Array, decays: jax.Array, averages: jax.Array) -> Any:
        @jax.vmap
        def last(lr: jax.Array, decay: jax.Array, average: jax.Array) -> Any:
            value = (average, 0.875) if optimizer == "adamw" else average
            tx = getattr(jo, optimizer)(lr=lr, weight_decay=decay, **{name: value})
            params = kernel(parameters(optimizer))

            def body(carry: Any, grads: Any) -> Any:
                return step_of(tx)(*carry, grads), None

            return jax.lax.scan(body, (params, tx.init(params)), stacked)[0][0]

        return last(lrs, decays, averages)

    settings = [(0.5, 0.25, 0.5), (0.125, 0.0, 0.75), (0.25, 0.5, 0.25)]
    together = sweep(*jnp.asarray(settings, jnp.float32).T)
    for i, (lr, decay, average) in enumerate(settings):
        value = (average, 0.875) if optimizer == "adamw" else average
        tx = getattr(jo, optimizer)(lr=lr, weight_decay=decay, **{name: value})
        expected = loop(tx, optimizer)[0][-1]
        assert_close(jax.tree.map(lambda leaf: leaf[i], together), expected, atol=1e-5)  # noqa: B023


@pytest.mark.parametrize("optimizer", ["adafactor", "muon"])
def test_vmap_over_parameters(optimizer):
    # An ensemble: norms over a parameter must stay within one member.
    tx = make(optimizer)
    params, grads = kernel(parameters(optimizer)), kernel(gradients(optimizer, 0))
    ensemble = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params)

    def first_step(params: Any) -> Any:
        return step_of(tx)(params, tx.init(params), grads)[0]

    together = jax.vmap(first_step)(ensemble)
    for i in range(2):
        alone = first_step(jax.tree.map(lambda p: p[i], ensemble))  # noqa: B023
        assert_close(jax.tree.map(lambda p: p[i], together), alone)  # noqa: B023


# --- Donation -----------------------------------------------------------------------------------------


def donated(tx: Any, params: Any, grads: Any, state: Any = None) -> None:
    """Two donated steps; warnings about donations that are not usable are errors in this suite."""
    params = jax.tree.map(jnp.copy, params)
    state = tx.init(params) if state is None else state
    step = jax.jit(step_of(tx), donate_argnums=(0, 1))
    for _ in range(2):
        # A scheduled rate is computed anew: its old value is not read, and so not donated.
        old = jax.tree.leaves((params, state.slots))
        params, state = step(params, state, grads)
        assert all(leaf.is_deleted() for leaf in old)
    assert step._cache_size() == 1


@every
def test_donation(optimizer):
    donated(make(optimizer), parameters(optimizer)["layer"], gradients(optimizer, 0)["layer"])


def test_donation_with_a_count_for_every_parameter():
    params = parameters("adamw")
    tx = jo.adamw()
    donated(tx, params, params, jo.count_per_parameter(tx.init(params), params))


def test_donation_leaves_the_users_array_alone():
    lr = jnp.asarray(0.5, jnp.float32)
    tx = jo.sgd(lr=jo.by_path({"kernel$": lr}, default=lr), momentum=lr)
    for _ in range(2):
        donated(tx, parameters("sgd"), gradients("sgd", 0))
    assert float(lr) == 0.5


def test_donation_with_a_stateful_schedule():
    class Rate:
        def init(self) -> Any:
            return jnp.asarray(0.5, jnp.float32)

        def update(self, state: Any, **extra: Any) -> Any:
            del extra
            return state / 2

        def __call__(self, state: Any, **extra: Any) -> Any:
            del extra
            return state

    donated(jo.sgd(lr=Rate()), parameters("sgd"), gradients("sgd", 0))


# --- No accidents in float arithmetic -----------------------------------------------------------------


@every
def test_no_nan_on_the_way(optimizer):
    # Not even in a branch that is not taken: jax_debug_nans would stop there, and a gradient would be NaN.
    tx = getattr(jo, optimizer)()
    checked = checkify.checkify(jax.jit(step_of(tx)), errors=checkify.nan_checks)
    grads = kernel(gradients(optimizer, 0))
    zero = jax.tree.map(lambda g: g * 0 if jnp.issubdtype(g.dtype, jnp.floating) else g, grads)
    for sequence in ([grads, grads, zero], [zero, zero, grads]):
        params = kernel(parameters(optimizer))
        state = tx.init(params)
        for grad in sequence:
            error, (params, state) = checked(params, state, grad)
            error.throw()
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, state)))
