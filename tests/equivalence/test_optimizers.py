"""Every row of the tables: PyTorch and we hold the same numbers after every step."""

import pytest

from tests.equivalence.cases import ARGUMENTS, BY_PATH, CHANGING, GRADIENTS, LAYOUT, PRECISION, SPARSE
from tests.equivalence.harness import check
from tests.thinning import first_of_each


@pytest.mark.parametrize("row", ARGUMENTS, ids=str)
def test_arguments(row):
    check(row)


@pytest.mark.parametrize(
    "row", first_of_each(GRADIENTS, lambda row: (row.optimizer, "missing" in row.gradients))
)
def test_gradients(row):
    check(row)


@pytest.mark.parametrize("row", first_of_each(CHANGING, lambda row: row.optimizer))
def test_changing_hyperparameters(row):
    check(row)


@pytest.mark.parametrize("row", first_of_each(BY_PATH, lambda row: row.optimizer))
def test_by_path(row):
    check(row)


@pytest.mark.parametrize("row", first_of_each(LAYOUT, lambda row: (row.optimizer, row.dtype, *row.arguments)))
def test_layout(row):
    check(row)


@pytest.mark.parametrize("row", first_of_each(PRECISION, lambda row: (row.optimizer, row.dtype == "float32")))
def test_precision(row):
    check(row)


@pytest.mark.parametrize("row", first_of_each(SPARSE, lambda row: (row.dtype, *row.arguments)))
def test_sparse(row):
    check(row)
