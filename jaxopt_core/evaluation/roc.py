"""Receiver operating characteristic: scikit-learn's, a curve for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxopt_core.extras import needs_extra

__all__ = ["RocCurve", "roc_auc", "roc_curves"]


class RocCurve(NamedTuple):
    """One class against all others.

    Attributes:
        name: of the class.
        false_positives: share of the others that a threshold lets through, ascending.
        true_positives: share of the class that it lets through.
        auc: area under the curve; 0.5 is chance.
    """

    name: str
    false_positives: NDArray[np.float64]
    true_positives: NDArray[np.float64]
    auc: float


def roc_curves(targets: Any, scores: Any, names: Sequence[str] | None = None) -> list[RocCurve]:
    """The curve of each class that occurs and is not alone.

    Args:
        targets: classes, of shape ``(N,)``.
        scores: of shape ``(N, classes)``; or ``(N,)``, of class 1 against class 0.
        names: of the classes. Default: their numbers.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        ValueError: shapes that do not fit, or fewer than two classes occur: there is no curve.

    Example:
        >>> curve, = roc_curves([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        >>> curve.auc, curve.true_positives
        (0.75, array([0. , 0.5, 0.5, 1. , 1. ]))
    """
    with needs_extra("train"):
        from sklearn import metrics

    targets, scores = np.asarray(targets), np.asarray(scores)
    if scores.ndim == 1:
        scores = scores[:, None]
        classes = [1]
    else:
        classes = list(range(scores.shape[-1]))
    if targets.ndim != 1 or scores.ndim != 2 or len(targets) != len(scores):
        raise ValueError(
            f"expected targets (N,) and scores (N, classes), got {targets.shape} and {scores.shape}"
        )
    curves = []
    for column, number in enumerate(classes):
        is_class = targets == number
        if 0 < is_class.sum() < len(targets):
            false_positives, true_positives, _ = metrics.roc_curve(is_class, scores[:, column])
            area = float(metrics.auc(false_positives, true_positives))
            name = str(number) if names is None else names[number]
            curves.append(RocCurve(name, false_positives, true_positives, area))
    if not curves:
        found = np.unique(targets).tolist()
        raise ValueError(f"expected at least two classes among the targets, found {found}")
    return curves


def roc_auc(targets: Any, scores: Any) -> float:
    """Mean of the areas under :func:`roc_curves`.

    ``sklearn.metrics.roc_auc_score`` with ``multi_class="ovr"``, except that a class that does not occur is
    left out where scikit-learn gives NaN. Scores need not be probabilities.

    Example:
        >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        0.75
    """
    return float(np.mean([curve.auc for curve in roc_curves(targets, scores)]))
