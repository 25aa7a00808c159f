"""``jaxopt-core convert`` and ``jaxopt-core port``: PyTorch's checkpoints on the command line."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxopt_core.cli.errors import UsageError

__all__ = ["Convert", "Port", "convert", "port"]


@dataclasses.dataclass(frozen=True)
class Convert:
    """Turn a PyTorch training checkpoint into an Orbax checkpoint, or back.

    For example: jaxopt-core convert checkpoint.pt converted/

    And back: jaxopt-core convert converted/ checkpoint.pt

    The folder holds arrays/ (Orbax: params, rest, opt_state) and conversion.json, everything else; in Python
    jaxopt_core.interop.load_converted reads it. Parameters keep PyTorch's names and layout.
    """

    source: Path
    """The .pt file, or the folder."""

    target: Path
    """The new folder, or the .pt file to write."""

    optimizer: str | None = None
    """Class of the optimizer in torch.optim, where the checkpoint does not tell: AdamW."""


@dataclasses.dataclass(frozen=True)
class Port:
    """Print the Python that constructs here what a PyTorch checkpoint was trained with.

    For example: jaxopt-core port checkpoint.pt
    """

    checkpoint: Path
    """The .pt file: a training checkpoint, or an optimizer's state dict alone."""

    optimizer: str | None = None
    """Class of the optimizer in torch.optim, where the checkpoint does not tell: AdamW."""

    scheduler: str | None = None
    """Class of the scheduler in torch.optim.lr_scheduler, where its state does not tell: LambdaLR."""


def convert(options: Convert) -> None:
    """Converts, and prints what went where.

    Raises:
      UsageError: a file cannot be read or written, or something in it cannot be converted.
    """
    from jaxopt_core.interop import convert_from_torch, convert_to_torch

    try:
        if options.source.is_dir():
            lines = convert_to_torch(options.source, options.target)
        else:
            lines = convert_from_torch(options.source, options.target, optimizer=options.optimizer)
    except (ValueError, OSError) as error:
        raise UsageError(f"{options.source}: {_one_line(error)}") from error
    rows = [("entry", "what", "tensors", "bytes", "to")]
    rows += [
        (each.key or "(all)", each.what, f"{each.tensors}", f"{each.bytes:,}", each.where) for each in lines
    ]
    sys.stdout.write(f"{_table(rows)}\nwrote {options.target}\n")


def port(options: Port) -> None:
    """Prints the lines.

    Raises:
      UsageError: the file cannot be read, or holds no optimizer, or not one class fits.
    """
    from jaxopt_core import interop

    try:
        content = interop.load(options.checkpoint)
        sys.stdout.write(interop.port(*_described(content, options)) + "\n")
    except (ValueError, OSError) as error:
        raise UsageError(f"{options.checkpoint}: {_one_line(error)}") from error


def _described(content: Any, options: Port) -> tuple[Any, str | None, Any, str | None]:
    if not isinstance(content, Mapping):
        raise ValueError(f"expected a dict, found a {type(content).__name__}")
    entries = [content, *(value for value in content.values() if isinstance(value, Mapping))]
    optimizers = [value for value in entries if {"state", "param_groups"} <= value.keys()]
    schedulers = [value for value in entries if "last_epoch" in value]
    if len(optimizers) != 1 or len(schedulers) > 1:
        raise ValueError(
            f"expected one optimizer's state dict and at most one scheduler's, found {len(optimizers)} and "
            f"{len(schedulers)} in {', '.join(map(repr, content))}"
        )
    return optimizers[0], options.optimizer, schedulers[0] if schedulers else None, options.scheduler


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = (2, 3)
    return "\n".join(
        "  ".join(
            cell.rjust(w) if i in numbers else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
