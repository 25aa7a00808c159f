"""The optimizers inside Flax's training states."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import jaxopt_core as jo
from tests.engine.cases import assert_close, assert_equal, make

OPTIMIZERS = ["adamw", "adafactor"]
INPUTS = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)


class Net(nnx.Module):
    def __init__(self):
        self.hidden = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
        self.norm = nnx.LayerNorm(4, rngs=nnx.Rngs(0))
        self.out = nnx.Linear(4, 2, rngs=nnx.Rngs(1))

    def __call__(self, x):
        return self.out(jax.nn.relu(self.norm(self.hidden(x))))


def loss(model):
    return jnp.mean(jnp.square(model(INPUTS)))


def values(model):
    return nnx.as_pure(nnx.state(model, nnx.Param))


def trained(tx, steps=3):
    """What nnx.Optimizer makes of the parameters, and what the transformation alone makes of them."""
    model = Net()
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    params = values(model)
    state = tx.init(params)
    for _ in range(steps):
        grads = nnx.grad(loss)(model)
        updates, state = tx.update(nnx.as_pure(grads), state, params)
        params = jo.apply_updates(params, updates)
        optimizer.update(model, grads)
    return model, optimizer, params, state


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nnx_optimizer(name):
    model, optimizer, params, state = trained(make(name))
    assert_close(values(model), params)
    assert int(optimizer.opt_state.count[...]) == 3
    assert_close(nnx.as_pure(optimizer.opt_state.slots), state.slots)


def test_nnx_optimizer_in_a_chain():
    model, _, params, _ = trained(optax.chain(optax.clip_by_global_norm(0.5), make("adamw")))
    assert_close(values(model), params)


def test_nnx_optimizer_by_path():
    # The paths are those of the parameters, whether or not they are wrapped in nnx.Param.
    tx = jo.sgd(lr=jo.by_path({r"(bias|scale)$": 0.0, r"^hidden/kernel$": 0.25}, default=0.5))
    model, _, params, _ = trained(tx, steps=1)
    start = values(Net())
    assert_close(values(model), params)
    assert_equal(params["hidden"]["bias"], start["hidden"]["bias"])
    assert_equal(params["norm"]["scale"], start["norm"]["scale"])


def test_nnx_optimizer_with_muon_by_path():
    tx = optax.partition(
        {"matrix": make("muon", axes=jo.by_path({"kernel$": (1, 0)}, default=None)), "rest": make("adamw")},
        lambda params: jax.tree.map(lambda p: "matrix" if p.ndim == 2 else "rest", params),
    )
    model, _, params, _ = trained(tx)
    assert_close(values(model), params)


def test_nnx_optimizer_read_and_set():
    _, optimizer, _, _ = trained(jo.sgd(lr=0.5, momentum=jnp.asarray(0.5)))
    read = jo.read_hyperparams(optimizer.opt_state)
    assert isinstance(read["lr"], jax.Array)
    assert {name: float(value) for name, value in read.items()} == {"lr": 0.5, "momentum": 0.5}
    optimizer.opt_state = jo.set_hyperparams(optimizer.opt_state, lr=0.125, momentum=0.0)
    model = Net()
    before = values(model)
    grads = nnx.grad(loss)(model)
    optimizer.update(model, grads)
    expected = jax.tree.map(lambda p, g: p - 0.125 * g, before, nnx.as_pure(grads))
    assert_close(values(model), expected)
    assert float(jo.read_hyperparams(optimizer.opt_state)["lr"]) == 0.125


def test_nnx_jit_does_not_compile_again():
    traces = []
    model = Net()
    optimizer = nnx.Optimizer(model, jo.adamw(lr=0.5), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        traces.append(None)
        optimizer.update(model, nnx.grad(loss)(model))

    step(model, optimizer)
    optimizer.opt_state = jo.set_hyperparams(optimizer.opt_state, lr=0.0)
    before = values(model)
    before = jax.tree.map(jnp.copy, before)
    step(model, optimizer)
    assert len(traces) == 1
    assert_equal(values(model), before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_train_state(name):
    tx = make(name)
    _, _, expected, _ = trained(tx)
    graph, params = nnx.split(Net())
    state = TrainState.create(apply_fn=None, params=nnx.as_pure(params), tx=tx)

    @jax.jit
    def step(state):
        grads = jax.grad(lambda params: loss(nnx.merge(graph, params)))(state.params)
        return state.apply_gradients(grads=grads)

    for _ in range(3):
        state = step(state)
    assert_close(state.params, expected)
    compiled = step._cache_size()  # more than one: TrainState's own step count starts as a Python int
    state = state.replace(opt_state=jo.set_hyperparams(state.opt_state, lr=0.25))
    assert float(jo.read_hyperparams(state.opt_state)["lr"]) == 0.25
    step(state)
    assert step._cache_size() == compiled
