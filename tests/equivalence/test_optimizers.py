"""Every row of the tables: PyTorch and we hold the same numbers after every step."""

import pytest

from tests.equivalence.cases import ARGUMENTS, BY_PATH, CHANGING, GRADIENTS, LAYOUT, PRECISION, SPARSE
from tests.equivalence.harness import check


@pytest.mark.parametrize("row", ARGUMENTS, ids=str)
def test_arguments(row):
    check(row)


@pytest.mark.parametrize("row", GRADIENTS, ids=str)
def test_gradients(row):
    check(row)


@pytest.mark.parametrize("row", CHANGING, ids=str)
def test_changing_hyperparameters(row):
    check(row)


@pytest.mark.parametrize("row", BY_PATH, ids=str)
def test_by_path(row):
    check(row)


@pytest.mark.parametrize("row", LAYOUT, ids=str)
def test_layout(row):
    check(row)


@pytest.mark.parametrize("row", PRECISION, ids=str)
def test_precision(row):
    check(row)


@pytest.mark.parametrize("row", SPARSE, ids=str)
def test_sparse(row):
    check(row)
