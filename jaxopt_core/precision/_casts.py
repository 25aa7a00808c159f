"""Changing the type of one value: plainly, and for constants without making an infinity of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray

from jaxopt_core.precision._values import Value

__all__ = [
    "FLOAT32",
    "fits",
    "give",
    "is_float32",
    "narrow_constant",
    "overflows",
    "shape_of",
    "spread",
    "to_dtype",
    "underflows",
]

FLOAT32 = np.dtype(np.float32)


def is_float32(aval: Any) -> bool:
    """Whether a value is a float32 array: the only ones that autocast governs."""
    return isinstance(aval, ShapedArray) and aval.dtype == FLOAT32


def shape_of(atom: Any) -> tuple[int, ...]:
    """The shape of a variable or literal; that of a key or a token is not of interest."""
    return tuple(getattr(atom.aval, "shape", ()))


def to_dtype(x: Any, dtype: Any) -> Any:
    """``x`` in ``dtype``; nothing where it has that already."""
    return x if jnp.result_type(x) == dtype else lax.convert_element_type(x, dtype)


def spread(x: Any, aval: Any, dtype: Any) -> Any:
    """``x`` broadcast as operators do it, to the shape of ``aval``, with a gradient summed in float32."""
    axes = tuple(range(aval.ndim - jnp.ndim(x), aval.ndim))
    wide = lax.broadcast_in_dim(to_dtype(x, FLOAT32), aval.shape, axes, out_sharding=aval.sharding)
    return lax.convert_element_type(wide, dtype)


def give(outs: Sequence[Any], are: Sequence[Value], wanted: Sequence[Value], dtype: Any) -> list[Any]:
    """Results as they are wanted where they are held otherwise."""
    return [
        x if now.low == then.low else to_dtype(x, dtype if then.low else FLOAT32)
        for x, now, then in zip(outs, are, wanted, strict=True)
    ]


def fits(constant: Any, dtype: Any) -> bool:
    """Whether every number of a constant is exact in ``dtype``."""
    wide = np.asarray(constant, np.float32)
    return np.array_equal(wide, _round(wide, dtype).astype(np.float32), equal_nan=True)


def underflows(constant: Any, dtype: Any) -> bool:
    """Whether a number that is not zero becomes zero in ``dtype``: the fate of 1e-8 in float16."""
    wide = np.asarray(constant, np.float32)
    return bool(np.any((wide != 0) & (_round(wide, dtype) == 0)))


def overflows(constant: Any, dtype: Any) -> bool:
    """Whether a finite number becomes an infinity in ``dtype``: the fate of -1e9 in float16."""
    wide = np.asarray(constant, np.float32)
    return bool(np.any(np.isfinite(wide) & ~np.isfinite(_round(wide, dtype).astype(np.float32))))


def narrow_constant(x: Any, dtype: Any) -> Any:
    """A constant in a narrower type, where finite numbers stay finite.

    Masks are made of ``finfo(float32).min`` or -1e9. As infinities they would turn a row that is masked
    entirely into NaN, where float32 gives a uniform one.
    """
    limit = float(jnp.finfo(dtype).max)
    if isinstance(x, np.ndarray | np.generic | float):
        wide = np.asarray(x, np.float32)
        return _round(np.where(np.isfinite(wide), np.clip(wide, -limit, limit), wide), dtype)
    bounded = lax.clamp(np.float32(-limit), x, np.float32(limit))
    return lax.convert_element_type(lax.select(lax.is_finite(x), bounded, x), dtype)


def _round(wide: np.ndarray, dtype: Any) -> np.ndarray:
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(wide).astype(dtype)
