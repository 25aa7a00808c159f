"""Over eight devices: a slot lives where its parameter lives, and the numbers do not change."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxopt_core as jo
from tests.engine.cases import REPRESENTATIVE, assert_close, assert_equal, make

every = pytest.mark.parametrize("optimizer", REPRESENTATIVE)
SPECS = {
    "rows": ((16, 4), P("data")),
    "columns": ((4, 16), P(None, "data")),
    "both": ((8, 4), P("data", "model")),
    "vector": ((8,), P("model")),
}
STEPS = 2


@pytest.fixture(scope="module")
def mesh():
    return jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))


def names(optimizer: str) -> list[str]:
    matrices_only = optimizer in ("muon", "sparse_adam")
    return [name for name, (shape, _) in SPECS.items() if len(shape) == 2 or not matrices_only]


def params_of(optimizer: str) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    return {n: jnp.asarray(rng.normal(size=SPECS[n][0]), jnp.float32) for n in names(optimizer)}


def grads_of(optimizer: str, step: int) -> dict[str, Any]:
    rng = np.random.default_rng(step + 1)
    grads = {n: jnp.asarray(rng.normal(size=SPECS[n][0]), jnp.float32) for n in names(optimizer)}
    if optimizer != "sparse_adam":
        return grads
    return {n: jo.sparse_rows(jnp.asarray([3, 0, 3]), g[:3], g.shape[0]) for n, g in grads.items()}


def sharded(tree: Any, mesh: Any) -> Any:
    return {n: jax.device_put(leaf, NamedSharding(mesh, SPECS[n][1])) for n, leaf in tree.items()}


def assert_slots_follow(slots: Any, params: dict[str, jax.Array], mesh: Any) -> None:
    followed = 0
    for slot, tree in slots.items():
        for name, value in tree.items():
            if value is None or not value.shape:
                continue
            # An averaged axis of length 1 cannot be divided.
            spec = [*SPECS[name][1], *[None] * value.ndim][: value.ndim]
            spec = P(*[None if size == 1 else axis for axis, size in zip(spec, value.shape, strict=True)])
            expected = NamedSharding(mesh, spec)
            assert value.sharding.is_equivalent_to(expected, value.ndim), (
                f"{slot} of {name!r}: {value.sharding}, expected {expected.spec}"
            )
            followed += value.shape == params[name].shape
    assert followed or not slots


@every
@pytest.mark.parametrize("init", ["eager", "jitted"])
def test_slots_are_made_where_their_parameters_are(optimizer, init, mesh):
    tx = make(optimizer)
    params = sharded(params_of(optimizer), mesh)
    state = (jax.jit(tx.init) if init == "jitted" else tx.init)(params)
    # Under jit, XLA chooses for what is smaller than its parameter (parallel.optimizer_shardings decides it).
    averages = ("row_var", "col_var") if init == "jitted" else ()
    assert_slots_follow({k: v for k, v in state.slots.items() if k not in averages}, params, mesh)
    assert_equal(jax.device_get(state), jax.device_get(tx.init(params_of(optimizer))))


@every
def test_updates_equal_the_unsharded_ones(optimizer, mesh):
    tx = make(optimizer)

    @jax.jit
    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params)
        return jo.apply_updates(params, updates), state

    single, many = params_of(optimizer), sharded(params_of(optimizer), mesh)
    single_state, many_state = tx.init(single), tx.init(many)
    for t in range(STEPS):
        grads = grads_of(optimizer, t)
        single, single_state = step(single, single_state, grads)
        spread = grads if optimizer == "sparse_adam" else sharded(grads, mesh)
        many, many_state = step(many, many_state, spread)
        assert_close(jax.device_get(many), jax.device_get(single), rtol=1e-6, atol=1e-6)
        assert_close(jax.device_get(many_state), jax.device_get(single_state), rtol=2e-6, atol=1e-6)
    for name, value in many.items():
        assert value.sharding.is_equivalent_to(NamedSharding(mesh, SPECS[name][1]), value.ndim), name
    assert_slots_follow(many_state.slots, many, mesh)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_explicit_axes(optimizer):
    # Sharding in types: the shardings are part of the program, inside jit too.
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    tx = make(optimizer)
    with jax.set_mesh(mesh):
        params = sharded(params_of(optimizer), mesh)
        grads = sharded(grads_of(optimizer, 0), mesh)
        state = jax.jit(tx.init)(params)
        updates, state = jax.jit(tx.update)(grads, state, params)
        for name, value in updates.items():
            assert value.sharding.is_equivalent_to(params[name].sharding, value.ndim), name
        assert_slots_follow(state.slots, params, mesh)
    single = params_of(optimizer)
    expected, _ = tx.update(grads_of(optimizer, 0), tx.init(single), single)
    assert_close(jax.device_get(updates), jax.device_get(expected))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "asgd"])
def test_inside_shard_map(optimizer, mesh):
    # Every device updates its own part; an elementwise rule needs nothing of the others.
    tx = make(optimizer)
    params, grads = jnp.arange(32.0).reshape(8, 4), jnp.ones((8, 4))

    @jax.jit
    @jax.shard_map(mesh=mesh, in_specs=P("data", "model"), out_specs=P("data", "model"))
    def step(params: jax.Array, grads: jax.Array) -> jax.Array:
        return jo.apply_updates(params, tx.update(grads, tx.init(params), params)[0])

    expected = jo.apply_updates(params, tx.update(grads, tx.init(params), params)[0])
    assert_close(jax.device_get(step(params, grads)), jax.device_get(expected))


def test_missing_gradient_keeps_the_slot_in_its_place(mesh):
    tx = make("adamw")
    params = sharded(params_of("adamw"), mesh)
    grads = sharded(grads_of("adamw", 0), mesh) | {"rows": None}
    _, state = jax.jit(tx.update)(grads, tx.init(params), params)
    assert_slots_follow({k: v for k, v in state.slots.items() if k != "step"}, params, mesh)
    assert int(state.slots["step"]["rows"]) == 0


def test_parameters_on_different_devices_eagerly():
    # As a model that is split by layers: nothing of the state may tie a parameter to another's device.
    tx = jo.sgd(lr=0.5, momentum=0.5)
    whole = {name: jnp.ones((2, 2)) * i for i, name in enumerate("ab")}
    split = {n: jax.device_put(p, jax.devices()[i]) for i, (n, p) in enumerate(whole.items())}
    grads = {name: 2 * p + 1 for name, p in whole.items()}
    spread = {n: jax.device_put(g, split[n].sharding) for n, g in grads.items()}
    updates, state = tx.update(spread, tx.init(split), split)
    updates, state = tx.update(spread, state, split)
    _, once = tx.update(grads, tx.init(whole), whole)
    expected, _ = tx.update(grads, once, whole)
    assert_close(jax.device_get(updates), jax.device_get(expected))
    for name, update in updates.items():
        assert update.devices() == split[name].devices()
        assert state.slots["momentum_buffer"][name].devices() == split[name].devices()
