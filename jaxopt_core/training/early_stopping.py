"""Stopping when the validation no longer improves."""

from __future__ import annotations

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxopt_core.training.callbacks import Callback, Row, Run
from jaxopt_core.training.state import TrainState

__all__ = ["EarlyStopping"]


class EarlyStopping(Callback):
    """Ends a run once a metric has not improved for ``patience`` validations in a row.

    Args:
      monitor: the metric. Default ``"val_loss"``.
      patience: how many validations in a row without improvement end the run, as in Lightning and Ignite.
        Default 3.
      min_delta: an improvement must be larger than this. Default 0.
      mode: ``"min"`` or ``"max"``: which way is better. Default ``"min"``.
      restore_best: end with the state of the best validation, of which a copy is kept. Default False.

    Raises:
      ValueError: an argument is out of range; in the run, there is no such metric.

    A metric that is NaN does not improve.

    Example:
      >>> from jaxopt_core.training import EarlyStopping
      >>> stopping = EarlyStopping(patience=1, min_delta=0.1)
      >>> [stopping.improves(value) for value in (1.0, 0.95, 0.8)]
      [True, False, True]
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 3,
        min_delta: float = 0.0,
        mode: Literal["min", "max"] = "min",
        restore_best: bool = False,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode {mode} is unknown!")
        if patience < 1 or not min_delta >= 0:
            raise ValueError(
                f"expected patience of at least 1 and min_delta of at least 0, "
                f"got {patience!r} and {min_delta!r}"
            )
        self.monitor, self.patience, self.min_delta, self.mode = monitor, patience, min_delta, mode
        self.restore_best = restore_best
        self.best = math.inf if mode == "min" else -math.inf
        self.best_step = 0
        self.waited = 0
        self.best_state: TrainState | None = None

    def improves(self, value: float) -> bool:
        """Whether a value is better than the best so far, which it then becomes."""
        gain = self.best - value if self.mode == "min" else value - self.best
        if gain > self.min_delta:
            self.best, self.waited = value, 0
            return True
        self.waited += 1
        return False

    def on_row(self, run: Run, row: Row) -> None:
        """Looks at the metric."""
        if self.monitor not in row:
            raise ValueError(f"early stopping monitors {self.monitor!r}; a row has {', '.join(row)}")
        if self.improves(row[self.monitor]):
            self.best_step = run.step
            if self.restore_best:
                self.best_state = jax.tree.map(jnp.copy, run.state)  # steps may overwrite it
        elif self.waited >= self.patience:
            run.stop(f"{self.monitor} did not improve on {self.best:.6g} of step {self.best_step}")

    def state_dict(self) -> dict[str, Any]:
        """Best value, its step, and how long was waited."""
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes these back. The best state itself is in its checkpoint."""
        self.best, self.best_step, self.waited = state["best"], state["best_step"], state["waited"]
