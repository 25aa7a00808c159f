"""Clipping equals PyTorch's, alone, in a chain, and over shards."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import sparse
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxopt_core as jo
from jaxopt_core import gradients
from tests.gradients import theirs

ORDERS = [2.0, 1.0, 0.5, 3.0, math.inf, -math.inf, -2.0, 0.0, pytest.param("inf", id="word")]


def tree(seed=0, dtype=np.float64, size=1.0):
    rng = np.random.default_rng(seed)
    shapes = {"bias": (3,), "kernel": (4, 3), "scale": ()}
    return {name: np.asarray(size * rng.normal(size=shape), dtype) for name, shape in shapes.items()}


def as_jax(grads):
    return {name: None if g is None else jnp.asarray(g) for name, g in grads.items()}


@pytest.mark.parametrize("size", [1e-3, 10.0])
@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.usefixtures("x64")
def test_any_order(p, size):
    grads = tree(size=size)
    clipped, norm = gradients.clipped_by_norm(as_jax(grads), 0.75, p)
    expected, expected_norm = theirs.clip_norm(grads, 0.75, p)
    np.testing.assert_allclose(norm, expected_norm, rtol=1e-14)
    for name, grad in expected.items():
        np.testing.assert_allclose(clipped[name], grad, rtol=1e-14, err_msg=name)


@pytest.mark.usefixtures("x64")
def test_the_constant_always_counts():
    grads = {"w": np.asarray([1e-6])}
    clipped, _ = gradients.clipped_by_norm(as_jax(grads), 1e-6)
    np.testing.assert_allclose(clipped["w"], 0.5e-6, rtol=1e-12)
    np.testing.assert_allclose(theirs.clip_norm(grads, 1e-6, 2.0)[0]["w"], clipped["w"], rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_complex_and_mixed_dtypes():
    rng = np.random.default_rng(0)
    grads = tree() | {
        "z": rng.normal(size=3) + 1j * rng.normal(size=3),
        "single": rng.normal(size=3).astype(np.float32),
        "none": None,
        "empty": np.zeros((0, 2)),
    }
    clipped, norm = gradients.clipped_by_norm(as_jax(grads), 0.75)
    expected, expected_norm = theirs.clip_norm(grads, 0.75, 2.0)
    np.testing.assert_allclose(norm, expected_norm, rtol=1e-7)
    assert clipped["none"] is None
    for name, grad in expected.items():
        assert clipped[name].dtype == grad.dtype
        np.testing.assert_allclose(clipped[name], grad, rtol=1e-7, err_msg=name)


def test_half_precision_is_summed_in_float32():
    grads = {"w": jnp.full(4096, 1.0, jnp.bfloat16)}
    clipped, norm = gradients.clipped_by_norm(grads, 32.0)
    assert (norm.dtype, float(norm)) == (jnp.float32, 64.0)
    assert clipped["w"].dtype == jnp.bfloat16
    assert float(clipped["w"][0]) == 0.5


def test_nothing_to_clip():
    assert float(gradients.global_norm({"w": None})) == 0.0
    assert gradients.clipped_by_norm({"w": None}, 1.0).grads == {"w": None}


def test_sparse_rows_count_once():
    rows = jo.sparse_rows(jnp.asarray([1, 1]), jnp.asarray([[1.0], [2.0]]), 3)
    clipped, norm = gradients.clipped_by_norm({"table": rows}, 1.5)
    assert float(norm) == 3.0
    assert isinstance(clipped["table"], sparse.BCOO)
    np.testing.assert_allclose(clipped["table"].todense(), [[0.0], [1.5], [0.0]], rtol=1e-6)
    with pytest.raises(ValueError, match="sparse gradient"):
        gradients.global_norm({"table": rows}, -math.inf)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_nonfinite_norms_as_pytorch(bad):
    grads = {"w": np.asarray([bad, 1.0], np.float32), "v": np.ones(2, np.float32)}
    clipped, norm = gradients.clipped_by_norm(as_jax(grads), 1.0)
    expected, expected_norm = theirs.clip_norm(grads, 1.0, 2.0)
    np.testing.assert_equal(np.asarray(norm), expected_norm)
    for name in grads:
        np.testing.assert_equal(np.asarray(clipped[name]), expected[name])


def test_error_if_nonfinite_in_pytorchs_words():
    bad = {"w": jnp.asarray([jnp.nan])}
    with pytest.raises(RuntimeError) as theirs_error:
        theirs.clip_norm({"w": np.asarray([np.nan])}, 1.0, 2.0, error_if_nonfinite=True)
    with pytest.raises(RuntimeError, match="The total norm of order 2") as ours:
        gradients.clipped_by_norm(bad, 1.0, error_if_nonfinite=True)
    assert str(ours.value).replace(" (nan)", "") == str(theirs_error.value)


def test_error_if_nonfinite_under_jit():
    step = jax.jit(lambda g: gradients.clipped_by_norm(g, 1.0, error_if_nonfinite=True))
    np.testing.assert_allclose(step(jnp.asarray([3.0, 4.0])).grads, [0.6, 0.8], rtol=1e-6)
    with pytest.raises(jax.errors.JaxRuntimeError, match="The total norm of order 2"):
        jax.block_until_ready(step(jnp.asarray([jnp.inf])))
    batch = jnp.asarray([[1.0], [jnp.inf]])
    with pytest.raises(Exception, match="The total norm of order 2"):
        jax.block_until_ready(jax.vmap(step)(batch))
    jax.block_until_ready(jax.vmap(step)(batch[:1]))


@pytest.mark.usefixtures("x64")
def test_values():
    grads = tree(size=2.0) | {"nan": np.asarray([np.nan, np.inf, -np.inf]), "none": None}
    clipped = gradients.clipped_by_value(as_jax(grads), 0.5)
    for name, grad in theirs.clip_value(grads, 0.5).items():
        np.testing.assert_array_equal(clipped[name], grad)
    with pytest.raises(TypeError, match=r"'z'.*clamp is not supported"):
        gradients.clipped_by_value({"z": jnp.ones(1, jnp.complex64)}, 1.0)


@pytest.mark.parametrize(("wide", "tolerance"), [(True, 1e-12), (False, 2e-5)])
def test_chain_over_a_run(wide, tolerance):
    with jax.enable_x64(wide):
        dtype = np.float64 if wide else np.float32
        params, grads = tree(99, dtype), [tree(t, dtype, 1 + t % 3) for t in range(120)]
        tx = optax.chain(gradients.clip_grad_norm(2.0), jo.adamw(lr=1e-2))
        update = jax.jit(tx.update)
        now = as_jax(params)
        state = tx.init(now)
        expected = theirs.train(params, grads, "AdamW", max_norm=2.0, lr=1e-2)
        for grad, want in zip(grads, expected, strict=True):
            updates, state = update(as_jax(grad), state, now)
            now = jo.apply_updates(now, updates)
            for name in want:
                np.testing.assert_allclose(now[name], want[name], rtol=tolerance, atol=tolerance)
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in grads[-1].values()))
        np.testing.assert_allclose(gradients.read_norm(state), norm, rtol=1e-6)
        assert update._cache_size() == 1


def test_bound_that_follows_a_schedule():
    tx = gradients.clip_grad_norm(optax.linear_schedule(1.0, 3.0, 2))
    state = tx.init(jnp.zeros(1))
    for bound in (1.0, 2.0):
        clipped, state = tx.update(jnp.full(1, 8.0), state)
        np.testing.assert_allclose(clipped, bound, rtol=1e-5)
    assert float(jo.read_hyperparams(state)["max_norm"]) == 2.0


def test_wrong_arguments():
    with pytest.raises(ValueError, match="Invalid max_norm value: -1"):
        gradients.clip_grad_norm(-1.0)
    with pytest.raises(ValueError, match="Invalid clip_value value: -1"):
        gradients.clip_grad_value(-1.0)
    with pytest.raises(TypeError, match="with optax"):
        gradients.clip_grad_norm(jo.by_path({"w": 1.0}, default=2.0))
    with pytest.raises(ValueError, match="no clip_grad_norm"):
        gradients.read_norm(jo.sgd().init(jnp.zeros(1)))
    with pytest.raises(TypeError, match="'w': expected a floating-point array, got int32"):
        gradients.global_norm({"w": jnp.ones(1, jnp.int32)})
    with pytest.raises(ValueError, match="'data' is no axis"):
        gradients.global_norm({"w": jnp.ones(1)}, axis_name="data")


@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("p", [2.0, math.inf])
def test_shards(p, tracked):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    specs = {"kernel": P("data", "model"), "bias": P("model"), "whole": P()}
    axes = jo.by_path({"kernel": ("data", "model"), "bias": "model"}, default=None)
    rng = np.random.default_rng(0)
    shapes = {"kernel": (8, 4), "bias": (4,), "whole": (3,)}
    grads = {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}
    step = jax.shard_map(
        lambda g: gradients.clipped_by_norm(g, 0.5, p, axis_name=axes),
        mesh=mesh,
        in_specs=(specs,),
        out_specs=gradients.ClippedByNorm(specs, P()),
        check_vma=tracked,
    )
    ours, alone = jax.jit(step)(grads), gradients.clipped_by_norm(grads, 0.5, p)
    np.testing.assert_allclose(ours.norm, alone.norm, rtol=1e-6)
    for name in grads:
        np.testing.assert_allclose(ours.grads[name], alone.grads[name], rtol=1e-6)
    if tracked:  # JAX knows what is whole on every device
        every = jax.shard_map(
            lambda g: gradients.global_norm(g, p, axis_name=("data", "model")),
            mesh=mesh,
            in_specs=(specs,),
            out_specs=P(),
        )
        np.testing.assert_allclose(every(grads), alone.norm, rtol=1e-6)
