"""Which of many alike cases ``make test`` runs; ``make test-slow`` runs the others."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

__all__ = ["first_of_each", "slow_unless"]


def slow_unless(keep: Callable[[Any], bool], rows: Iterable[Any]) -> list[Any]:
    """Rows for ``parametrize``, of which those are marked slow that ``keep`` is false for."""
    return [pytest.param(row, id=str(row), marks=[] if keep(row) else [pytest.mark.slow]) for row in rows]


def first_of_each(rows: Iterable[Any], key: Callable[[Any], Any]) -> list[Any]:
    """Likewise of each kind, which ``key`` tells, the first row."""
    rows = list(rows)
    first = {key(row): row for row in reversed(rows)}
    return slow_unless(lambda row: first[key(row)] is row, rows)
