"""Models by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

__all__ = ["named"]

T = TypeVar("T")


def named(kind: str, name: str, table: Mapping[str, T]) -> T:
    """The entry of a table.

    Raises:
      ValueError: there is none; lists the names, and the nearest.

    Example:
      >>> named("model", "resnet81", {"mlp": 1, "resnet18": 2})
      Traceback (most recent call last):
      ...
      ValueError: --model: there is no 'resnet81'; there are mlp, resnet18; nearest: resnet18
    """
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name.lower(), table, n=1, cutoff=0.5)
    nearest = f"; nearest: {near[0]}" if near else ""
    raise ValueError(f"--{kind}: there is no {name!r}; there are {', '.join(table)}{nearest}")
