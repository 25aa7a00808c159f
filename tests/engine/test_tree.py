"""Any pytree of parameters: absent leaves, odd containers, odd shapes, every dtype."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_core as jo
from tests.engine.cases import NAMES, assert_close, assert_equal, differ, gradients, make, parameters

every = pytest.mark.parametrize("optimizer", NAMES)
DENSE = [name for name in NAMES if name != "sparse_adam"]
ELEMENTWISE = [name for name in DENSE if name not in ("muon", "adafactor")]


def step(tx: Any, params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
    updates, state = tx.update(grads, state, params)
    return jo.apply_updates(params, updates), state


def slots_of(state: Any, name: str) -> dict[str, Any]:
    return {slot: tree[name] for slot, tree in state.slots.items()}


# --- Absent leaves ------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("optimizer", [name for name in DENSE if name != "muon"])
def test_scalars_and_long_shapes(optimizer):
    params = {"scalar": jnp.float32(2), "one": jnp.full((1,), 2.0), "many": jnp.full((1, 1, 1, 1, 1), 2.0)}
    tx = make(optimizer)
    after, _ = step(tx, params, tx.init(params), params)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, params)
    assert differ(after, params)
    # A scalar is a vector of one.
    assert float(after["scalar"]) == float(after["one"][0])


@every
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


# --- Dtypes -------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_dtype_of_parameters_slots_and_updates(optimizer, dtype, x64):
    del x64
    params = {"w": parameters(optimizer, dtype)["layer"]["kernel"]}
    grads = {"w": gradients(optimizer, 0, dtype)["layer"]["kernel"]}
    tx = make(optimizer)
    updates, state = jax.eval_shape(tx.update, grads, jax.eval_shape(tx.init, params), params)
    assert updates["w"].dtype == dtype
    assert jax.eval_shape(jo.apply_updates, params, updates)["w"].dtype == dtype
    # PyTorch keeps these in float32 whatever the parameter is.
    scalars = {"mu_product": "float32", "eta": "float32", "mu": "float32"}
    for name, tree in state.slots.items():
        assert tree["w"].dtype == scalars.get(name, dtype), name


@pytest.mark.parametrize("optimizer", ["adamw", "nadam", "asgd", "adafactor", "muon"])
def test_dtypes_mixed_in_one_tree(optimizer, x64):
    # Each leaf as it would be alone, whatever the dtype of its neighbours.
    del x64
    dtypes = ["bfloat16", "float16", "float32", "float64"]
    params = {d: parameters(optimizer)["layer"]["kernel"].astype(d) for d in dtypes}
    grads = {d: gradients(optimizer, 0, d)["layer"]["kernel"] for d in dtypes}
    tx = make(optimizer)
    together, state = step(tx, params, tx.init(params), grads)
    for d in dtypes:
        alone, alone_state = step(tx, {d: params[d]}, tx.init({d: params[d]}), {d: grads[d]})
        assert_equal(together[d], alone[d])
        assert_equal(slots_of(state, d), slots_of(alone_state, d))


@pytest.mark.parametrize("optimizer", [*ELEMENTWISE])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_is_a_pair_of_reals(optimizer, dtype, x64):
    del x64
    rng = np.random.default_rng(0)
    real = {"complex64": "float32", "complex128": "float64"}[dtype]
    pairs = [jnp.asarray(rng.normal(size=(4, 3, 2)).astype(real)) for _ in range(4)]
    tx = make(optimizer)
    params, reals = jax.lax.complex(pairs[0][..., 0], pairs[0][..., 1]), pairs[0]
    state, real_state = tx.init(params), tx.init(reals)
    for pair in pairs[1:]:
        # JAX's gradient is the conjugate of the pair's.
        params, state = step(tx, params, state, jax.lax.complex(pair[..., 0], -pair[..., 1]))
        reals, real_state = step(tx, reals, real_state, pair)
    assert params.dtype == dtype
    assert_close(jnp.stack([params.real, params.imag], -1), reals)
    for name, slot in state.slots.items():
        if jnp.iscomplexobj(slot):
            assert_close(jnp.stack([slot.real, slot.imag], -1), real_state.slots[name])
        else:
            assert slot.shape == ()


def test_complex_gradient_of_a_loss_descends():
    target = jnp.asarray([1.0 + 2.0j, -0.5j], jnp.complex64)

    def loss(params: Any) -> Any:
        return jnp.sum(jnp.square(jnp.abs(params - target)))

    tx = jo.adam(lr=0.1)
    params = jnp.zeros(2, jnp.complex64)
    state = tx.init(params)
    run = jax.jit(lambda p, s: step(tx, p, s, jax.grad(loss)(p)))
    for _ in range(200):
        params, state = run(params, state)
    assert_close(params, target, atol=1e-2)


def test_numpy_leaves():
    params = {"w": np.ones((2, 2), np.float32), "s": np.float32(1)}
    for name in ("adamw", "adafactor"):
        tx = make(name)
        grads = jax.tree.map(lambda p: 0.5 * p, params)
        after, state = step(tx, params, tx.init(params), grads)
        jax_params = jax.tree.map(jnp.asarray, params)
        expected, expected_state = step(tx, jax_params, tx.init(jax_params), jax.tree.map(jnp.asarray, grads))
        assert_equal(after, expected)
        assert_equal(state, expected_state)


def test_python_scalar_leaves():
    tx = jo.sgd(lr=0.5, momentum=0.5)
    params = {"w": 1.0}
    updates, state = tx.update({"w": 1.0}, tx.init(params), params)
    assert float(jo.apply_updates(params, updates)["w"]) == 0.5
    assert not state.slots["momentum_buffer"]["w"].weak_type


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
