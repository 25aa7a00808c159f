"""Any pytree of parameters: odd containers, odd shapes, and a count at its end."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_core as jo
from tests.engine.cases import REPRESENTATIVE, assert_equal, differ, gradients, make, parameters

every = pytest.mark.parametrize("optimizer", REPRESENTATIVE)


def step(tx: Any, params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
    updates, state = tx.update(grads, state, params)
    return jo.apply_updates(params, updates), state


# --- Containers ---------------------------------------------------------------------------------------


class Layer(NamedTuple):
    kernel: Any
    bias: Any


class Attention(NamedTuple):
    query: Any
    key: Any
    value: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Block:
    first: Any
    rest: Any
    name: str = dataclasses.field(default="block", metadata={"static": True})


def containers() -> dict[str, Any]:
    a, b, c = (jnp.full((2, 2), value) for value in (1.0, 2.0, 3.0))
    return {
        "leaf": a,
        "list": [a, [b], c],
        "tuple": (a, (b, c)),
        "NamedTuple": Layer(a, Layer(b, None)),
        "attention": {"attention": Attention(a, b, c)},
        "dataclass": Block(a, {"x": Block(b, [c])}),
        "mixed": {"layers": [Layer(a, b), Layer(c, ())], "0": (Block(a, b),)},
        "odd keys": {"a/b": a, "": b, "c d": {"é.*": c}},
        "integer keys": {0: a, 1: {2: b}},
    }


@pytest.mark.parametrize("container", containers())
@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "muon"])
def test_containers(optimizer, container):
    params = containers()[container]
    grads = jax.tree.map(lambda p: 0.5 * p, params)
    tx = make(optimizer)
    after, state = step(tx, params, tx.init(params), grads)
    leaves = jax.tree.leaves(params)
    flat, flat_state = step(tx, leaves, tx.init(leaves), [0.5 * p for p in leaves])
    assert jax.tree.structure(after) == jax.tree.structure(params)
    assert_equal(jax.tree.leaves(after), flat)
    for name, slot in state.slots.items():
        assert jax.tree.structure(slot) == jax.tree.structure(params)
        assert_equal(jax.tree.leaves(slot), flat_state.slots[name])


@pytest.mark.parametrize(
    ("container", "paths"),
    [
        ("list", ["0", "1/0", "2"]),
        ("NamedTuple", ["kernel", "bias/kernel"]),
        ("attention", ["attention/query", "attention/key", "attention/value"]),
        ("dataclass", ["first", "rest/x/first", "rest/x/rest/0"]),
        ("mixed", ["0/0/first", "0/0/rest", "layers/0/kernel", "layers/0/bias", "layers/1/kernel"]),
        ("integer keys", ["0", "1/2"]),
    ],
)
def test_paths(container, paths):
    params = containers()[container]
    tx = jo.sgd(lr=jo.by_path({f"^{path}$": i + 1.0 for i, path in enumerate(paths)}, default=0.0))
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    assert [float(u[0, 0]) for u in jax.tree.leaves(updates)] == [-(i + 1.0) for i in range(len(paths))]


# --- Shapes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "asgd", "adafactor"])
def test_scalars_and_long_shapes(optimizer):
    params = {"scalar": jnp.float32(2), "one": jnp.full((1,), 2.0), "many": jnp.full((1, 1, 1, 1, 1), 2.0)}
    tx = make(optimizer)
    after, _ = step(tx, params, tx.init(params), params)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, params)
    assert differ(after, params)
    # A scalar is a vector of one.
    assert float(after["scalar"]) == float(after["one"][0])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "asgd", "adafactor", "muon", "sparse_adam"])
def test_zero_size_leaves(optimizer):
    tx = make(optimizer)
    params = {"empty": jnp.zeros((0, 3)), "full": jnp.ones((2, 3))}
    grads = params
    if optimizer == "sparse_adam":
        grads = {
            "empty": jo.sparse_rows(jnp.zeros((0,), jnp.int32), jnp.zeros((0, 3)), 0),
            "full": jo.sparse_rows(jnp.asarray([1]), jnp.ones((1, 3)), 2),
        }
    state = tx.init(params)
    for _ in range(2):
        params, state = step(tx, params, state, grads)
    assert params["empty"].shape == (0, 3)
    assert np.isfinite(params["full"]).all()
    assert differ(params["full"], jnp.ones((2, 3)))


def test_sparse_gradient_without_rows_still_counts():
    tx = make("sparse_adam")
    params = {"table": jnp.ones((4, 2))}
    nothing = jo.sparse_rows(jnp.zeros((0,), jnp.int32), jnp.zeros((0, 2)), 4)
    after, state = step(tx, params, tx.init(params), {"table": nothing})
    assert_equal(after, params)
    assert int(state.count) == 1


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.int8])
def test_rows_counted_from_the_end_are_the_same_rows(dtype):
    tx, params = make("sparse_adam"), {"table": jnp.ones((300, 2))}
    rows, found = jnp.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), []
    for ids in (jnp.asarray([-1, 3, -1], dtype), jnp.asarray([299, 3, 299])):
        grads = {"table": jo.sparse_rows(ids, rows, 300)}
        found.append(step(tx, params, tx.init(params), grads))
    assert_equal(*found)


# --- The count ----------------------------------------------------------------------------------------

LAST = 2**31 - 1


@every
def test_count_stops_at_its_largest_value(optimizer):
    tx = make(optimizer)
    params = {"w": parameters(optimizer)["layer"]["kernel"]}
    grads = {"w": gradients(optimizer, 0)["layer"]["kernel"]}
    _, state = step(tx, params, tx.init(params), grads)
    state = state._replace(count=jnp.asarray(LAST - 1, jnp.int32))
    for _ in range(3):
        params, state = step(tx, params, state, grads)
        assert np.isfinite(params["w"]).all()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert int(state.count) == LAST


@every
def test_step_of_a_parameter_stops_too(optimizer):
    tx = make(optimizer)
    params = {"w": parameters(optimizer)["layer"]["kernel"]}
    grads = {"w": gradients(optimizer, 0)["layer"]["kernel"]}
    _, state = step(tx, params, tx.init(params), grads)
    state = state._replace(count=jnp.asarray(LAST - 1, jnp.int32))
    state = jo.count_per_parameter(state, params)
    for _ in range(3):
        params, state = step(tx, params, state, grads)
        assert np.isfinite(params["w"]).all()
    assert int(state.slots["step"]["w"]) == LAST
