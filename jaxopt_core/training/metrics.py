"""Metrics of a run as rows of a CSV file."""

import csv
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class EpochMetrics(NamedTuple):
    """One epoch; the fields are the columns of the CSV file.

    Attributes:
        epoch: from 1.
        step: updates made since the start.
        lr: learning rate of the epoch's last update.
        train_loss: mean over the epoch's batches, while the parameters were changing; nats.
        train_accuracy: the same for the accuracy, from 0 to 1.
        test_loss: over the test images, at the end of the epoch; nats.
        test_accuracy: from 0 to 1.
        seconds: time for the epoch's updates, without the test. The first includes compilation.
        images_per_second: training images over ``seconds``.
    """

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float
    images_per_second: float


def write_metrics(path: str | os.PathLike[str], epochs: Iterable[EpochMetrics]) -> None:
    """Writes a header and one line per epoch; floats so that they read back exactly."""
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(EpochMetrics._fields)
        writer.writerows(epochs)


def read_metrics(path: str | os.PathLike[str]) -> list[EpochMetrics]:
    """Reads what :func:`write_metrics` wrote.

    Raises:
        ValueError: the columns are not those of :class:`EpochMetrics`.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "metrics.csv"
        >>> row = EpochMetrics(1, 22, 1e-3, 0.9, 0.7, 0.4, 0.9, 0.5, 2816.0)
        >>> write_metrics(path, [row])
        >>> read_metrics(path) == [row]
        True
    """
    types = EpochMetrics.__annotations__.values()
    with Path(path).open(newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if tuple(header) != EpochMetrics._fields:
        raise ValueError(f"{path}: expected columns {EpochMetrics._fields}, found {tuple(header)}")
    return [EpochMetrics(*(kind(text) for kind, text in zip(types, row, strict=True))) for row in rows]
