"""What is wrong with what a user asked for, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["UsageError", "choose"]


class UsageError(Exception):
    """What was asked for cannot be done; the message is one line: the value, expected, found."""


def choose(flag: str, found: str, valid: Iterable[str]) -> str:
    """``found``, if it is one of the valid names.

    Raises:
      UsageError: it is none; lists them, and the nearest.

    Example:
      >>> choose("--which", "lats", ["best", "last"])
      Traceback (most recent call last):
      ...
      jaxopt_core.cli.errors.UsageError: --which: there is no 'lats'; there are best, last; nearest: last
    """
    names = list(valid)
    if found in names:
        return found
    near = difflib.get_close_matches(found.lower(), names, n=1, cutoff=0.5)
    nearest = f"; nearest: {near[0]}" if near else ""
    raise UsageError(f"{flag}: there is no {found!r}; there are {', '.join(names)}{nearest}")
