"""Metrics into files while a run goes on: CSV, and TensorBoard's events."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from jaxopt_core.extras import needs_extra
from jaxopt_core.training.callbacks import Callback, Row, Run

__all__ = ["CsvLogger", "TensorBoardLogger", "read_csv"]


def read_csv(path: str | os.PathLike[str]) -> dict[str, list[float]]:
    """Reads what :class:`CsvLogger` wrote.

    Args:
      path: of the file.

    Returns:
      column -> values. A last line that a killed run left unfinished is left out.

    Raises:
      ValueError: another line is not one number for each column.
    """
    with Path(path).open(newline="") as file:
        text = file.read()
    header, *lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines())) or [[]]
    columns: dict[str, list[float]] = {name: [] for name in header}
    for number, line in enumerate(lines, start=2):
        try:
            for name, value in zip(header, map(float, line), strict=True):
                columns[name].append(value)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: expected {len(header)} numbers ({error})") from None
    return columns


class CsvLogger(Callback):
    """Writes ``steps.csv``, a line for each update, and ``metrics.csv``, a line for each validation.

    Numbers are written so that they read back exactly. A resumed run goes on in the same files, behind
    the step from which it resumes.

    Args:
      folder: for the two files; made if it is missing.

    Example:
      >>> import tempfile, numpy as np
      >>> from jaxopt_core.training import Run
      >>> folder = Path(tempfile.mkdtemp())
      >>> logger, run = CsvLogger(folder), Run(state=None)
      >>> logger.on_start(run)
      >>> run.step = 2
      >>> logger.on_steps(run, {"loss": np.asarray([0.5, 0.25])})
      >>> logger.on_end(run)
      >>> read_csv(folder / "steps.csv")
      {'step': [1.0, 2.0], 'loss': [0.5, 0.25]}
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._files: dict[str, TextIO] = {}

    def on_start(self, run: Run) -> None:
        """Drops what was written after the step at which the run starts."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("steps.csv", "metrics.csv"):
            path = self.folder / name
            if run.step and path.exists():
                _cut(path, run.step)
            else:
                path.unlink(missing_ok=True)
            self._files[name] = path.open("a", newline="")

    def on_steps(self, run: Run, metrics: dict[str, Any]) -> None:
        """Writes a line for each update."""
        if self._files["steps.csv"].tell() == 0:
            self._write("steps.csv", ["step", *metrics])
        values = [each.tolist() for each in metrics.values()]
        first = run.step - len(values[0]) + 1
        for i, line in enumerate(zip(*values, strict=True)):
            self._write("steps.csv", [first + i, *line])
        # Whenever a checkpoint is made, the lines up to its step must outlive the process.
        self._files["steps.csv"].flush()

    def on_row(self, run: Run, row: Row) -> None:
        """Writes the row."""
        del run
        if self._files["metrics.csv"].tell() == 0:
            self._write("metrics.csv", row)
        self._write("metrics.csv", row.values())
        self._files["metrics.csv"].flush()

    def on_end(self, run: Run) -> None:
        """Closes the files."""
        del run
        for file in self._files.values():
            file.close()

    def _write(self, name: str, line: Iterable[Any]) -> None:
        self._files[name].write(_line(line))


def _cut(path: Path, step: int) -> None:
    """Drops the lines after a step, all at once: a run killed meanwhile has the old file or the new one."""
    columns = read_csv(path)
    place = list(columns).index("step") if columns else 0
    kept = [line for line in zip(*columns.values(), strict=True) if line[place] <= step]
    part = path.with_suffix(".part")
    part.write_text("".join(map(_line, [list(columns), *kept] if kept else [])), newline="")
    part.replace(path)


def _line(values: Iterable[Any]) -> str:
    return ",".join(map(_text, values)) + "\n"


def _text(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


class TensorBoardLogger(Callback):
    """Writes the same numbers as TensorBoard's events: ``tensorboard --logdir FOLDER`` shows them.

    Args:
      folder: for the event files.

    Raises:
      MissingExtraError: tensorboardX is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        with needs_extra("train"):
            import tensorboardX
        make: Any = tensorboardX.SummaryWriter
        self._open: Any = lambda purge: make(str(folder), purge_step=purge)
        self._writer: Any = None

    def on_start(self, run: Run) -> None:
        """Opens the file; TensorBoard hides what an earlier run wrote behind the step it resumes from."""
        self._writer = self._open(run.step + 1 if run.step else None)

    def on_steps(self, run: Run, metrics: dict[str, Any]) -> None:
        """Writes each metric of each update."""
        for name, values in metrics.items():
            for i, value in enumerate(values.tolist()):
                self._writer.add_scalar(f"step/{name}", value, run.step - len(values) + 1 + i)

    def on_row(self, run: Run, row: Row) -> None:
        """Writes the row."""
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name.replace("_", "/", 1), value, run.step)

    def on_end(self, run: Run) -> None:
        """Closes the file."""
        del run
        if self._writer is not None:
            self._writer.close()
