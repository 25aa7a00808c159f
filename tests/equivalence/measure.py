"""How far two runs are apart, and how far PyTorch is from itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from tests import oracle

__all__ = ["FROM_PARAMS", "noise", "relative_errors", "series"]

FROM_PARAMS = ("params", "ax")  # what starts at the parameters' size, ASGD's average included


def noise(
    histories: Mapping[str, Sequence[oracle.Step]], initial: Mapping[str, np.ndarray], reference: str = "loop"
) -> dict[str, np.ndarray]:
    """How far PyTorch's variants lie apart on one run.

    Args:
      histories: variant -> what :func:`tests.oracle.run` returned.
      initial: the parameters that all of them started from.
      reference: the variant from which to measure.

    Returns:
      ``"params"`` or slot name -> (steps,) largest relative difference from the reference so far, over
      variants, parameters and their elements, as :func:`relative_errors` measures it.
    """
    expected = series(histories[reference])
    floors = {key: np.zeros(len(histories[reference])) for key in expected}
    for variant in histories.keys() - {reference}:
        actual = series(histories[variant])
        for key, paths in expected.items():
            for path, values in paths.items():
                start = initial[path] if key in FROM_PARAMS else None
                worst = np.fmax.accumulate(relative_errors(actual[key][path], values, start))
                floors[key] = np.fmax(floors[key], worst)
    return floors


def series(history: Sequence[oracle.Step]) -> dict[str, dict[str, list[np.ndarray | None]]]:
    """Turns a history around: ``"params"`` or slot -> path -> value per step (``None``: not made yet)."""
    names = dict.fromkeys(name for step in history for name in step.slots)
    out: dict[str, dict[str, list[np.ndarray | None]]] = {"params": {}, **{name: {} for name in names}}
    for path in history[0].params:
        out["params"][path] = [step.params[path] for step in history]
        for name in names:
            out[name][path] = [step.slots.get(name, {}).get(path) for step in history]
    return out


def relative_errors(actual: Sequence[Any], expected: Sequence[Any], start: Any = None) -> np.ndarray:
    """Per step, the largest error of an element relative to the largest that this element has been,
    ``start`` (the initial value, if given) included.

    A parameter or an average that passes through zero would otherwise have no meaningful relative
    error. Both parts of a complex number count as elements. A difference below the smallest normal
    number counts as none, since XLA flushes subnormal numbers to zero. Steps where ``expected`` is
    ``None`` have error 0; a NaN or infinity must be met by its equal, or the error is infinite.
    """
    errors = np.zeros(len(expected))
    made = [i for i, value in enumerate(expected) if value is not None]
    if not made or np.size(expected[made[0]]) == 0:
        return errors
    dtype = np.asarray(expected[made[0]]).dtype
    tiny = float(ml_dtypes.finfo(dtype).smallest_normal) if dtype.kind != "i" else 0.0
    want, have = (_reals([values[i] for i in made]) for values in (expected, actual))
    sizes = np.where(np.isfinite(want), np.abs(want), 0)
    if start is not None:
        sizes[0] = np.maximum(sizes[0], np.abs(_reals([start])[0]))
    scale = np.maximum.accumulate(sizes)
    finite = np.isfinite(want) & np.isfinite(have)
    with np.errstate(all="ignore"):
        excess = np.maximum(np.where(finite, np.abs(have - want), 0) - tiny, 0)
        relative = np.where(excess > 0, excess / scale, 0)
    same = (want == have) | (np.isnan(want) & np.isnan(have))
    errors[made] = np.where(finite, relative, np.where(same, 0, np.inf)).max(axis=1)
    return errors


def _reals(values: Sequence[np.ndarray]) -> np.ndarray:
    stacked = np.stack([np.ravel(value) for value in values])
    if np.iscomplexobj(stacked):
        stacked = np.concatenate([stacked.real, stacked.imag], axis=1)
    return stacked.astype(np.float64)
