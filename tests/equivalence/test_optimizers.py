"""Every row of the tables: PyTorch and we hold the same numbers after every step."""

import pytest

from tests.equivalence.cases import ARGUMENTS, BY_PATH, CHANGING, GRADIENTS, LAYOUT, PRECISION, SPARSE
from tests.equivalence.harness import check

# Gradients that test the same thing.
KINDS = {
    "some missing": "missing",
    "first missing": "missing",
    "zero": "zero",
    "often zero": "zero",
    "huge": "size",
    "tiny": "size",
    "small": "size",
    "spread": "size",
}


def thinned(rows, key):
    """The first row of each kind; the others are slow, and show the same with other arguments."""
    first = {}
    for row in rows:
        first.setdefault(key(row), row)
    return [
        pytest.param(row, id=str(row), marks=[] if first[key(row)] is row else [pytest.mark.slow])
        for row in rows
    ]


@pytest.mark.parametrize("row", ARGUMENTS, ids=str)
def test_arguments(row):
    check(row)


@pytest.mark.parametrize("row", thinned(GRADIENTS, lambda row: row.optimizer))
def test_gradients(row):
    check(row)


@pytest.mark.parametrize("row", thinned(CHANGING, lambda row: row.optimizer))
def test_changing_hyperparameters(row):
    check(row)


@pytest.mark.parametrize("row", thinned(BY_PATH, lambda row: row.optimizer))
def test_by_path(row):
    check(row)


@pytest.mark.parametrize("row", thinned(LAYOUT, lambda row: (row.optimizer, row.dtype, *row.arguments)))
def test_layout(row):
    check(row)


@pytest.mark.parametrize("row", thinned(PRECISION, lambda row: row.optimizer))
def test_precision(row):
    check(row)


@pytest.mark.parametrize("row", thinned(SPARSE, lambda row: (row.dtype, *row.arguments)))
def test_sparse(row):
    check(row)
