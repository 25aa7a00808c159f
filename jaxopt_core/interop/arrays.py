"""Tensors of a state dict as numpy arrays, whoever read them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

__all__ = ["as_numpy", "in_place_of", "is_tensor", "location", "number"]


def is_tensor(value: Any) -> bool:
    """Whether a value of a state dict is an array or a tensor."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def as_numpy(value: Any) -> np.ndarray[Any, Any]:
    """The numbers of an array, or of a torch tensor, which torch itself must have made."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    tensor = value.detach().cpu().resolve_conj().resolve_neg()
    if str(tensor.dtype) == "torch.bfloat16":  # numpy has no such type; float32 holds it exactly
        return np.asarray(tensor.float().numpy().astype(ml_dtypes.bfloat16))
    return np.asarray(tensor.numpy())


def location(value: Any) -> Any:
    """Equal for two tensors that are the same numbers in memory, as tied weights are; else ``None``."""
    if not isinstance(value, np.ndarray) and not hasattr(value, "detach"):
        return None
    array = as_numpy(value)
    if not array.size or (hasattr(value, "detach") and array.dtype == ml_dtypes.bfloat16):
        return (value.data_ptr(), tuple(value.shape), value.stride()) if array.size else None
    return array.__array_interface__["data"][0], array.shape, array.strides


def number(value: Any) -> Any:
    """A hyperparameter as Python has it, out of a number or a tensor of one."""
    if is_tensor(value) and np.size(as_numpy(value)) == 1:
        return as_numpy(value).item()
    if isinstance(value, tuple | list):
        return tuple(number(each) for each in value)
    return value


def in_place_of(old: Any, value: np.ndarray[Any, Any]) -> jax.Array:
    """A new array of the values, with dtype and place of ``old``, which may be a shape and a dtype only."""
    array = jnp.array(value, old.dtype, copy=True)
    wanted = old.committed if isinstance(old, jax.Array) else getattr(old, "sharding", None) is not None
    return jax.device_put(array, old.sharding) if wanted else array
