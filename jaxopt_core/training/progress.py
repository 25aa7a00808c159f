"""A progress bar."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from jaxopt_core.extras import needs_extra
from jaxopt_core.training.callbacks import Callback, Row, Run

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["ProgressBar"]


class ProgressBar(Callback):
    """Shows epoch, loss, learning rate, speed and time left while a run goes on.

    Where the console is not a terminal, only the last state is printed.

    Args:
      per_step: examples (or images, or tokens) in an update. Default 1.
      unit: what they are. Default ``"steps"``.
      monitor: a metric of the validation to show beside the loss. Default None.
      console: where to draw. Default: standard output.

    Raises:
      MissingExtraError: rich is not installed.
    """

    def __init__(
        self,
        per_step: int = 1,
        unit: str = "steps",
        *,
        monitor: str | None = None,
        console: Console | None = None,
    ) -> None:
        with needs_extra("train"):
            from rich import progress as rich

        self.per_step, self.monitor = per_step, monitor
        shown = [rich.TextColumn(f"{monitor} {{task.fields[monitored]:.4f}}")] if monitor else []
        self._bar = rich.Progress(
            rich.TextColumn("epoch {task.fields[epoch]:>3}"),
            rich.BarColumn(),
            rich.TextColumn("loss {task.fields[loss]:.4f}"),
            *shown,
            rich.TextColumn("lr {task.fields[lr]:.2e}"),
            rich.TextColumn(f"{{task.fields[rate]:>9,.0f}} {unit}/s"),
            rich.TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
        )
        nothing: Any = dict.fromkeys(("loss", "lr", "monitored"), math.nan)
        self._task = self._bar.add_task("train", total=None, epoch=1, rate=0.0, **nothing)

    def on_start(self, run: Run) -> None:
        """Begins to draw."""
        self._bar.update(self._task, total=run.total_steps, completed=run.step, epoch=run.epoch)
        self._bar.start()

    def on_steps(self, run: Run, metrics: dict[str, Any]) -> None:
        """Moves on."""
        lr = next((values[-1] for name, values in metrics.items() if name.startswith("lr")), math.nan)
        self._bar.update(
            self._task,
            completed=run.step,
            epoch=run.epoch,
            loss=float(metrics["loss"].mean()) if "loss" in metrics else math.nan,
            lr=float(lr),
            rate=run.steps_per_second * self.per_step,
        )

    def on_row(self, run: Run, row: Row) -> None:
        """Shows the monitored metric."""
        del run
        if self.monitor is not None:
            self._bar.update(self._task, monitored=row.get(self.monitor, math.nan))

    def on_end(self, run: Run) -> None:
        """Stops drawing; a run that ended early has no time left."""
        self._bar.update(self._task, total=run.step or None)
        self._bar.stop()
