"""Scalar arithmetic that the optimizers share, accurate in float32.

PyTorch computes bias corrections and the like in Python's float64. Here they are computed on the
device in the dtype of the rule; where the textbook expression cancels in float32, another one that
does not is used. In float64 the textbook expression is used, so that the numbers are PyTorch's.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["bias_correction", "lerp", "log", "round_to_float32", "sma_length", "sqrt"]


def lerp(start: jax.Array, end: jax.Array, weight: Any) -> jax.Array:
    """``start + weight * (end - start)``, from the nearer end, as ``torch.lerp`` computes it."""
    near_start = start + weight * (end - start)
    if isinstance(weight, int | float) and weight < 0.5:
        return near_start
    near_end = end - (1 - weight) * (end - start)
    if isinstance(weight, int | float):
        return near_end
    return jnp.where(weight < 0.5, near_start, near_end)


def log(base: Any) -> Any:
    """Logarithm of a decay rate; of a number in float64, of a scalar without loss close to 1."""
    if isinstance(base, int | float):
        return math.log(base) if base > 0 else -math.inf
    return jnp.log1p(base - 1)


def bias_correction(beta: Any, step: jax.Array) -> jax.Array:
    """``1 - beta**step``, which costs up to 2e-4 of relative error in float32 if written so."""
    if step.dtype == jnp.float64:
        return 1 - jnp.power(jnp.asarray(beta, step.dtype), step)
    return -jnp.expm1(step * log(beta))


def sma_length(beta: Any, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Length of RAdam's approximated simple moving average, now and in the limit.

    ``rho_inf = 2 / (1 - beta) - 1`` and ``rho = rho_inf - 2 t beta**t / (1 - beta**t)``. The
    difference loses four digits in float32. With ``x = -log(beta)`` it is
    ``t (1 - L(t x / 2)) + L(x / 2)``, where ``L(y) = coth(y) - 1/y`` is Langevin's function and both
    terms are positive.
    """
    rho_inf = jnp.asarray(2 / (1 - beta) - 1, step.dtype)
    if step.dtype == jnp.float64:
        power = jnp.power(jnp.asarray(beta, step.dtype), step)
        return rho_inf - 2 * step * power / (1 - power), rho_inf
    half = jnp.asarray(-log(beta) / 2, step.dtype)
    return step * _one_minus_langevin(step * half) + (1 - _one_minus_langevin(half)), rho_inf


def _one_minus_langevin(y: jax.Array) -> jax.Array:
    small = jnp.minimum(y, 0.5)
    square = small * small
    terms = (1 / 3, -1 / 45, 2 / 945, -1 / 4725, 2 / 93555)
    series = jnp.zeros_like(y)
    for term in reversed(terms):
        series = term + square * series
    large = jnp.maximum(y, 0.5)
    return jnp.where(y < 0.5, 1 - small * series, 1 / large - 2 / jnp.expm1(2 * large))


def round_to_float32(x: jax.Array) -> jax.Array:
    """Rounds to float32's precision in place: a cast there and back may be optimised away."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=23)


@jax.custom_jvp
def sqrt(x: jax.Array) -> jax.Array:
    """Square root whose derivative at 0 is 0.

    Differentiating through an update (to learn a learning rate) otherwise gives NaN as soon as one
    gradient is exactly zero, as those of dead ReLUs are.
    """
    return jnp.sqrt(x)


@sqrt.defjvp
def _sqrt_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    root = sqrt(*primals)
    slope = jnp.where(root == 0, 0, 0.5 / jnp.where(root == 0, 1, root))
    return root, tangents[0] * slope
