"""Every optimizer, in every way and strategy, ends where one device ends on the full batch."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxopt_core.parallel import (
    assert_replicas_equal,
    data_parallel,
    data_parallel_pmap,
    data_parallel_shard_map,
    fsdp,
    synchronized,
    zero1,
    zero2,
)
from tests.parallel.problems import (
    all_optimizers,
    assert_close,
    batches,
    bowl_loss,
    bowl_params,
    devices,
    make_step,
    run,
    start,
)

WAYS = {
    "jit": data_parallel,
    "shard_map": data_parallel_shard_map,
    "pmap": lambda step, mesh, strategy: data_parallel_pmap(step, mesh),
}
CASES = [
    ("jit", 8, 1, None),
    ("shard_map", 8, 4, fsdp),
]
MORE = [
    ("shard_map", 8, 1, zero1),
    ("jit", 8, 4, fsdp),
    ("shard_map", 4, 1, None),
    ("pmap", 2, 1, None),
    ("jit", 4, 1, zero1),
    ("shard_map", 4, 2, zero2),
]


def named(case):
    way, count, fsdp_size, strategy = case
    return f"{way}-{count}x{fsdp_size}-{strategy.__name__ if strategy else 'replicate'}"


ROWS = [pytest.param(*case, id=named(case)) for case in CASES]
ROWS += [pytest.param(*case, id=named(case), marks=pytest.mark.slow) for case in MORE]


@pytest.fixture(scope="module")
def reference():
    """One device, the full batch, by jit alone; in float32 and float64."""
    results = {}
    for dtype in ("float32", "float64"):
        with jax.enable_x64(dtype == "float64"):
            tx = synchronized(all_optimizers())
            params = bowl_params(dtype)
            results[dtype] = jax.device_get(
                run(jax.jit(make_step(bowl_loss, tx)), start(params, tx), batches(dtype=dtype))
            )
    return results


def train(way, count, fsdp_size, strategy, dtype):
    tx = synchronized(all_optimizers())
    chosen = None if strategy is None else strategy()
    step = WAYS[way](make_step(bowl_loss, tx), devices(count, fsdp_size), chosen)
    state, losses = run(step, start(bowl_params(dtype), tx), batches(dtype=dtype))
    assert_replicas_equal(state)
    return state, losses


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("way", "count", "fsdp_size", "strategy"), ROWS)
def test_float64(way, count, fsdp_size, strategy, reference):
    state, losses = train(way, count, fsdp_size, strategy, "float64")
    expected, expected_losses = reference["float64"]
    assert_close(state, expected, 1e-12)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-12)


@pytest.mark.parametrize(("way", "count", "fsdp_size", "strategy"), ROWS[3:4])
def test_float32(way, count, fsdp_size, strategy, reference):
    state, losses = train(way, count, fsdp_size, strategy, "float32")
    expected, expected_losses = reference["float32"]
    assert_close(state["params"], expected["params"], 1e-6)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-6)
