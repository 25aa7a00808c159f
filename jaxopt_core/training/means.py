"""Means of the metrics of training between two rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Means"]


class Means:
    """Adds up metrics in float64; what it holds is part of a checkpoint.

    Example:
      >>> import numpy as np
      >>> means = Means()
      >>> means.add({"loss": np.asarray([1.0, 2.0])})
      >>> means.add({"loss": np.asarray([6.0])})
      >>> means.take(seconds=10.0)
      {'loss': 3.0}
    """

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.count = 0
        self.since = 0.0

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Takes in the metrics of some updates, arrays of one value each."""
        for name, values in metrics.items():
            # One by one, so that the sum does not depend on how the updates were dispatched.
            total = self.sums.get(name, 0.0)
            for value in values.tolist():
                total += value
            self.sums[name] = total
        self.count += len(next(iter(metrics.values())))

    def take(self, seconds: float) -> dict[str, float]:
        """The means, and starts anew; ``seconds`` is the time now."""
        means = {name: total / self.count for name, total in self.sums.items()}
        self.sums, self.count, self.since = {}, 0, seconds
        return means

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"sums": self.sums, "count": self.count, "since": self.since}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes back what :meth:`state` gave."""
        self.sums, self.count, self.since = dict(state["sums"]), state["count"], state["since"]
