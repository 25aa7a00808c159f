"""One compilation serves all steps, whatever is set and wherever the parameters are."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_core as jo
from tests.engine.cases import NUMERIC, REPRESENTATIVE, gradients, parameters, usual_arguments


def jitted(tx: Any) -> Any:
    @jax.jit
    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params)
        return jo.apply_updates(params, updates), state

    return step


def anywhere(params: Any) -> Any:
    return params


def on_device_3(params: Any) -> Any:
    return jax.device_put(params, jax.devices()[3])


def over_all_devices(params: Any) -> Any:
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))
    return jax.device_put(params, NamedSharding(mesh, P("data")))


@pytest.mark.parametrize("optimizer", REPRESENTATIVE)
def test_setting_never_compiles_again(optimizer):
    arrays = jax.tree.map(jnp.float32, usual_arguments(optimizer))
    tx = getattr(jo, optimizer)(**arrays)
    step = jitted(tx)
    params = parameters(optimizer)
    params, state = step(params, tx.init(params), gradients(optimizer, 0))
    for t, argument in enumerate(a for a in NUMERIC if a.optimizer == optimizer):
        state = jo.set_hyperparams(state, **argument.setting(argument.other))
        params, state = step(params, state, gradients(optimizer, t))
        assert argument.of(jo.read_hyperparams(state)) == argument.other
    assert step._cache_size() == 1


@pytest.mark.parametrize("init", ["eager", "jitted"])
@pytest.mark.parametrize("place", [anywhere, on_device_3, over_all_devices])
@pytest.mark.parametrize("optimizer", ["adamw", "asgd"])
def test_one_compilation_wherever_the_parameters_are(place, init, optimizer):
    tx = getattr(jo, optimizer)(lr=jo.by_path({"kernel": 0.125}, default=0.5))
    params = place({"kernel": jnp.ones((8, 2)), "bias": jnp.ones(8)})
    step = jitted(tx)
    state = (jax.jit(tx.init) if init == "jitted" else tx.init)(params)
    for lr in (None, 0.25, {"kernel": 0.5}, jnp.float32(1)):
        state = jo.set_hyperparams(state, lr=lr)
        params, state = step(params, state, params)
    assert step._cache_size() == 1
