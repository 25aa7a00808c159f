"""Checkpoints of sharded states, in one process; several are in test_launched_training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import jaxopt_core as jo
from jaxopt_core import parallel
from jaxopt_core.parallel import ShardedCheckpoints
from jaxopt_core.training import init_state


def state(devices, spec=("data",)):
    mesh = parallel.mesh(devices=jax.devices()[:devices])
    params = {"w": jnp.arange(32.0).reshape(8, 4), "b": jnp.ones(3, jnp.bfloat16)}
    made = init_state(params, {}, jo.adamw(), seed=3)
    rows = NamedSharding(mesh, PartitionSpec(*spec))
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.device_put(x, rows if x.shape == (8, 4) else whole), made)


def numbers(x):
    return np.asarray(
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, np.float64
    )


@pytest.fixture
def checkpoints(tmp_path):
    made = ShardedCheckpoints(tmp_path / "checkpoints")
    yield made
    made.close()


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_the_state_comes_back_onto_other_numbers_of_devices(checkpoints, devices):
    saved = state(4)
    checkpoints.save(7, saved, {"data": {"epoch": 1, "batch": 2}})
    checkpoints.wait()
    like = jax.tree.map(
        lambda x: x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else 0 * x, state(devices)
    )
    step, restored, meta = checkpoints.restore(like)
    assert (step, meta) == (7, {"data": {"epoch": 1, "batch": 2}})
    for got, expected, placed in zip(*map(jax.tree.leaves, (restored, saved, like)), strict=True):
        assert got.sharding.is_equivalent_to(placed.sharding, got.ndim)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(numbers(got), numbers(expected))


def test_the_newest_is_read_and_old_ones_go(checkpoints):
    for step in range(3):
        checkpoints.save(step, {"x": jnp.full(2, step)})
    checkpoints.save(2, {"x": jnp.zeros(2, jnp.int32)})  # is there already
    checkpoints.wait()
    step, restored, _ = checkpoints.restore({"x": jnp.zeros(2, jnp.int32)})
    assert (step, restored["x"].tolist()) == (2, [2, 2])
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["1", "2"]
    with pytest.raises(FileNotFoundError, match=r"expected a checkpoint of step 0 in .*, found \[1, 2\]"):
        checkpoints.restore({"x": jnp.zeros(2, jnp.int32)}, step=0)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (
            {"x": jnp.zeros(3)},
            r"rank 0: .* another model or optimizer: x is float32 of shape \[2\], expected",
        ),
        ({"y": jnp.zeros(2)}, "it has x"),
        ({"x": jnp.zeros(2), "y": jnp.zeros(2)}, "it lacks y"),
    ],
)
def test_another_model_is_refused(checkpoints, like, message):
    checkpoints.save(1, {"x": jnp.zeros(2)})
    checkpoints.wait()
    with pytest.raises(ValueError, match=message):
        checkpoints.restore(like)


def test_what_json_cannot_hold_is_refused_before_anything_is_written(checkpoints):
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoints.save(1, {"x": jnp.zeros(2)}, {"data": {1, 2}})
    assert checkpoints.restore({"x": jnp.zeros(2)}) is None


def test_keep_is_checked(tmp_path):
    with pytest.raises(ValueError, match="keep: expected at least 1, got 0"):
        ShardedCheckpoints(tmp_path, keep=0)
