"""Hit rate and NDCG: whether what is relevant stands at the top of a ranking."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxopt_core.evaluation.masks import kept
from jaxopt_core.extras import needs_extra

__all__ = ["Ranking"]


class Ranking:
    """Hit rate and normalised discounted cumulative gain at ``k``, means over users.

    A hit is a ranking with something relevant among its first ``k`` items. NDCG is
    ``sklearn.metrics.ndcg_score``. Items with equal scores count, in both, as the mean over all orders: a
    model that scores all items alike does not profit.

    Source of NDCG: Järvelin and Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques", 2002.

    Args:
        k: how many of the first items count. Default 10.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        ValueError: ``k`` is less than 1.

    Example:
        >>> ranking = Ranking(k=2)
        >>> ranking.add(relevance=[[0, 1, 0, 0], [1, 0, 0, 0]], scores=[[4.0, 3.0, 2.0, 1.0]] * 2)
        >>> print(f"{ranking.hit_rate:.4f} {ranking.ndcg:.4f}")
        1.0000 0.8155
    """

    def __init__(self, k: int = 10) -> None:
        if k < 1:
            raise ValueError(f"expected k of at least 1, got {k}")
        self.k = k
        self.hits, self.gains, self.users = 0.0, 0.0, 0

    def add(self, relevance: Any, scores: Any, mask: Any = None) -> None:
        """Adds the rankings of some users.

        Args:
            relevance: of shape ``(users, items)``: 0 for what is not relevant; gains of at least 0.
            scores: of the same shape; ``-inf`` for what is not offered, such as what was rated already.
            mask: bool of shape ``(users,)``, False for users who do not count.

        Raises:
            ValueError: shapes that do not fit, fewer than two items, or a NaN among the scores.
        """
        with needs_extra("train"):
            from sklearn.metrics import ndcg_score

        relevance, scores = kept(mask, relevance, scores)
        if scores.ndim != 2 or scores.shape != relevance.shape or scores.shape[-1] < 2:
            raise ValueError(
                f"expected relevance and scores (users, items) of at least two items, "
                f"got {relevance.shape} and {scores.shape}"
            )
        if not len(scores):
            return
        scores = np.maximum(scores.astype(np.float64), np.finfo(np.float64).min)
        self.gains += ndcg_score(relevance, scores, k=self.k) * len(scores)
        self.hits += sum(self._hit(row > 0, score) for row, score in zip(relevance, scores, strict=True))
        self.users += len(scores)

    def merge(self, other: Ranking) -> None:
        """Adds what another one summed; raises if it looks at another ``k``."""
        if other.k != self.k:
            raise ValueError(f"expected scores at k={self.k}, got k={other.k}")
        self.hits += other.hits
        self.gains += other.gains
        self.users += other.users

    @property
    def hit_rate(self) -> float:
        """Share of the users with something relevant among their first ``k``; NaN of none."""
        return self.hits / self.users if self.users else math.nan

    @property
    def ndcg(self) -> float:
        """Mean NDCG; a user without anything relevant has 0; NaN of none."""
        return self.gains / self.users if self.users else math.nan

    def _hit(self, relevant: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
        """Probability of a hit if equal scores are ordered at random."""
        k = min(self.k, len(scores))
        last = np.partition(scores, -k)[-k]
        above, equal = scores > last, scores == last
        if relevant[above].any():
            return 1.0
        free, tied, good = k - int(above.sum()), int(equal.sum()), int(relevant[equal].sum())
        return 1 - math.comb(tied - good, free) / math.comb(tied, free)
