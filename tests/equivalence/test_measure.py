"""The yardstick itself."""

import numpy as np
import pytest

from tests import oracle
from tests.equivalence import measure, trees


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["Adam", "AdamW", "Adagrad"])
def test_wide_is_what_fused_kernels_do_in_half_precision(name, dtype):
    params = trees.parameters("real", dtype)
    grads = trees.flat_gradients("normal", params, dtype, 50)
    arguments = dict(lr=0.05, weight_decay=0.1)
    runs = {v: oracle.run(name, params, grads, arguments, variant=v) for v in ("wide", "fused")}
    ulp = {"bfloat16": 2.0**-7, "float16": 2.0**-10}[dtype]
    assert max(floor.max() for floor in measure.noise(runs, params, "wide").values()) <= ulp


def test_foreach_and_loop_of_asgd_differ_by_float32():
    """What makes PyTorch's float64 no reference for itself: eta is float32 in both, and computed apart."""
    params = trees.parameters("real", "float64")
    grads = trees.flat_gradients("normal", params, "float64", 20)
    runs = {v: oracle.run("ASGD", params, grads, dict(lambd=0.1), variant=v) for v in ("loop", "foreach")}
    assert 1e-9 < measure.noise(runs, params)["params"][-1] < 1e-6


def test_errors_are_relative_to_the_largest_an_element_has_been():
    expected = [np.array([4.0, 1.0]), np.array([1e-9, 1.0]), None]
    actual = [np.array([4.0, 1.0]), np.array([4e-9, 1.5]), None]
    np.testing.assert_allclose(measure.relative_errors(actual, expected), [0, 0.5, 0])
    np.testing.assert_allclose(measure.relative_errors(actual, expected, np.array([0.0, 5.0])), [0, 0.1, 0])


def test_both_parts_of_a_complex_number_count():
    errors = measure.relative_errors([np.array([1e3 + 2j])], [np.array([1e3 + 1j])])
    assert errors == [1.0]


@pytest.mark.parametrize(
    ("actual", "expected", "error"),
    [
        (np.nan, np.nan, 0),
        (np.inf, np.inf, 0),
        (np.inf, np.nan, np.inf),
        (1.0, np.nan, np.inf),
        (np.nan, 1.0, np.inf),
        (1e-320, 0.0, 0),  # subnormal: flushed to zero by XLA
        (1e-200, 0.0, np.inf),
    ],
)
def test_special_values(actual, expected, error):
    assert measure.relative_errors([np.array([actual])], [np.array([expected])]) == [error]
