"""Regular expressions that tell paths apart, for ``by_path``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

__all__ = ["exactly", "some", "telling"]


def exactly(paths: Iterable[str]) -> str:
    """The pattern of these paths and no others.

    Example:
      >>> exactly(["fc/kernel", "head/kernel"])
      '^(fc/kernel|head/kernel)$'
    """
    return "^(" + "|".join(re.escape(path).replace("\\-", "-") for path in paths) + ")$"


def some(paths: Sequence[str]) -> str:
    """The first few of many, for a message.

    Example:
      >>> some(["a", "b", "c", "d", "e"])
      "'a', 'b', 'c' and 2 more"
    """
    return ", ".join(map(repr, paths[:3])) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def telling(paths: Sequence[str], others: Sequence[str]) -> str:
    """A pattern that finds all of ``paths`` and none of ``others``; a short one if there is one.

    Example:
      >>> telling(["a/bias", "b/bias", "b/scale"], ["a/kernel", "b/kernel"])
      '(^|/)(bias|scale)$'
      >>> telling(["head/kernel", "head/bias"], ["body/kernel", "body/bias"])
      '^(head)(/|$)'
      >>> telling(["a/kernel", "b/bias"], ["a/bias", "b/kernel"])
      '^(a/kernel|b/bias)$'
    """
    last = _by(paths, others, lambda path: path.rsplit("/", 1)[-1])
    if last is not None:
        return f"(^|/)({last})$"
    first = _by(paths, others, lambda path: path.split("/", 1)[0])
    if first is not None:
        return f"^({first})(/|$)"
    return exactly(paths)


def _by(paths: Sequence[str], others: Sequence[str], key: Callable[[str], str]) -> str | None:
    mine = dict.fromkeys(map(key, paths))
    return None if set(mine) & set(map(key, others)) else "|".join(map(re.escape, mine))
