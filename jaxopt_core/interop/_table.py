"""The names that a checkpoint may use, and what stands here for each."""

from __future__ import annotations

from typing import Any

import ml_dtypes

from jaxopt_core.interop import _containers, _numpy_names, _tensor_names
from jaxopt_core.interop._dtypes import DTYPES, STORAGES
from jaxopt_core.interop._machine import Call, Function
from jaxopt_core.interop._tensor_names import TensorType
from jaxopt_core.interop._tensors import Storages, StorageType
from jaxopt_core.interop.errors import RESAVE, Budget, Fault


def build_table(storages: Storages, budget: Budget) -> dict[str, Any]:
    """Every name that is known: values, and functions that take and return plain values only."""
    table: dict[str, Any] = {f"torch.{name}": dtype for name, dtype in DTYPES.items()}
    table |= {f"torch.{name}": StorageType(dtype) for name, dtype in STORAGES.items()}
    table |= dict.fromkeys(
        ("torch.storage.UntypedStorage", "torch.storage._UntypedStorage"), StorageType(None)
    )
    table |= dict.fromkeys(
        ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"), TensorType
    )
    calls = _containers.calls(budget) | _tensor_names.calls(storages, budget) | _numpy_names.calls(budget)
    table |= {name: Function(name, call) for name, call in calls.items()}
    # As arguments of other names; they cannot be called.
    table |= {"numpy.ndarray": _numpy_names.Array}
    for name in ("dict", "list", "int", "float"):
        table[f"builtins.{name}"] = Function(f"builtins.{name}", _unused(name))
    for name, dtype in DTYPES.items():
        if hasattr(ml_dtypes, name):
            table[f"ml_dtypes.{name}"] = dtype
    return table


def _unused(name: str) -> Call:
    def call(arguments: tuple[Any, ...]) -> Any:
        del arguments
        raise Fault(f"refused to call builtins.{name}", RESAVE)

    return call
