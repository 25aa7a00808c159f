"""``jaxopt-core tune``."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxopt_core.cli.config import check_value, write_config
from jaxopt_core.cli.errors import UsageError, choose
from jaxopt_core.cli.options import TASKS, TrainOptions
from jaxopt_core.data import DataFileError
from jaxopt_core.extras import needs_extra

__all__ = ["Tune", "main", "tune"]

# They say what to do with a run, and are no part of what it is.
_TRANSIENT = {"out", "config", "resume", "resume_step"}
_DEFAULT_SPACE = {"lr": (1e-4, 1e-1), "weight_decay": (1e-4, 1.0)}


@dataclasses.dataclass(frozen=True)
class Tune:
    """Search the options of a task of jaxopt-core train, and write the best as a configuration for it.

    A fifth of the training data is held out to compare the trials; the test data is not looked at. Trials
    that differ only in real numbers share one compiled program. After each part of a trial the better third
    goes on.

    It writes into --out: best.toml, for jaxopt-core train TASK --config; trials.csv; study.db, from which
    the same command goes on, also in several processes at once; and Optuna's pictures history.png,
    importances.png and parallel.png.
    """

    space: Path | None = None
    """A TOML file with a table for each option to search: [lr] low = 1e-4, high = 0.1, log = true; or
    [optimizer] choices = ["adamw", "sgd"]; or [momentum] low = 0.5, high = 0.99, when = { optimizer =
    "sgd" }; and a plain value for each that is fixed: epochs = 30. Without it: lr and weight_decay."""

    trials: int = 64
    """Of all processes and runs together."""

    batch: int = 16
    """Trials that are asked for and trained at a time."""

    parts: int = 9
    """Into which a trial is divided; after parts 1, 3, 9, ... the worse two thirds are given up."""

    metric: str | None = None
    """To compare. Default: the loss."""

    sampler: str = "tpe"
    """tpe, random or qmc."""

    pruner: str = "halving"
    """halving, median or none."""

    storage: str | None = None
    """sqlite:///FILE, journal:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE. Default: study.db in
    --out."""

    name: str = "tune"
    """Of the study in its storage."""

    data: Path | None = None
    """As for train."""

    epochs: int | None = None
    """Passes over the training data. Default: the task's, unless the space has them."""

    seed: int = 0
    """Of the sampler, and of parameters and data in every trial."""

    timeout: float | None = None
    """Seconds after which no batch of trials is begun."""

    out: Path = Path("tuned")
    """Folder for the results."""


def main(arguments: list[str], parse: Callable[..., Any]) -> int:
    """Runs ``jaxopt-core tune`` with the arguments after it; ``parse`` is the command line's."""
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write("usage: jaxopt-core tune TASK [options]; jaxopt-core tune digits --help says more\n")
        return 0
    task = choose("task", arguments[0], TASKS)
    return tune(task, parse(Tune, f"tune {task}", arguments[1:]))


def tune(task: str, options: Tune) -> int:
    """Searches as the options say; returns the exit status.

    Raises:
      UsageError: an option, the space or a file cannot be used.
      MissingExtraError: the ``tune`` extra is not installed.
    """
    with needs_extra("tune"):
        import optuna
    with needs_extra("train"):
        from rich.console import Console

    del optuna
    from jaxopt_core.tuning import SpaceError, StorageError, TrialsFailedError, study
    from jaxopt_core.tuning.recipes import recipe_trainable

    _check(options)
    default = TASKS[task](data=options.data, seed=options.seed)
    if options.epochs is not None:
        default = dataclasses.replace(default, epochs=options.epochs)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    try:
        space = _space(options, default)
        trainable = recipe_trainable(task, default, parts=options.parts)
    except (SpaceError, DataFileError) as error:
        raise UsageError(str(error)) from error
    except ValueError as error:
        raise UsageError(str(error).partition("\n")[0]) from error
    metric = options.metric or "loss"
    if options.metric is not None:
        _check_metric(options.metric, trainable, space)
    direction: Any = "minimize" if metric in ("loss", "bits", "rmse", "cer") else "maximize"
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out: expected a folder, found {options.out} ({error.strerror})") from error
    storage = options.storage or f"sqlite:///{options.out / 'study.db'}"
    console.print(f"{task}: {options.trials} trials over {', '.join(space.dimensions)}")
    with _Progress(options.trials, metric, direction, console) as progress:
        try:
            found = study(
                trainable,
                space,
                trials=options.trials,
                metric=metric,
                direction=direction,
                batch=options.batch,
                sampler=options.sampler,
                pruner=None if options.pruner == "none" else options.pruner,
                storage=storage,
                name=options.name,
                seed=options.seed,
                timeout=options.timeout,
                traced=(),
                fingerprint=_fingerprint(task, default, space),
                on_trial=progress.show,
                on_other=progress.show,
            )
        except (StorageError, ValueError) as error:
            raise UsageError(str(error).partition("\n")[0]) from error
        except KeyboardInterrupt:
            console.print(f"what is finished is kept in {storage}; the same command goes on from there")
            raise
    for line in found.trouble:
        console.print(f"  {line}", style="yellow")
    try:
        best = found.best
    except (TrialsFailedError, KeyError) as error:
        raise UsageError(str(error.args[0])) from error
    _print_table(found, console)
    write_config(options.out / "best.toml", task, dataclasses.replace(default, **best.config))
    _write_csv(found, options.out / "trials.csv")
    pictures = _draw(found, options.out, console)
    written = ["best.toml", "trials.csv", *(p.name for p in pictures)]
    console.print(
        f"{len(found.trials)} trials, {found.programs} programs compiled in {found.compile_seconds:.1f} s, "
        f"{found.seconds:.1f} s in all"
    )
    console.print(f"wrote {', '.join(sorted(written))} into {options.out}")
    console.print(f"next: jaxopt-core train {task} --config {options.out / 'best.toml'}")
    return 0


def _check(options: Tune) -> None:
    for name in ("trials", "batch", "parts"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name}: expected a positive integer, found {getattr(options, name)}")
    if options.timeout is not None and not options.timeout > 0:
        raise UsageError(f"--timeout: expected a positive number, found {options.timeout}")
    choose("--sampler", options.sampler, ("tpe", "random", "qmc"))
    choose("--pruner", options.pruner, ("halving", "median", "none"))


def _space(options: Tune, default: TrainOptions) -> Any:
    from jaxopt_core.recipes import OPTIMIZERS
    from jaxopt_core.tuning import Choice, Float, Integer, Space

    if options.space is None:
        return Space({name: Float(low, high, log=True) for name, (low, high) in _DEFAULT_SPACE.items()})
    space = Space.from_toml(options.space)
    kinds = {field.name: str(field.type) for field in dataclasses.fields(default)}
    where = f"--space: {options.space}"
    for name in (*space.dimensions, *space.constants):
        choose(where, name, sorted(kinds.keys() - _TRANSIENT - {"data"}))
    # Whole bounds of an option that is a real number are no reason to try whole numbers only.
    real = {
        name: Float(float(each.low), float(each.high), each.log, each.when)
        for name, each in space.dimensions.items()
        if isinstance(each, Integer) and kinds[name].startswith("float")
    }
    space = Space({**space.constants, **space.dimensions, **real})
    tried = list(space.constants.items())
    for name, dimension in space.dimensions.items():
        ends = dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)
        tried += [(name, value) for value in ends]
    for name, value in tried:
        read = check_value(f"{where}: {name}", value, kinds[name])
        if name == "optimizer":
            choose(f"{where}: {name}", read, OPTIMIZERS)
        try:
            dataclasses.replace(default, **{name: read}).check()
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
    return space


def _fingerprint(task: str, default: TrainOptions, space: Any) -> dict[str, Any]:
    """What decides the results beside the space: the task, and its options that are not searched."""
    left_out = _TRANSIENT | {"cache", "tensorboard", *space.dimensions, *space.constants}
    fixed = {field.name: getattr(default, field.name) for field in dataclasses.fields(default)}
    return {"task": task} | {
        name: str(value) if isinstance(value, Path) else value
        for name, value in fixed.items()
        if name not in left_out
    }


def _check_metric(metric: str, trainable: Any, space: Any) -> None:
    """Raises UsageError if one trial, which is traced and not run, has no such metric."""
    import jax
    import numpy as np

    config = space.sample(np.random.default_rng(0))

    def measure(*args: Any) -> Any:
        return trainable.advance(config, trainable.init(config, *args), *args)[1]

    try:
        metrics = jax.eval_shape(measure, *trainable.args)
    except Exception:  # noqa: BLE001  # what is wrong with one configuration is for its own trial to say
        return
    choose("--metric", metric, metrics)


class _Progress:
    """A bar with the number of trials and the best so far."""

    def __init__(self, trials: int, metric: str, direction: str, console: Any) -> None:
        from rich import progress as rich

        self.metric, self.sign, self.best = metric, 1 if direction == "minimize" else -1, math.inf
        self.bar = rich.Progress(
            rich.TextColumn("trials"),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TextColumn("{task.fields[text]}"),
            rich.TimeElapsedColumn(),
            console=console,
        )
        self.task = self.bar.add_task("trials", total=trials, text="compiling")

    def __enter__(self) -> _Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, trial: Any, trouble: str = "") -> None:
        """Moves on."""
        del trouble
        if trial.status == "complete":
            self.best = min(self.best, self.sign * trial.metrics[self.metric])
        text = (
            f"best {self.metric} {self.sign * self.best:.4f}" if math.isfinite(self.best) else "no result yet"
        )
        self.bar.update(self.task, advance=1, text=text)


def _draw(found: Any, folder: Path, console: Any) -> list[Path]:
    from jaxopt_core.tuning.pictures import plot_study
    from jaxopt_core.tuning.storage import Patience, StorageError

    ask_once = Patience(0.0, lambda _: None)
    try:
        pictures = ask_once("no pictures", lambda: plot_study(found, folder))
    except StorageError as error:  # everything else is known without it
        console.print(str(error), style="yellow")
        return []
    if not pictures:
        console.print("no pictures: fewer than two trials are complete; --pruner none lets all of them end")
    return pictures


def _print_table(found: Any, console: Any, most: int = 10) -> None:
    from rich.table import Table

    sign = 1 if found.direction == "minimize" else -1
    complete = [trial for trial in found.trials if trial.status == "complete"]
    complete.sort(key=lambda trial: sign * trial.metrics[found.metric])
    names = list(dict.fromkeys(name for trial in found.trials for name in trial.config))
    metrics = list(complete[0].metrics)
    table = Table(box=None, pad_edge=False)
    for name in ("trial", *names, *metrics):
        table.add_column(name, justify="right")
    for trial in complete[:most]:
        cells = [_cell(trial.config.get(name, "")) for name in names]
        table.add_row(str(trial.number), *cells, *(_cell(trial.metrics[name]) for name in metrics))
    console.print(table)
    counts = {
        status: sum(t.status == status for t in found.trials) for status in ("complete", "pruned", "failed")
    }
    console.print(", ".join(f"{count} {status}" for status, count in counts.items()))


def _write_csv(found: Any, path: Path) -> None:
    import csv

    configs = list(dict.fromkeys(name for trial in found.trials for name in trial.config))
    metrics = list(dict.fromkeys(name for trial in found.trials for name in trial.metrics))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "status", *configs, *metrics, "failure"])
        for t in found.trials:
            row = [
                *(t.config.get(name, "") for name in configs),
                *(t.metrics.get(name, "") for name in metrics),
            ]
            writer.writerow([t.number, t.status, *row, t.failure])


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
