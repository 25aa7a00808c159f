"""L-BFGS, whose state is its own, keeps the engine's promises too."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_core as jo
from tests.engine.cases import assert_close, differ

SMALL = {"max_iter": 3, "history_size": 2}


def loss(params: Any) -> jax.Array:
    scale = jnp.linspace(0.5, 2.0, 8)
    return jnp.sum(scale * jnp.square(params["w"] - 1)) + jnp.square(params["b"] - params["w"][0]) ** 2


value_and_grad = jax.value_and_grad(loss)


def start() -> Any:
    return {"w": jnp.linspace(-1.0, 1.0, 8), "b": jnp.float32(0.5)}


def step_of(tx: Any) -> Any:
    def step(params: Any, state: Any) -> tuple[Any, Any]:
        value, grads = value_and_grad(params)
        updates, state = tx.update(grads, state, params, value=value, value_and_grad_fn=value_and_grad)
        return jo.apply_updates(params, updates), state

    return step


def trained(tx: Any, steps: int = 2, step: Any = None) -> tuple[Any, Any]:
    params = start()
    state = tx.init(params)
    step = step or jax.jit(step_of(tx))
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


@functools.cache
def plain(steps: int = 2) -> tuple[Any, Any]:
    return trained(jo.lbfgs(**SMALL), steps)


USUAL = {"lr": 0.5, "tolerance_grad": 2.0**-20, "tolerance_change": 2.0**-30}
OTHER = {"lr": 0.25, "tolerance_grad": 4.0, "tolerance_change": 2.0}


def test_arrays_and_setting_them():
    tx = jo.lbfgs(**{name: jnp.float32(value) for name, value in USUAL.items()}, **SMALL)
    step = jax.jit(step_of(tx))
    usual, _ = trained(tx, step=step)
    assert_close(usual, trained(jo.lbfgs(**USUAL, **SMALL))[0])
    for name, value in OTHER.items():
        params, state = step(start(), tx.init(start()))
        params, state = step(params, jo.set_hyperparams(state, **{name: value}))
        assert differ(params, usual), name
        assert float(jo.read_hyperparams(state)[name]) == value
    assert step._cache_size() == 1


def test_schedule():
    name = "lr"

    def schedule(count: jax.Array) -> jax.Array:
        return jnp.where(count < 1, USUAL[name], OTHER[name])

    scheduled, state = trained(jo.lbfgs(**USUAL | {name: schedule}, **SMALL))
    assert float(jo.read_hyperparams(state)[name]) == OTHER[name]
    tx = jo.lbfgs(**USUAL | {name: jnp.float32(USUAL[name])}, **SMALL)
    step = jax.jit(step_of(tx))
    params, state = step(start(), tx.init(start()))
    params, _ = step(params, jo.set_hyperparams(state, **{name: OTHER[name]}))
    assert_close(scheduled, params)


def test_scan_and_donation():
    tx = jo.lbfgs(**SMALL)
    expected, expected_state = plain()

    def body(carry: Any, _: None) -> Any:
        return step_of(tx)(*carry), None

    state = tx.init(start())
    params = start()
    run = jax.jit(lambda carry: jax.lax.scan(body, carry, length=2)[0], donate_argnums=0)
    with jax.checking_leaks():
        after, after_state = run((params, state))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((params, state)))
    assert_close(after, expected)
    assert jax.eval_shape(lambda s: s, after_state) == jax.eval_shape(tx.init, start())
    assert int(after_state.n_iter) == int(expected_state.n_iter)


def test_vmap_over_the_rate():
    def first(lr: Any) -> Any:
        return trained(jo.lbfgs(lr=lr, **SMALL), steps=1)[0]

    both = jax.jit(jax.vmap(first))(jnp.asarray([1.0, 0.25]))
    assert_close(jax.tree.map(lambda p: p[0], both), plain(1)[0])
    assert differ(jax.tree.map(lambda p: p[1], both), plain(1)[0])


@pytest.mark.slow
def test_sharded():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    tx = jo.lbfgs(**SMALL)
    places = {"w": NamedSharding(mesh, P("data")), "b": NamedSharding(mesh, P())}
    params = jax.device_put(start(), places)
    state = tx.init(params)
    step = jax.jit(step_of(tx))
    for _ in range(2):
        params, state = step(params, state)
    assert_close(jax.device_get(params), jax.device_get(plain()[0]))
    assert params["w"].sharding.is_equivalent_to(places["w"], 1)


def test_chain_and_masked():
    tx = jo.lbfgs(**SMALL)
    expected, _ = plain()
    assert_close(trained(optax.chain(tx, optax.identity()))[0], expected)
    after, state = trained(optax.chain(optax.identity(), jo.lbfgs(lr=0.5, **SMALL)))
    assert float(jo.read_hyperparams(jo.set_hyperparams(state, lr=0.25))["lr"]) == 0.25
    assert differ(after, expected)


def test_nnx_optimizer():
    class Net(nnx.Module):
        def __init__(self) -> None:
            self.w, self.b = nnx.Param(start()["w"]), nnx.Param(start()["b"])

    model = Net()
    graph, params = nnx.split(model)
    optimizer = nnx.Optimizer(model, jo.lbfgs(**SMALL), wrt=nnx.Param)

    def of(params: Any) -> jax.Array:
        merged = nnx.merge(graph, params)
        return loss({"w": merged.w[...], "b": merged.b[...]})

    f = jax.value_and_grad(of)
    value, grads = f(params)
    optimizer.update(model, grads, value=value, value_and_grad_fn=f)
    expected, _ = plain(1)
    assert_close({"w": model.w[...], "b": model.b[...]}, expected)


def test_absent_leaves_and_missing_gradients():
    tx = jo.lbfgs(**SMALL)
    params = start() | {"frozen": None}

    def f(params: Any) -> Any:
        value, grads = value_and_grad({"w": params["w"], "b": params["b"]})
        return value, grads | {"frozen": None}

    value, grads = f(params)
    updates, _ = tx.update(grads, tx.init(params), params, value=value, value_and_grad_fn=f)
    assert updates["frozen"] is None
    expected, _ = plain(1)
    assert_close(jo.apply_updates(params, updates), expected | {"frozen": None})


def test_by_path_is_refused_as_parameter_groups_are():
    with pytest.raises(ValueError, match=r"per-parameter options \(parameter groups\)"):
        jo.lbfgs(lr=jo.by_path({"w": 0.5}, default=1.0))


@pytest.mark.parametrize("missing", ["value", "value_and_grad_fn", "params"])
def test_what_is_not_given_is_named(missing):
    tx = jo.lbfgs()
    params = start()
    value, grads = value_and_grad(params)
    given = {"params": params, "value": value, "value_and_grad_fn": value_and_grad}
    del given[missing]
    with pytest.raises(ValueError, match=rf"LBFGS needs {missing}: call tx\.update"):
        tx.update(grads, tx.init(params), **given)


def test_state_of_other_parameters():
    tx = jo.lbfgs()
    params = start()
    value, grads = value_and_grad(params)
    with pytest.raises(ValueError, match=r"made for other parameters.*2 numbers.*have 9"):
        tx.update(grads, tx.init(jnp.ones(2)), params, value=value, value_and_grad_fn=value_and_grad)
