"""What all losses share: reductions, shapes and the dtype of the arithmetic."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import jax
import jax.numpy as jnp

__all__ = [
    "Reduction",
    "broadcast",
    "broadcast_to_input",
    "broadcast_with_warning",
    "check_reduction",
    "reduce",
    "widen",
]

Reduction = Literal["none", "mean", "sum"]


def check_reduction(reduction: str, also: tuple[str, ...] = ()) -> None:
    """Raises unless ``reduction`` is one that the loss has."""
    known = ("none", "mean", "sum", *also)
    if reduction not in known:
        raise ValueError(f"{reduction} is not a valid value for reduction; expected one of {known}.")


def reduce(losses: jax.Array, reduction: str) -> jax.Array:
    """All losses, their mean or their sum."""
    check_reduction(reduction)
    return losses if reduction == "none" else losses.mean() if reduction == "mean" else losses.sum()


def widen(x: jax.Array) -> jax.Array:
    """Float16 and bfloat16 as float32, in which PyTorch's kernels compute too; others as they are."""
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 and jnp.issubdtype(x.dtype, jnp.floating) else x


def broadcast_with_warning(input: Any, target: Any) -> tuple[jax.Array, jax.Array]:
    """Both at their common shape, with PyTorch's warning if they had two."""
    input, target = jnp.asarray(input), jnp.asarray(target)
    if input.shape == target.shape:
        return input, target
    warnings.warn(
        f"Using a target size ({target.shape}) that is different to the input size ({input.shape}). "
        "This will likely lead to incorrect results due to broadcasting. "
        "Please ensure they have the same size.",
        stacklevel=3,
    )
    return broadcast(input, target)


def broadcast(input: Any, target: Any) -> tuple[jax.Array, jax.Array]:
    """Both at their common shape.

    Raises:
      ValueError: they have none.
    """
    input, target = jnp.asarray(input), jnp.asarray(target)
    try:
        shape = jnp.broadcast_shapes(input.shape, target.shape)
    except ValueError:
        raise ValueError(
            f"The size of input {input.shape} must match the size of target {target.shape}, "
            "or be broadcastable with it."
        ) from None
    return jnp.broadcast_to(input, shape), jnp.broadcast_to(target, shape)


def broadcast_to_input(name: str, value: Any, input: jax.Array) -> jax.Array:
    """A weight at the input's shape, in its dtype.

    Raises:
      ValueError: it does not broadcast to the input.
    """
    value = jnp.asarray(value)
    try:
        return jnp.broadcast_to(value, input.shape).astype(input.dtype)
    except ValueError:
        raise ValueError(
            f"The size of {name} {value.shape} must match the size of input {input.shape}, "
            "or be broadcastable to it."
        ) from None
