"""One device's part of an array, and the whole of it, inside of ``shard_map``."""

from __future__ import annotations

import math
from typing import Any

import jax
from jax import lax
from jax.sharding import PartitionSpec

__all__ = ["division", "gathered_leaf", "part_shape", "sliced_leaf"]


def division(spec: PartitionSpec) -> tuple[int, tuple[str, ...]] | None:
    """The dimension along which an array is divided, and over which axes; None if it is whole.

    Raises:
      ValueError: it is divided along several dimensions, which only the global view supports.
    """
    found = [(i, (axes,) if isinstance(axes, str) else tuple(axes)) for i, axes in enumerate(spec) if axes]
    if len(found) > 1:
        raise ValueError(
            f"{spec} divides an array along {len(found)} dimensions; a step that communicates itself "
            f"supports one. Use data_parallel, where the compiler communicates."
        )
    return found[0] if found else None


def part_shape(shape: tuple[int, ...], spec: PartitionSpec, mesh: Any) -> tuple[int, ...]:
    """The shape of one device's part."""
    where = division(spec)
    if where is None:
        return shape
    dimension, axes = where
    parts = math.prod(mesh.shape[axis] for axis in axes)
    return (*shape[:dimension], shape[dimension] // parts, *shape[dimension + 1 :])


def gathered_leaf(part: jax.Array, spec: PartitionSpec) -> jax.Array:
    """The whole of an array: an all-gather, whose transpose is a reduce-scatter."""
    where = division(spec)
    if where is None:
        return part
    dimension, axes = where
    return lax.all_gather(part, axes, axis=dimension, tiled=True)


def sliced_leaf(whole: jax.Array, spec: PartitionSpec) -> jax.Array:
    """This device's part of an array."""
    where = division(spec)
    if where is None:
        return whole
    dimension, axes = where
    size = whole.shape[dimension] // lax.axis_size(axes)
    return lax.dynamic_slice_in_dim(whole, lax.axis_index(axes) * size, size, dimension)
