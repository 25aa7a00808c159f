"""Parameters of every dtype, alone and mixed, and leaves that are no arrays of JAX yet."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_core as jo
from tests.engine.cases import NAMES, REPRESENTATIVE, assert_close, assert_equal, gradients, make, parameters

every = pytest.mark.parametrize("optimizer", REPRESENTATIVE)
ELEMENTWISE = [name for name in NAMES if name not in ("sparse_adam", "muon", "adafactor")]


def step(tx: Any, params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
    updates, state = tx.update(grads, state, params)
    return jo.apply_updates(params, updates), state


def slots_of(state: Any, name: str) -> dict[str, Any]:
    return {slot: tree[name] for slot, tree in state.slots.items()}


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
