"""Exact comparison of nested containers of arrays: types, dtypes, shapes and bits."""

from typing import Any

import numpy as np


def assert_same(left: Any, right: Any, path: str = "") -> None:
    assert type(left) is type(right), (path, type(left), type(right))
    if isinstance(left, np.ndarray):
        assert (left.dtype, left.shape) == (right.dtype, right.shape), path
        assert left.tobytes() == right.tobytes(), path
    elif isinstance(left, dict):
        assert list(left) == list(right), path
        for key, value in left.items():
            assert_same(value, right[key], f"{path}[{key!r}]")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), path
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same(one, other, f"{path}[{index}]")
    else:
        assert left == right or (left != left and right != right), (path, left, right)
