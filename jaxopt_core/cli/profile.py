"""``jaxopt-core profile``."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxopt_core.cli.errors import UsageError, choose
from jaxopt_core.cli.options import TASKS, TrainOptions

__all__ = ["Profile", "main", "profile_task"]


@dataclasses.dataclass(frozen=True)
class Profile:
    """Record some dispatches of the training of a task, and say where the time goes.

    Prints tables by phase, operation and source line, compilations and memory, and advice with its evidence.
    It writes into --out: trace.json.gz for ui.perfetto.dev, flame.svg, and plugins/ for TensorBoard.
    """

    config: Path | None = None
    """A TOML file with options of jaxopt-core train, such as the config.toml of a run."""

    wait: int = 1
    """Dispatches before anything is measured; the first compiles."""

    warmup: int = 3
    """Dispatches that are timed without recording."""

    active: int = 5
    """Dispatches that are recorded."""

    by: str = "operation"
    """The large table: operation, scope or source."""

    sort: str = "total"
    """Its column: name, calls, total, average, share, scope or source."""

    limit: int = 15
    """Its lines."""

    steps_per_dispatch: int | None = None
    """Updates in one call of the compiled program. Default: that of the configuration."""

    out: Path = Path("profile")
    """Folder for the results."""


def main(arguments: list[str], parse: Callable[..., Any]) -> int:
    """Runs ``jaxopt-core profile`` with the arguments after it; ``parse`` is the command line's."""
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(
            "usage: jaxopt-core profile TASK [options]; jaxopt-core profile digits --help says more\n"
        )
        return 0
    task = choose("task", arguments[0], TASKS)
    return profile_task(task, parse(Profile, f"profile {task}", arguments[1:]))


def profile_task(task: str, options: Profile) -> int:
    """Records as the options say, prints and writes the results; returns the exit status.

    Raises:
      UsageError: an option or a file cannot be used.
    """
    from jaxopt_core.cli.config import read_config
    from jaxopt_core.cli.train import prepare
    from jaxopt_core.profiling import (
        ProfileCallback,
        Schedule,
        advise,
        export_perfetto,
        plot_flame,
    )
    from jaxopt_core.training import fit

    choose("--by", options.by, ("operation", "scope", "source"))
    choose("--sort", options.sort, ("name", "calls", "total", "average", "share", "scope", "source"))
    schedule = Schedule(options.wait, options.warmup, options.active)
    try:
        schedule.check()
    except ValueError as error:
        raise UsageError(f"--wait, --warmup, --active: {error}") from error
    chosen: TrainOptions = TASKS[task]() if options.config is None else read_config(options.config, task)[1]
    if options.steps_per_dispatch is not None:
        chosen = dataclasses.replace(chosen, steps_per_dispatch=options.steps_per_dispatch)
    chosen.check()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out: expected a folder, found {options.out} ({error.strerror})") from error
    recipe, state, step_fn, _ = prepare(task, chosen)
    callback = ProfileCallback(schedule, options.out)
    dispatches = options.wait + options.warmup + options.active
    fit(
        state,
        callback.watch(recipe.train),
        step_fn,
        max_steps=dispatches * min(chosen.steps_per_dispatch, len(recipe.train)),  # type: ignore[arg-type]
        callbacks=[callback],
        steps_per_dispatch=chosen.steps_per_dispatch,
        check_finite=(),
    )
    try:
        found = callback.result
    except RuntimeError as error:
        raise UsageError(str(error)) from error
    by: Any = options.by
    advice = advise(found)
    text = [recipe.title, found.summary(), found.table("phase"), found.table(by, options.sort, options.limit)]
    text.append("\n".join(map(str, advice)) if advice else "no advice: no known cause of slowness was found")
    sys.stdout.write("\n\n".join(text) + "\n\n")
    export_perfetto(found, options.out / "trace.json.gz")
    plot_flame(found, options.out / "flame.svg")
    sys.stdout.write(f"wrote flame.svg, plugins, trace.json.gz into {options.out}\n")
    return 0
