"""Nested containers of numbers as JSON and back, without losing a type; arrays are put aside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxopt_core.interop.arrays import as_numpy, is_tensor

__all__ = ["from_plain", "to_plain"]


def to_plain(value: Any, where: str, arrays: list[np.ndarray[Any, Any]] | None = None) -> Any:
    """What ``json.dumps`` takes.

    Args:
      value: dicts, lists, tuples, numbers, strings, ``None`` and arrays.
      where: its place, for the message.
      arrays: gets the arrays; without it they are an error.

    Raises:
      ValueError: something else is in it; names the place.

    Example:
      >>> to_plain({"betas": (0.9, 0.999), 3: None}, "optimizer")
      {'dict': [['betas', {'tuple': [0.9, 0.999]}], [3, None]]}
    """
    if is_tensor(value) and arrays is not None:
        arrays.append(as_numpy(value))
        return {"array": len(arrays) - 1}
    if is_tensor(value) and np.ndim(value) == 0:
        return as_numpy(value).item()
    if isinstance(value, Mapping):
        pairs = [[to_plain(k, where), to_plain(v, f"{where}[{k!r}]", arrays)] for k, v in value.items()]
        return {"dict": pairs}
    if isinstance(value, tuple | list):
        items = [to_plain(each, f"{where}[{i}]", arrays) for i, each in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{where} is a {type(value).__name__}, which cannot be written: {value!r}.")


def from_plain(value: Any, arrays: list[np.ndarray[Any, Any]]) -> Any:
    """Undoes :func:`to_plain`.

    Example:
      >>> from_plain({"dict": [["betas", {"tuple": [0.9, 0.999]}], [3, None]]}, [])
      {'betas': (0.9, 0.999), 3: None}
    """
    if isinstance(value, list):
        return [from_plain(each, arrays) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return arrays[content]
    if kind == "tuple":
        return tuple(from_plain(each, arrays) for each in content)
    return {from_plain(key, arrays): from_plain(each, arrays) for key, each in content}
