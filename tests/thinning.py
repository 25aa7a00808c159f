"""Which of many alike cases ``make test`` runs; ``make test-slow`` runs the others."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

__all__ = ["slow_unless"]


def slow_unless(keep: Callable[[Any], bool], rows: Iterable[Any]) -> list[Any]:
    """Rows for ``parametrize``, of which those are marked slow that ``keep`` is false for."""
    return [pytest.param(row, id=str(row), marks=[] if keep(row) else [pytest.mark.slow]) for row in rows]
