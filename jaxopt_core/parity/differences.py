"""How far two runs are apart, element by element."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

__all__ = ["Comparison", "Difference", "Divergence", "Values"]

Values = Mapping[str, Mapping[str, np.ndarray[Any, Any]]]
"""What one side holds after a step: ``"params"``, ``"lr"`` or slot name -> path -> array."""


class Difference(NamedTuple):
    """The largest difference between two runs of one quantity at one step, over parameters and elements.

    Attributes:
      absolute: of the values.
      relative: over the largest magnitude that the element has had so far, so that one which passes
        through zero does not count as wrong.
      ulp: the same in units of the last place of that magnitude.
      norm: the 2-norm of a parameter's differences over the largest 2-norm that its values have had so far.
        This decides: a single element that starts near zero has a large relative difference by chance.
    """

    absolute: float = 0.0
    relative: float = 0.0
    ulp: float = 0.0
    norm: float = 0.0


@dataclasses.dataclass(frozen=True)
class Divergence:
    """The first value that is further off than allowed.

    Attributes:
      step: the update after which it is, the first being 1.
      quantity: ``"params"``, ``"lr"`` or the name of a slot.
      path: of the parameter.
      element: index of the parameter's worst element.
      expected: PyTorch's value.
      actual: ours.
      allowed: the largest difference of the norm that would have passed.
    """

    step: int
    quantity: str
    path: str
    element: tuple[int, ...]
    expected: Any
    actual: Any
    allowed: float

    def __str__(self) -> str:
        place = f"{self.path}[{', '.join(map(str, self.element))}]" if self.element else self.path
        return (
            f"step {self.step}, {self.quantity}, {place}: PyTorch has {self.expected!r}, jaxopt-core "
            f"{self.actual!r} (the parameter's norm may be {self.allowed:.1e} off)"
        )


class Comparison:
    """Measures a run against a reference, step by step."""

    def __init__(self) -> None:
        self._scale: dict[tuple[str, str], np.ndarray[Any, Any]] = {}

    def start(self, params: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Counts the initial parameters among the magnitudes."""
        for path, value in params.items():
            self._scale["params", path] = _magnitude(value)

    def grow(self, expected: Values) -> None:
        """Takes the reference's values of a step into the magnitudes; before :meth:`measure`."""
        for quantity, by_path in expected.items():
            for path, value in by_path.items():
                size = np.where(np.isfinite(value), _magnitude(value), 0)
                self._scale[quantity, path] = np.fmax(size, self._scale.get((quantity, path), 0))

    def measure(self, quantity: str, path: str, expected: Any, actual: Any) -> tuple[Difference, Any]:
        """The difference of one array, and the index of its worst element."""
        eps, tiny = _precision(expected.dtype)
        scale = np.broadcast_to(self._scale[quantity, path], np.shape(expected))
        want, have = (
            np.asarray(v, np.complex128 if np.iscomplexobj(v) else np.float64) for v in (expected, actual)
        )
        with np.errstate(all="ignore"):
            off = np.abs(want - have)
            # XLA flushes what is below the smallest normal number to zero.
            off = np.where(off <= tiny, 0, off)
            relative = np.where(off > 0, off / scale, 0)
            same = (want == have) | (np.isnan(want) & np.isnan(have))
            finite = np.isfinite(want) & np.isfinite(have)
        off, relative = (np.where(finite, x, np.where(same, 0, np.inf)) for x in (off, relative))
        if off.size == 0:
            return Difference(), ()
        worst = np.unravel_index(int(np.argmax(relative)), relative.shape)
        with np.errstate(all="ignore"):
            # 2**floor(log2(scale)) * eps is the distance between two neighbours at that magnitude.
            unit = np.exp2(np.floor(np.log2(np.where(scale > 0, scale, 1)))) * eps
            ulp = np.max(np.where(off > 0, off / unit, 0))
            size = float(np.sqrt(np.sum(scale**2)))
            norm = float(np.sqrt(np.sum(off**2))) / size if np.any(off > 0) else 0.0
        index = tuple(int(i) for i in worst)
        return Difference(float(off.max()), float(relative.max()), float(ulp), norm), index


def _magnitude(value: Any) -> np.ndarray[Any, Any]:
    wide = np.asarray(value, np.complex128 if np.iscomplexobj(value) else np.float64)
    return np.asarray(np.abs(wide))


def _precision(dtype: Any) -> tuple[float, float]:
    if np.dtype(dtype).kind in "iub":
        return 1.0, 0.0
    info = ml_dtypes.finfo(dtype)
    return float(info.eps), float(info.smallest_normal)
