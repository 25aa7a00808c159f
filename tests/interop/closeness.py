"""Whether two state dicts are the same, to the bit or nearly."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["assert_close", "assert_same"]


def flat(value: Any, at: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, each in value.items() for k, v in flat(each, f"{at}/{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, each in enumerate(value) for k, v in flat(each, f"{at}/{i}").items()}
    return {at: value}


def assert_same(ours: Any, theirs: Any) -> None:
    """Bit by bit, types of Python and dtypes included."""
    ours, theirs = flat(ours), flat(theirs)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert type(ours[key]) is type(value), key
        if isinstance(value, np.ndarray):
            assert (ours[key].dtype, ours[key].shape) == (value.dtype, value.shape), key
            assert ours[key].tobytes() == value.tobytes(), key
        else:
            assert ours[key] == value, key


def assert_close(ours: Any, theirs: Any, tolerance: float) -> None:
    ours, theirs = flat(ours), flat(theirs)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        if isinstance(value, np.ndarray | float):
            assert np.asarray(ours[key]).dtype == np.asarray(value).dtype, key
            np.testing.assert_allclose(ours[key], value, rtol=tolerance, atol=tolerance, err_msg=key)
        else:
            assert ours[key] == value, key
