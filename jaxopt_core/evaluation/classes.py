"""Accuracy, precision, recall and F1 from one table of counts."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jaxopt_core.evaluation.masks import kept

__all__ = ["Confusion"]

Average = Literal["macro", "micro", "weighted"] | None


class Confusion:
    """How often each class was taken for each: batches are added, and scores read at any time.

    The scores are scikit-learn's with ``labels=range(num_classes)`` and ``zero_division=0``: a class that is
    never predicted, or never there, has a score of 0 and counts in the average.

    Args:
        num_classes: classes are from 0 to one less.

    Attributes:
        counts: int64 of shape ``(num_classes, num_classes)``: rows are the true classes, columns the
            predicted ones, as in ``sklearn.metrics.confusion_matrix``.

    Example:
        >>> confusion = Confusion(3)
        >>> confusion.add([0, 1, 2, 2], [0, 2, 2, 2])
        >>> confusion.add([1, 0], [1, 0], mask=[True, False])
        >>> confusion.counts.tolist(), confusion.accuracy
        ([[1, 0, 0], [0, 1, 1], [0, 0, 2]], 0.8)
        >>> print(f"{confusion.f1():.4f} {confusion.f1(None).round(2)}")
        0.8222 [1.   0.67 0.8 ]
    """

    def __init__(self, num_classes: int) -> None:
        if num_classes < 1:
            raise ValueError(f"expected at least one class, got {num_classes}")
        self.num_classes = num_classes
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)

    def add(self, targets: Any, predicted: Any, mask: Any = None) -> None:
        """Counts a batch.

        Args:
            targets: classes, integers of any shape.
            predicted: classes of the same shape, or with one axis more: scores, of which the highest
                decides.
            mask: bool, False for what does not count. Default None: all counts.

        Raises:
            ValueError: shapes that do not fit, or a class that is none.
        """
        targets, predicted = kept(mask, targets, predicted)
        if predicted.ndim == targets.ndim + 1:
            predicted = predicted.argmax(axis=-1)
        if targets.shape != predicted.shape:
            raise ValueError(
                f"expected as many predictions as targets, got {predicted.shape} and {targets.shape}"
            )
        for name, classes in (("targets", targets), ("predictions", predicted)):
            if not np.issubdtype(classes.dtype, np.integer):
                raise TypeError(f"expected {name} to be integers, got {classes.dtype}")
            if classes.size and not 0 <= classes.min() <= classes.max() < self.num_classes:
                raise ValueError(
                    f"expected {name} from 0 to {self.num_classes - 1}, "
                    f"got {classes.min()} to {classes.max()}"
                )
        cells = targets.astype(np.int64).ravel() * self.num_classes + predicted.ravel()
        self.counts += np.bincount(cells, minlength=self.counts.size).reshape(self.counts.shape)

    def merge(self, other: Confusion) -> None:
        """Adds what another one counted, such as another process's."""
        self.counts += other.counts

    @property
    def accuracy(self) -> float:
        """Share of the examples that are right; NaN of none."""
        return _divide(np.trace(self.counts), self.counts.sum(), nothing=np.nan).item()

    def precision(self, average: Average = "macro") -> Any:
        """Of what was predicted to be a class, the share that is of it.

        Args:
            average: ``"macro"`` (default, where scikit-learn's is ``"binary"``): the mean over classes;
                ``"micro"``: from all counts together, which is the accuracy; ``"weighted"``: by how often a
                class is there; None: an array, one number for each class.
        """
        return self._average(self._right, self.counts.sum(axis=0), average)

    def recall(self, average: Average = "macro") -> Any:
        """Of the examples of a class, the share that was found. See :meth:`precision`."""
        return self._average(self._right, self.counts.sum(axis=1), average)

    def f1(self, average: Average = "macro") -> Any:
        """Harmonic mean of precision and recall. See :meth:`precision`."""
        both = self.counts.sum(axis=0) + self.counts.sum(axis=1)
        return self._average(2 * self._right, both, average)

    @property
    def _right(self) -> NDArray[np.int64]:
        return np.diagonal(self.counts)

    def _average(self, part: NDArray[Any], whole: NDArray[Any], average: Average) -> Any:
        if average == "micro":
            return _divide(part.sum(), whole.sum()).item()
        each = _divide(part, whole)
        if average is None:
            return each
        if average == "macro":
            return each.mean().item()
        if average != "weighted":
            raise ValueError(f"expected 'macro', 'micro', 'weighted' or None, got {average!r}")
        there = self.counts.sum(axis=1)
        return _divide((each * there).sum(), there.sum()).item()


def _divide(part: Any, whole: Any, nothing: float = 0.0) -> NDArray[np.float64]:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full_like(whole, nothing), where=whole > 0)
