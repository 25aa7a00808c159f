"""What watches a run: a few methods, called between dispatches."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxopt_core.training.state import TrainState

if TYPE_CHECKING:
    from jaxopt_core.profiling import Profile

__all__ = ["Callback", "Row", "Run"]

Row = dict[str, float]


@dataclasses.dataclass
class Run:
    """A run: what callbacks see while it goes on, and what :func:`~jaxopt_core.training.fit` returns.

    Attributes:
      state: after the last update.
      step: updates made, those before a resume included.
      epoch: from 1; epochs are passes over the data.
      seconds: spent, those before a resume included.
      total_steps: updates planned, or None where that is not known beforehand.
      rows: one for each validation (or epoch, without validation data) since the start or resume: epoch,
        step, seconds, steps_per_second, the mean of every metric of training since the row before
        (``train_loss``), and every metric of the validation (``val_loss``).
      stop_reason: why it ended: ``"epochs"``, ``"max_steps"``, ``"max_time"``, ``"SIGTERM"``, or what a
        callback gave to :meth:`stop`.
      steps_per_second: of the last dispatch; the first includes compilation.
      profile: what was recorded for ``fit(profile=...)``: a :class:`~jaxopt_core.profiling.Profile`, or None.
    """

    state: TrainState
    step: int = 0
    epoch: int = 1
    seconds: float = 0.0
    total_steps: int | None = None
    rows: list[Row] = dataclasses.field(default_factory=list)
    stop_reason: str = ""
    steps_per_second: float = 0.0
    profile: Profile | None = None

    def stop(self, reason: str) -> None:
        """Ends the run after the current dispatch; the first reason given stands."""
        self.stop_reason = self.stop_reason or reason


class Callback:
    """Does nothing; override what you need.

    Example:
      >>> class PrintLoss(Callback):
      ...     def on_row(self, run, row):
      ...         print(f"epoch {run.epoch}: {row['train_loss']:.3f}")
    """

    def on_start(self, run: Run) -> None:
        """Before the first update; after a resume ``run.step`` is where it goes on."""

    def on_steps(self, run: Run, metrics: dict[str, np.ndarray[Any, Any]]) -> None:
        """After each dispatch, with the metrics of its updates, ``(updates,)`` each."""

    def on_row(self, run: Run, row: Row) -> None:
        """After each validation, or epoch."""

    def on_end(self, run: Run) -> None:
        """After the last update, also when an error ends the run."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint should keep; anything that JSON can hold."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave."""
