"""The command line: ``jaxopt-core train`` and ``jaxopt-core plot-schedule``."""

from __future__ import annotations

import dataclasses
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jaxopt_core as jo
from jaxopt_core import schedulers
from jaxopt_core.data import DataFileError, Dataset, load_digits, load_mnist
from jaxopt_core.extras import MissingExtraError, needs_extra
from jaxopt_core.schedulers.expression import parse
from jaxopt_core.training import (
    Run,
    count_steps,
    fit,
    plot_curves,
    progress_bar,
    save_parameters,
    write_metrics,
)

if TYPE_CHECKING:
    from rich.console import Console


class UsageError(Exception):
    """What was asked for cannot be done; the message is one line: the value, expected, found."""


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a small network to read handwritten digits, with PyTorch's AdamW.

    Without --data, the digits are the 1797 that come with scikit-learn (8x8 pixels, every fifth one
    kept for testing), and the defaults reach a test accuracy of about 0.98 in a few seconds. They were
    chosen with these test images in view: take it as a check that training works, not as an estimate.

    What it writes into --out: metrics.csv, a line per epoch; curves.png, loss and accuracy; and
    params.npz, the final parameters, which numpy.load reads and which
    jaxopt_core.training.load_parameters puts back into a model. Files of an earlier run are replaced.
    """

    data: Path | None = None
    """Folder with MNIST's four IDX files, plain or gzipped: train-images-idx3-ubyte,
    train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte. Without it:
    scikit-learn's digits."""

    epochs: int = 60
    """Passes over the training images."""

    batch_size: int = 64
    """Images per update."""

    lr: float = 5e-3
    """Learning rate of AdamW, at the start."""

    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate goes on: down to zero along half a cosine, or unchanged."""

    weight_decay: float = 1e-2
    """Decoupled weight decay of AdamW."""

    hidden: tuple[int, ...] = (128,)
    """Widths of the hidden layers. None at all makes it a logistic regression."""

    seed: int = 0
    """Of the initial parameters and of the order of the images; the same seed repeats a run."""

    out: Path = Path("runs")
    """Folder for the results; it is made if it is missing."""


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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: arguments after the program's name. Default: those of the process.

    Returns:
        Exit status: 0; 1 when training diverged; 2 for wrong input; 130 after Ctrl-C. Everything
        but 0 comes with one line on standard error.

    Raises:
        SystemExit: after --help (0) and for arguments that cannot be parsed (2).
    """
    try:
        with needs_extra("train"):
            import tyro
        command = tyro.extras.subcommand_cli_from_dict(
            {"train": Train, "plot-schedule": PlotSchedule},
            prog="jaxopt-core",
            description="PyTorch's optimizers in JAX.",
            args=argv,
        )
        if isinstance(command, PlotSchedule):
            plot_schedule(command)
        else:
            train(command)
    except (UsageError, MissingExtraError) as error:
        return _fail(str(error), 2)
    except FloatingPointError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    return 0


def train(options: Train) -> Run:
    """Trains as the options say, prints what happens, and writes the results.

    Raises:
        UsageError: an option, a data file or the output folder cannot be used.
        MissingExtraError: something that the ``train`` extra installs is missing.
        FloatingPointError: training diverged.
    """
    with needs_extra("train"):
        from flax import nnx
        from rich.console import Console
    from jaxopt_core.models import MLP, pure

    _check(options)
    data = _load(options.data)
    updates = options.epochs * _count_steps(data, options.batch_size)
    _make_folder(options.out)

    widths = (data.features, *options.hidden, data.classes)
    cosine = schedulers.cosine_annealing_lr(options.lr, updates)
    lr = cosine if options.schedule == "cosine" else options.lr
    task = f"{data.name}, MLP {'-'.join(map(str, widths))}"
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{task}: {len(data.train.labels)} training images, {len(data.test.labels)} test images")
    with progress_bar(options.epochs, updates, console) as on_progress:
        run = fit(
            *pure(MLP(widths, rngs=nnx.Rngs(options.seed))),
            jo.adamw(lr=lr, weight_decay=options.weight_decay),
            data,
            epochs=options.epochs,
            batch_size=options.batch_size,
            seed=options.seed,
            on_progress=on_progress,
        )
    console.print(f"test accuracy {run.epochs[-1].test_accuracy:.4f}", style="bold")
    _write(options.out, run, task, console)
    return run


def plot_schedule(options: PlotSchedule) -> None:
    """Draws what the options say.

    Raises:
        UsageError: a schedule, the number of steps or the file cannot be used.
        MissingExtraError: matplotlib is not installed.
    """
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
    try:
        schedule = parse(text)
        schedulers.evaluate(schedule.lr if isinstance(schedule, schedulers.Cycle) else schedule, steps)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--schedules: {text!r}: {error}") from error
    return schedule


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"jaxopt-core: {message}\n")
    return status


def _check(options: Train) -> None:
    def require(ok: bool, flag: str, expected: str, found: object) -> None:
        if not ok:
            raise UsageError(f"--{flag}: expected {expected}, found {found}")

    lr, decay = options.lr, options.weight_decay
    require(options.epochs >= 1, "epochs", "a positive integer", options.epochs)
    require(math.isfinite(lr) and lr > 0, "lr", "a positive number", lr)
    require(math.isfinite(decay) and decay >= 0, "weight-decay", "a number of at least 0", decay)
    require(
        min(options.hidden, default=1) >= 1, "hidden", "positive integers", " ".join(map(str, options.hidden))
    )
    require(0 <= options.seed < 2**32, "seed", "an integer from 0 to 2**32 - 1", options.seed)


def _load(folder: Path | None) -> Dataset:
    try:
        return load_digits() if folder is None else load_mnist(folder)
    except DataFileError as error:
        raise UsageError(f"--data: {error}") from error


def _count_steps(data: Dataset, batch_size: int) -> int:
    try:
        return count_steps(data.train, batch_size)
    except ValueError as error:
        raise UsageError(f"--batch-size: {error}") from error


def _make_folder(folder: Path) -> None:
    """Fails before training, not after it, where results cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"--out: expected a folder that can be written to, found {folder} ({error.strerror})"
        ) from error


def _write(folder: Path, run: Run, title: str, console: Console) -> None:
    metrics, curves, params = folder / "metrics.csv", folder / "curves.png", folder / "params.npz"
    try:
        write_metrics(metrics, run.epochs)
        plot_curves(curves, run.epochs, run.losses, title)
        save_parameters(params, run.state.params)
    except OSError as error:
        raise UsageError(f"--out: could not write to {folder} ({error.strerror})") from error
    for path in (metrics, curves, params):
        console.print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
