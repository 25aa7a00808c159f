"""The functions by which a pickle makes tensors, as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxopt_core.interop._dtypes import DTYPES
from jaxopt_core.interop._machine import Call, Function
from jaxopt_core.interop._refusals import malformed
from jaxopt_core.interop._tensors import Storage, Storages
from jaxopt_core.interop.errors import Budget


class TensorType:
    """``torch.Tensor`` or a subclass that adds no data: all become numpy arrays."""


def calls(storages: Storages, budget: Budget) -> dict[str, Call]:
    """Names -> functions that check their arguments; ``requires_grad`` and hooks are left out."""

    def tensor(arguments: tuple[Any, ...]) -> np.ndarray:
        match arguments:
            case (
                Storage(dtype=np.dtype() as dtype) as storage,
                int() as offset,
                tuple() as shape,
                tuple() as strides,
                *rest,
            ):
                array = storages.view(storage, dtype, offset, shape, strides)
            case _:
                raise malformed("torch._utils._rebuild_tensor_v2")
        match rest:
            case [] | [_, _] | [_, _, None]:  # requires_grad and hooks
                return array
            case [_, _, metadata]:
                return storages.resolve(array, metadata)
        raise malformed("torch._utils._rebuild_tensor_v2")

    def typed(arguments: tuple[Any, ...]) -> np.ndarray:
        match arguments:
            case (
                Storage() as storage,
                int() as offset,
                tuple() as shape,
                tuple() as strides,
                _,
                _,
                np.dtype() as dtype,
                *rest,
            ) if dtype in DTYPES.values():
                array = storages.view(storage, dtype, offset, shape, strides)
            case _:
                raise malformed("torch._utils._rebuild_tensor_v3")
        match rest:
            case [] | [None]:
                return array
            case [metadata]:
                return storages.resolve(array, metadata)
        raise malformed("torch._utils._rebuild_tensor_v3")

    def parameter(arguments: tuple[Any, ...]) -> np.ndarray:
        match arguments:
            case (np.ndarray() as array, *rest) if len(rest) in (2, 3):  # requires_grad, hooks, attributes
                return array
        raise malformed("torch._utils._rebuild_parameter")

    def subclass(arguments: tuple[Any, ...]) -> Any:
        match arguments:
            case (Function(name=name) as function, kind, tuple() as values, _) if (
                kind is TensorType and name in known
            ):
                return function.call(values)
        raise malformed("torch._tensor._rebuild_from_type_v2")

    def moved(arguments: tuple[Any, ...]) -> np.ndarray:
        match arguments:
            case (np.ndarray() as array, np.dtype() as dtype, str(), _) if dtype in DTYPES.values():
                if array.dtype == dtype:
                    return array
                if array.dtype.kind != "c":
                    budget.charge(array.size * dtype.itemsize)
                    with np.errstate(all="ignore"):
                        return array.astype(dtype)
        raise malformed("torch._utils._rebuild_device_tensor_from_numpy")

    known = {
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_tensor_v3": typed,
        "torch._utils._rebuild_parameter": parameter,
        "torch._utils._rebuild_parameter_with_state": parameter,
        # Tensors of other devices (XLA, for one) come as CPU tensors or numpy arrays with a dtype.
        "torch._utils._rebuild_device_tensor_from_cpu_tensor": moved,
        "torch._utils._rebuild_device_tensor_from_numpy": moved,
    }
    # The module's name changed in PyTorch 1.9.
    return known | dict.fromkeys(
        (f"torch.{m}._rebuild_from_type_v2" for m in ("_tensor", "tensor")), subclass
    )
