"""What this machine can do at most, measured: matrix products and copies."""

from __future__ import annotations

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["bfloat16_gain", "peak_bandwidth", "peak_flops"]


def _best(fn: Any, *args: Any, repeats: int = 5) -> float:
    compiled = jax.jit(fn).lower(*args).compile()
    jax.block_until_ready(compiled(*args))
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        best = min(best, time.perf_counter() - start)
    return best


def _product(m: int, k: int, n: int, dtype: Any) -> float:
    """Seconds of the product of an ``(m, k)`` and a ``(k, n)`` matrix."""
    return _best(jnp.matmul, jnp.ones((m, k), dtype), jnp.ones((k, n), dtype))


@functools.cache
def peak_flops(size: int = 1024) -> float:
    """Operations per second of a large float32 product."""
    return 2 * size**3 / _product(size, size, size, jnp.float32)


@functools.cache
def peak_bandwidth(size: int = 1 << 26) -> float:
    """Bytes per second at which a large array is read and written."""
    return 2 * size / _best(lambda x: x + 1, jnp.ones(size // 4, jnp.float32))


@functools.cache
def bfloat16_gain(m: int, k: int, n: int) -> float:
    """How many times faster a product is with bfloat16 operands than with float32 ones."""
    return _product(m, k, n, jnp.float32) / _product(m, k, n, jnp.bfloat16)
