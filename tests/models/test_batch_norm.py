"""Batch normalisation over devices, in half precision, and the switch between its modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxopt_core.models import pure
from jaxopt_core.models.layers import BatchNorm, BatchNorm1d, BatchNorm2d, convert_sync_batchnorm

X = np.random.default_rng(0).normal(3.0, 2.0, (16, 4, 4, 3)).astype(np.float32)


def results(apply, params, rest, x, average=lambda loss: loss):
    """Output, new statistics and gradients of a loss that weighs every element differently."""

    def loss(params, x):
        y, new = apply(params, rest, x, train=True)
        return average(jnp.mean(y * jnp.cos(y))), (y, new)

    (_, (y, new)), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
    return y, new, *grads


def close(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_synchronised_over_devices_is_the_whole_batch():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    apply, params, rest = pure(BatchNorm2d(3))
    whole = jax.jit(lambda p, r, x: results(apply, p, r, x))(params, rest, X)

    synced, *_ = pure(convert_sync_batchnorm(BatchNorm2d(3), "data"))

    def shard(params, rest, x):
        return results(synced, params, rest, x, lambda loss: jax.lax.pmean(loss, "data"))

    mapped = jax.shard_map(
        shard,
        mesh=mesh,
        in_specs=(P(), P(), P("data")),
        out_specs=(P("data"), P(), P(), P("data")),
    )
    # That the statistics and gradients may leave as P() is the proof that all devices have the same.
    close(jax.jit(mapped)(params, rest, X), whole)


def test_synchronised_under_vmap():
    apply, params, rest = pure(BatchNorm1d(3, axis_name="lanes"))
    x = X.reshape(-1, 3)
    lanes = jax.vmap(lambda x: apply(params, rest, x, train=True), axis_name="lanes", out_axes=(0, None))
    y, new = jax.jit(lanes)(x.reshape(4, -1, 3))
    plain, *_ = pure(BatchNorm1d(3))
    close((y.reshape(-1, 3), new), plain(params, rest, x, train=True))


def test_a_sharded_batch_under_jit_needs_no_axis():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    apply, params, rest = pure(BatchNorm2d(3))
    run = jax.jit(lambda p, r, x: apply(p, r, x, train=True))
    sharded = jax.device_put(X, jax.NamedSharding(mesh, P("data")))
    close(run(params, rest, sharded), run(params, rest, X))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_has_statistics_in_float32(dtype):
    apply, params, rest = pure(BatchNorm2d(3))
    x = jnp.asarray(X, dtype)
    y, new = apply(params, rest, x, train=True)
    wide, expected = apply(params, rest, x.astype(jnp.float32), train=True)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, wide.astype(dtype))
    close(new, expected)


def test_a_large_mean_does_not_cancel():
    x = jnp.asarray(X[..., :1].reshape(-1, 1) + 1e4)
    norm = BatchNorm(1, momentum=1.0)
    norm(x)
    np.testing.assert_allclose(norm.var[...], np.asarray(x, np.float64).var(ddof=1), rtol=1e-4)


def test_view_and_train_choose_the_statistics():
    norm = BatchNorm2d(3)
    x = jnp.asarray(X)
    np.testing.assert_allclose(nnx.view(norm, use_running_average=True)(x), X, rtol=1e-4)
    assert norm.num_batches_tracked[...] == 0
    norm.train()
    assert abs(float(norm(x).mean())) < 1e-5
    assert norm.num_batches_tracked[...] == 1
    norm.eval()
    norm(x)
    assert norm.num_batches_tracked[...] == 1


def test_second_derivatives_are_those_of_differences():
    apply, params, rest = pure(BatchNorm1d(2))
    x, v = (jnp.asarray(X.reshape(-1, 3)[i : i + 6, :2]) for i in (0, 6))
    with jax.enable_x64(True):
        params, rest, x, v = (
            jax.tree.map(lambda a: a.astype(float) if a.dtype == jnp.float32 else a, tree)
            for tree in (params, rest, x, v)
        )
        grad = jax.grad(lambda x: jnp.sin(apply(params, rest, x, train=True)[0]).sum())
        _, found = jax.jvp(grad, (x,), (v,))
        np.testing.assert_allclose(
            found, (grad(x + 1e-5 * v) - grad(x - 1e-5 * v)) / 2e-5, rtol=1e-5, atol=1e-8
        )
