"""The command line, ``jaxopt-core``."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxopt_core.cli.errors import UsageError, choose
from jaxopt_core.cli.options import TASKS, TrainOptions
from jaxopt_core.extras import MissingExtraError, needs_extra

__all__ = ["main"]


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """What the checkpoint of a run gives on the test data."""

    run: Path
    """The run's folder."""

    which: str = "best"
    """best or last."""


@dataclasses.dataclass(frozen=True)
class Plot:
    """Draw the curves of one run, or compare those of several."""

    runs: tuple[Path, ...]
    """The runs' folders."""

    out: Path = Path("comparison.png")
    """The file to write; it is replaced if it is there."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: arguments after the program's name. Default: those of the process.

    Returns:
      Exit status: 0; 1 when training diverged, or parity found a difference; 2 for wrong input; 130 after
      Ctrl-C; 143 after SIGTERM. Wrong input comes with one line on standard error.

    Raises:
      SystemExit: after --help, with 0.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except (UsageError, MissingExtraError) as error:
        return _fail(str(error), 2)
    except FloatingPointError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    return _COMMANDS[choose("command", arguments[0], _COMMANDS)].run(arguments[1:])


# Each imports what it needs: help and errors come at once.


def _train(arguments: list[str]) -> int:
    from jaxopt_core.cli.config import read_config

    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_train_help())
        return 0
    task = choose("task", arguments[0], TASKS)
    rest = arguments[1:]
    default = TASKS[task]()
    before = _parse(TASKS[task], f"train {task}", rest)
    file = before.config
    if before.resume or before.resume_step is not None:
        file = file or before.out / "config.toml"
    if file is not None:
        _, default = read_config(file, task)
    options: TrainOptions = _parse(TASKS[task], f"train {task}", rest, default)
    options.check()
    from jaxopt_core.cli.train import train

    return train(task, options)


def _tune(arguments: list[str]) -> int:
    from jaxopt_core.cli.tune import main as tune

    return tune(arguments, _parse)


def _profile(arguments: list[str]) -> int:
    from jaxopt_core.cli.profile import main as profile

    return profile(arguments, _parse)


def _launch(arguments: list[str]) -> int:
    from jaxopt_core.parallel.launch import main as launch

    return launch(arguments)


def _evaluate(arguments: list[str]) -> int:
    from jaxopt_core.cli.evaluate import evaluate_run

    options = _parse(Evaluate, "evaluate", arguments, positional="run")
    evaluate_run(options.run, choose("--which", options.which, ("best", "last")))
    return 0


def _plot(arguments: list[str]) -> int:
    from jaxopt_core.cli.plot import plot_runs

    options = _parse(Plot, "plot", arguments, positional="runs")
    plot_runs(options.runs, options.out)
    return 0


def _plot_schedule(arguments: list[str]) -> int:
    from jaxopt_core.cli.schedule import PlotSchedule, plot_schedule

    plot_schedule(_parse(PlotSchedule, "plot-schedule", arguments))
    return 0


def _parity(arguments: list[str]) -> int:
    from jaxopt_core.cli.parity import Parity, parity

    for flag in ("--set", "--schedule-set"):
        arguments = _gathered(arguments, flag)
    return 0 if parity(_parse(Parity, "parity", arguments, positional="optimizer")) else 1


def _gathered(arguments: list[str], flag: str) -> list[str]:
    """``--set a=1 --set b=2`` as ``--set a=1 b=2``."""
    rest: list[str] = []
    values: list[str] = []
    target = rest
    for argument in arguments:
        if argument == flag:
            target = values
            continue
        target = rest if argument.startswith("--") else target
        target.append(argument)
    return [*rest, flag, *values] if values else rest


def _convert(arguments: list[str]) -> int:
    from jaxopt_core.cli.checkpoints import Convert, convert

    convert(_parse(Convert, "convert", arguments, positional="source target"))
    return 0


def _port(arguments: list[str]) -> int:
    from jaxopt_core.cli.checkpoints import Port, port

    port(_parse(Port, "port", arguments, positional="checkpoint"))
    return 0


class _Command(NamedTuple):
    usage: str
    summary: str
    run: Callable[[list[str]], int]


_COMMANDS = {
    command.usage.partition(" ")[0]: command
    for command in (
        _Command("train TASK", "train a network: digits, image, text, speech or recommend", _train),
        _Command("tune TASK", "search its hyperparameters, many trials in one compiled program", _tune),
        _Command("profile TASK", "where the time of its training goes, and what to change", _profile),
        _Command("launch SCRIPT", "start a script on several processes, and again when one fails", _launch),
        _Command("evaluate RUN", "what a run's best (or last) checkpoint gives on its test data", _evaluate),
        _Command("plot RUN [RUN ...]", "the curves of runs in one picture", _plot),
        _Command("plot-schedule", "learning-rate schedules in one picture", _plot_schedule),
        _Command("parity OPTIMIZER", "an optimizer in PyTorch and here on one problem, compared", _parity),
        _Command("convert FROM TO", "a PyTorch training checkpoint to Orbax, or back", _convert),
        _Command("port CHECKPOINT", "the Python that constructs a checkpoint's optimizer here", _port),
    )
}


def _help() -> str:
    lines = [f"  {command.usage:<20} {command.summary}" for command in _COMMANDS.values()]
    return (
        "usage: jaxopt-core COMMAND ...\n\nPyTorch's optimizers in JAX.\n\n"
        + "\n".join(lines)
        + "\n\njaxopt-core COMMAND --help says more; for train: jaxopt-core train TASK --help.\n"
    )


def _train_help() -> str:
    lines = [f"  {name:<10} {_summary(kind)}" for name, kind in TASKS.items()]
    return (
        "usage: jaxopt-core train TASK [options]\n\n" + "\n".join(lines) + "\n\n"
        "jaxopt-core train TASK --help lists the options of a task; for example\n\n"
        "  jaxopt-core train digits --data path/to/mnist --optimizer sgd --lr 0.1 --out runs/sgd\n"
    )


def _summary(kind: type[TrainOptions]) -> str:
    return (kind.__doc__ or "").partition("\n")[0]


def _parse(kind: Any, command: str, arguments: list[str], default: Any = None, positional: str = "") -> Any:
    with needs_extra("train"):
        import tyro

    if positional:
        kind = tyro.conf.configure(tyro.conf.PositionalRequiredArgs)(kind)
    errors = io.StringIO()
    given: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(kind, prog=f"jaxopt-core {command}", args=arguments, **given)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        # Tyro draws a box around what is one sentence.
        text = re.sub(r"[╭╮╰╯│─]|-{4,}", " ", errors.getvalue()).partition("For full helptext")[0]
        message = re.sub(r"\s+", " ", text).strip().removeprefix("Parsing error ")
        raise UsageError(message or "the arguments cannot be parsed") from None


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f"jaxopt-core: {message.strip().partition(chr(10))[0]}\n")
    return status
