"""A progress bar for the loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jaxopt_core.extras import needs_extra
from jaxopt_core.training.loop import Progress

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def progress_bar(
    epochs: int, updates: int, console: Console | None = None
) -> Iterator[Callable[[Progress], None]]:
    """Shows epoch, loss, learning rate and images per second while a run goes on.

    Where the console is not a terminal, only the last state is printed.

    Args:
        epochs: of the whole run.
        updates: of the whole run.
        console: where to draw. Default: standard output.

    Yields:
        The ``on_progress`` of :func:`jaxopt_core.training.fit`.

    Raises:
        MissingExtraError: rich is not installed.
    """
    with needs_extra("train"):
        from rich import progress as rich

    bar = rich.Progress(
        rich.TextColumn("epoch {task.fields[epoch]:>3}/{task.fields[epochs]}"),
        rich.BarColumn(),
        rich.TextColumn("loss {task.fields[loss]:.4f}"),
        rich.TextColumn("lr {task.fields[lr]:.2e}"),
        rich.TextColumn("{task.fields[rate]:>9,.0f} images/s"),
        rich.TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
    )
    task = bar.add_task("train", total=updates, epochs=epochs, epoch=0, loss=math.nan, lr=math.nan, rate=0.0)

    def show(now: Progress) -> None:
        bar.update(
            task,
            completed=now.step,
            epoch=now.epoch,
            loss=now.loss,
            lr=now.lr,
            rate=now.images_per_second,
        )

    with bar:
        yield show
