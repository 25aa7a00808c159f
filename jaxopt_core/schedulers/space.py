"""Where and how precisely a schedule is computed, and arithmetic that keeps float32's last digits.

Counts that are Python's or numpy's are computed in numpy, in float64; what comes from JAX is computed
there, in float32, or in float64 where that is enabled. Whole numbers stay whole as long as they can: a
count modulo a period is exact, a distance to the end of an annealing is exact, and only then follows a
division.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Space", "elementwise"]


class Space:
    """Numpy in float64, or JAX if one of ``values`` is an array or tracer of JAX's."""

    def __init__(self, *values: Any):
        on_device = any(isinstance(value, jax.Array) for value in values)
        self.xp: Any = jnp if on_device else np
        self.dtype = np.dtype(jnp.result_type(float) if on_device else np.float64)

    def real(self, value: Any) -> Any:
        """``value`` in this precision."""
        return self.xp.asarray(value, self.dtype)

    def count(self, value: Any) -> Any:
        """A count: whole as it is, fractional in this precision."""
        value = self.xp.asarray(value)
        return value if self.xp.issubdtype(value.dtype, np.integer) else self.real(value)

    def modulo(self, count: Any, period: float) -> tuple[Any, Any]:
        """How often ``period`` has passed, and what is left; exact for whole numbers."""
        if not isinstance(period, int):
            count = self.real(count)
        return count // period, count % period

    def table(self, numbers: Sequence[int], like: Any) -> Any:
        """Sorted whole numbers in the dtype of the counts ``like``, as large as it can hold."""
        if not np.issubdtype(like.dtype, np.integer):
            return self.real(numbers)
        most = np.iinfo(like.dtype).max
        return self.xp.asarray(np.asarray([min(number, most) for number in numbers], like.dtype))

    def minus(self, count: Any, number: float) -> Any:
        """``count - number``, exact in the whole part."""
        whole = math.floor(number)
        return self.real(count - whole) - (number - whole)

    def wave(self, distance: Any, length: Any) -> Any:
        """``sin(pi/2 * distance / length)**2``: from 0 at distance 0 to 1 at ``length``, half a cosine.

        It is ``(1 - cos(pi * distance / length)) / 2`` without the cancellation where that is small.
        """
        return self.xp.sin(self.real(distance) / self.real(length) * (math.pi / 2)) ** 2

    def power(self, base: Any, exponent: Any) -> Any:
        """``base**exponent`` for counts as exponents.

        In float32 the rounding of a base like 0.999 alone would cost ``exponent`` times 3e-8. Here
        ``exponent * log(base)`` is a sum of exact products and a small rest.
        """
        xp, n = self.xp, self.real(exponent)
        is_fixed = isinstance(base, int | float) and base > 0
        if self.dtype == np.float64 or not is_fixed:
            return xp.power(self.real(base), n)
        log = math.log(base)
        mantissa, binary = math.frexp(log)
        coarse = math.ldexp(round(mantissa * 2**11), binary - 11)
        low = exponent % 4096
        large, small = self.real(exponent - low) * coarse, self.real(low) * coarse
        total = large + small
        lost = small - (total - large)
        # The rest is small unless the result is 0 or infinite, and must not turn 0 into NaN there.
        return xp.exp(total) * xp.exp(xp.clip(lost + n * (log - coarse), -1, 1))

    def done(self, value: Any) -> Any:
        """A result: numpy's scalars rather than arrays without dimensions."""
        return value[()] if isinstance(value, np.ndarray) else value


def elementwise(fn: Callable[[Any], Any], count: Any) -> Any:
    """``fn`` of every count: of Python's numbers one by one, of JAX's arrays as a batch."""
    if isinstance(count, jax.Array):
        if jnp.issubdtype(count.dtype, jnp.integer):
            count = count.astype(jnp.result_type(int))  # with 64 bits, fractions of it have 64 too
        return jnp.vectorize(lambda one: jnp.asarray(fn(one)))(count) if count.ndim else fn(count)
    counts = np.asarray(count)
    values = [fn(one) for one in counts.ravel().tolist()]
    return Space(*values).xp.asarray(values).reshape(counts.shape)
