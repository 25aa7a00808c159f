"""How far a score would move with other examples: bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

__all__ = ["Interval", "confidence_interval"]


class Interval(NamedTuple):
    """A score and the bounds between which it lies.

    Attributes:
        value: of all examples.
        low: lower bound.
        high: upper bound.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def confidence_interval(
    score: Callable[..., float],
    *columns: Any,
    level: float = 0.95,
    resamples: int = 1000,
    method: Literal["percentile", "basic", "bca"] = "percentile",
    seed: int = 0,
) -> Interval:
    """Scores again and again examples drawn with replacement from those there are.

    SciPy's ``bootstrap``, over any function of columns: scikit-learn's metrics fit as they are. It says how
    the choice of test examples moves the score, not how another training run would.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 14.

    Args:
        score: ``(*columns) -> number``.
        columns: arrays with an example a row, drawn together.
        level: probability that the interval holds the true score. Default 0.95.
        resamples: how often. Default 1000.
        method: ``"percentile"`` (default); ``"bca"`` corrects bias and skewness, and scores once more
            for each example; ``"basic"``.
        seed: of the draws. Default 0.

    Returns:
        The score of all examples, and the bounds.

    Raises:
        ValueError: fewer than two examples, unequal numbers of them, or a level outside (0, 1).

    Example:
        >>> targets = np.arange(200) % 2
        >>> predicted = np.where(np.arange(200) < 170, targets, 1 - targets)
        >>> print(confidence_interval(lambda t, p: np.mean(t == p), targets, predicted))
        0.8500 [0.8000, 0.9000]
    """
    # SciPy is there because JAX needs it; its statistics take a second to import.
    from scipy import stats

    arrays = [np.asarray(column) for column in columns]
    counts = sorted({len(array) for array in arrays})
    if len(counts) != 1 or counts[0] < 2:
        raise ValueError(f"expected columns of as many examples each, at least two, got {counts}")
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, got {level}")

    def of_rows(rows: Any) -> float:
        return float(score(*(array[rows] for array in arrays)))

    everything = np.arange(counts[0])
    result = stats.bootstrap(
        (everything,),
        of_rows,
        n_resamples=resamples,
        confidence_level=level,
        method=method,
        vectorized=False,
        rng=np.random.default_rng(seed),
    )
    bounds = result.confidence_interval
    return Interval(of_rows(everything), float(bounds.low), float(bounds.high))
