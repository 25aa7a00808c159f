"""Reductions over gradients whose leaves are parts of larger arrays, inside ``shard_map`` or ``pmap``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_core.groups import ByPath

__all__ = ["AxisName", "across_shards", "axes_of"]

AxisName = str | tuple[str, ...] | ByPath | None


def axes_of(axis_name: AxisName, path: str) -> tuple[str, ...]:
    """The mesh axes over which the leaf at ``path`` is sharded."""
    if isinstance(axis_name, ByPath):
        return axes_of(axis_name.choices()[axis_name.match(path)], path)
    if axis_name is None:
        return ()
    names: Iterable[str] = (axis_name,) if isinstance(axis_name, str) else axis_name
    return tuple(names)


def across_shards(
    values: Sequence[jax.Array],
    leaves: Sequence[jax.Array],
    axes: Sequence[tuple[str, ...]],
    reduce: Callable[[jax.Array, tuple[str, ...]], jax.Array],
) -> list[jax.Array]:
    """Reduces one scalar per leaf over the axes of that leaf, with one collective per set of axes.

    Args:
      values: scalars, one a leaf, of one dtype.
      leaves: what they were computed from.
      axes: mesh axes over which each leaf is sharded. Where JAX keeps track of what varies over an axis
        (``shard_map``'s default), a leaf that does not is left out: adding it up would count it once a
        device.
      reduce: ``jax.lax.psum``, ``pmax`` or ``pmin``.
    """
    reduced = list(values)
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, (leaf, names) in enumerate(zip(leaves, axes, strict=True)):
        if varying := tuple(name for name in names if _varies(leaf, name)):
            groups.setdefault(varying, []).append(i)
    for names, members in groups.items():
        together = reduce(jnp.stack([values[i] for i in members]), names)
        for place, i in enumerate(members):
            reduced[i] = together[place]
    return reduced


def _varies(leaf: jax.Array, axis: str) -> bool:
    # An index varies over its axis, so it tells whether JAX keeps track here.
    try:
        index = jax.lax.axis_index(axis)
    except NameError:
        raise ValueError(
            f"axis_name={axis!r} is no axis of a shard_map or pmap around this call. Arrays that are sharded "
            f"under jit alone need no axis_name."
        ) from None
    return axis in _varying(leaf) or axis not in _varying(index)


def _varying(x: jax.Array) -> frozenset[str]:
    """The axes over which JAX knows a value to vary; none where it keeps no track."""
    type_of: Any = jax.typeof(x)
    return type_of.manual_axis_type.varying if hasattr(type_of, "manual_axis_type") else type_of.vma
