"""``jaxopt-core plot-schedule``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from jaxopt_core.cli.errors import UsageError

__all__ = ["PlotSchedule", "plot_schedule"]


@dataclasses.dataclass(frozen=True)
class PlotSchedule:
    """Draw learning-rate schedules, and the momentum where it cycles, over the steps.

    For example: jaxopt-core plot-schedule --schedules "one_cycle_lr(0.1, total_steps=100)"
    "sequential_lr([warmup(0.1, 10), cosine_annealing_lr(0.1, 90)], [10])" --out schedules.png
    """

    schedules: tuple[str, ...]
    """One or more calls of the schedulers in jaxopt_core.schedulers, with PyTorch's arguments, the base
    rate first."""

    steps: int = 100
    """How many steps to draw."""

    log: bool = False
    """Draw the rate on a logarithmic axis."""

    out: Path = Path("schedules.png")
    """The file to write; it is replaced if it is there."""


def plot_schedule(options: PlotSchedule) -> None:
    """Draws what the options say.

    Raises:
        UsageError: a schedule, the number of steps or the file cannot be used.
        MissingExtraError: matplotlib is not installed.
    """
    from jaxopt_core import schedulers

    if not options.schedules:
        raise UsageError("--schedules: expected at least one, such as 'step_lr(0.1, 30)', found none")
    # A million points are more than a picture shows.
    if not 1 <= options.steps <= 1_000_000:
        raise UsageError(f"--steps: expected 1 to 1000000, found {options.steps}")
    drawn = {text: _schedule(text, options.steps) for text in options.schedules}
    try:
        schedulers.plot(drawn, options.steps, options.out, log=options.log)
    except OSError as error:
        raise UsageError(f"--out: could not write {options.out} ({error.strerror})") from error
    sys.stdout.write(f"wrote {options.out}\n")


def _schedule(text: str, steps: int) -> object:
    """The schedule of a text, tried out over all steps so that an error names the text."""
    from jaxopt_core import schedulers
    from jaxopt_core.schedulers.expression import parse

    try:
        schedule = parse(text)
        schedulers.evaluate(schedule.lr if isinstance(schedule, schedulers.Cycle) else schedule, steps)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--schedules: {text!r}: {error}") from error
    return schedule
