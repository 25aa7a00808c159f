"""What this machine can do at most, measured: matrix products, and a pass over memory."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["bfloat16_gain", "peak_bandwidth", "peak_flops"]

LONG_S = 0.005


def _best(run: Callable[[], Any], repeats: int = 5) -> float:
    """Seconds of the fastest run after the first, which compiles."""
    jax.block_until_ready(run())
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        best = min(best, time.perf_counter() - start)
    return best


def _product(m: int, k: int, n: int, dtype: Any) -> float:
    """Seconds of the product of an ``(m, k)`` and a ``(k, n)`` matrix."""
    left, right, multiply = jnp.ones((m, k), dtype), jnp.ones((k, n), dtype), jax.jit(jnp.matmul)
    return _best(lambda: multiply(left, right))


@functools.cache
def peak_flops(dtype: str) -> float:
    """Operations per second of a large product of a dtype."""
    for size in (1024, 4096, 16384):
        seconds = _product(size, size, size, jnp.dtype(dtype))
        if seconds > LONG_S:  # a fast device is done with a small one before it is well begun
            break
    return 2 * size**3 / seconds


@functools.cache
def peak_bandwidth(size: int = 1 << 28) -> float:
    """Bytes per second at which a large array is read and written."""
    arrays = [jnp.ones(size // 4, jnp.float32)]
    # In place: on a CPU new memory costs ten times what writing to it does.
    add = jax.jit(lambda x: x + 1, donate_argnums=0)

    def run() -> jax.Array:
        arrays.append(add(arrays.pop()))
        return arrays[0]

    return 2 * size / _best(run)


@functools.cache
def bfloat16_gain(m: int, k: int, n: int) -> float:
    """How many times faster a product is with bfloat16 operands than with float32 ones."""
    return _product(m, k, n, jnp.float32) / _product(m, k, n, jnp.bfloat16)
