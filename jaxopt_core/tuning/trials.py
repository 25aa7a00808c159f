"""What became of a trial, and of all."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

from jaxopt_core.tuning.space import Config

__all__ = ["Direction", "Trial", "TrialsFailedError", "better", "check_direction", "pick_best"]

Direction = Literal["minimize", "maximize"]


class TrialsFailedError(RuntimeError):
    """No trial came to an end with a finite score; the message has the first failure."""


@dataclasses.dataclass
class Trial:
    """One configuration and what came of it.

    Attributes:
      number: from 0, in the order in which they were asked for.
      config: name -> value.
      metrics: name -> value after the last part that it trained; what ``train_fn`` returned, in a sweep.
      history: the metrics after each part.
      status: ``"running"``, ``"complete"``, ``"pruned"`` or ``"failed"``.
      failure: why, if it failed.
    """

    number: int
    config: Config
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    status: Literal["running", "complete", "pruned", "failed"] = "running"
    failure: str = ""

    def fail(self, why: str) -> None:
        """Ends it."""
        self.status, self.failure = "failed", why


def check_direction(direction: str) -> None:
    """Raises for anything but ``minimize`` and ``maximize``."""
    if direction not in ("minimize", "maximize"):
        raise ValueError(f"direction: expected 'minimize' or 'maximize', got {direction!r}")


def better(value: float, than: float, direction: Direction) -> bool:
    """Whether a value beats another; NaN beats none and is beaten by all."""
    if math.isnan(value) or math.isnan(than):
        return math.isnan(than) and not math.isnan(value)
    return value < than if direction == "minimize" else value > than


def pick_best(trials: Sequence[Trial], metric: str, direction: Direction) -> Trial:
    """The complete trial with the best metric.

    Raises:
      KeyError: the trials have no such metric.
      TrialsFailedError: none is complete with a finite one.
    """
    check_direction(direction)
    complete = [trial for trial in trials if trial.status == "complete"]
    if complete and metric not in complete[0].metrics:
        raise KeyError(f"no metric {metric!r}; there are {', '.join(sorted(complete[0].metrics))}")
    finite = [trial for trial in complete if math.isfinite(trial.metrics[metric])]
    if not finite:
        failures = [trial for trial in trials if trial.failure]
        why = f": trial {failures[0].number}: {failures[0].failure}" if failures else ""
        raise TrialsFailedError(f"none of {len(trials)} trials ended with a finite {metric}{why}")
    sign = 1 if direction == "minimize" else -1
    return min(finite, key=lambda trial: sign * float(trial.metrics[metric]))
