"""The padding mask, as every score applies it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["kept"]


def kept(mask: Any, *columns: Any) -> tuple[NDArray[Any], ...]:
    """The examples of each column for which the mask is True; all of them if it is None.

    Args:
        mask: bool of shape ``(N, ...)``.
        columns: arrays of which the first axes are the mask's.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> kept([True, False], [5, 6])
        (array([5]),)
    """
    arrays = tuple(np.asarray(column) for column in columns)
    if mask is None:
        return arrays
    mask = np.asarray(mask, bool)
    for array in arrays:
        if array.shape[: mask.ndim] != mask.shape:
            raise ValueError(f"expected a mask for arrays of shape {array.shape}, got shape {mask.shape}")
    return tuple(array[mask] for array in arrays)
