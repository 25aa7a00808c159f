"""A mesh: devices with named axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

__all__ = ["BATCH_AXES", "batch_axes", "batch_sharding", "batch_shards", "mesh", "replicated_sharding"]

BATCH_AXES = ("data", "fsdp")
"""The axes over which a batch is divided, if the mesh has them."""


def mesh(
    data: int = -1,
    fsdp: int = 1,
    *,
    devices: Sequence[Any] | None = None,
    axis_type: AxisType = AxisType.Auto,
    **axes: int,
) -> Mesh:
    """Arranges devices along named axes.

    A batch is divided over ``data`` and ``fsdp`` together. Parameters are whole along ``data``; along
    ``fsdp`` the :func:`~jaxopt_core.parallel.fsdp` strategy divides them. So ``mesh()`` is PyTorch's DDP,
    ``mesh(data=1, fsdp=-1)`` its ``FULL_SHARD`` and ``mesh(data=2, fsdp=-1)`` its ``HYBRID_SHARD``.

    Args:
      data: devices along the first axis; -1 for all that the others leave. Default -1.
      fsdp: devices along the second; -1 as above. Default 1.
      devices: what to arrange. Default: all devices of all processes.
      axis_type: of every axis. ``Auto`` lets the compiler propagate shardings, which everything in this
        package is written for; ``jax.make_mesh`` alone makes ``Explicit`` ones. Default ``Auto``.
      **axes: more axes and their sizes, for example ``model=2``, behind these.

    Returns:
      A ``jax.sharding.Mesh`` with the axes ``data``, ``fsdp`` and those in ``axes``.

    Raises:
      ValueError: the sizes do not multiply to the number of devices, more than one is -1, or one is 0.

    Example:
      >>> import jax
      >>> from jaxopt_core.parallel import mesh
      >>> mesh().axis_names, mesh().size == len(jax.devices())
      (('data', 'fsdp'), True)
      >>> mesh(data=3, devices=jax.devices()[:1])
      Traceback (most recent call last):
      ...
      ValueError: 1 devices cannot be arranged as data=3, fsdp=1, which takes 3: ...
    """
    chosen = list(jax.devices() if devices is None else devices)
    sizes = {"data": data, "fsdp": fsdp, **axes}
    asked = ", ".join(f"{name}={size}" for name, size in sizes.items())
    free = [name for name, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise ValueError(f"Only one axis can take the remaining devices; got {asked}.")
    if bad := [name for name, size in sizes.items() if size != -1 and size < 1]:
        raise ValueError(f"The size of axis {bad[0]!r} must be at least 1, or -1 for the rest; got {asked}.")
    taken = math.prod(size for size in sizes.values() if size != -1)
    if free and len(chosen) % taken:
        raise ValueError(
            f"{len(chosen)} devices cannot be arranged as {asked}: {len(chosen)} is not divisible by {taken}."
        )
    if free:
        sizes[free[0]] = len(chosen) // taken
    elif taken != len(chosen):
        raise ValueError(
            f"{len(chosen)} devices cannot be arranged as {asked}, which takes {taken}: make the sizes "
            f"multiply to {len(chosen)}, put -1 for one of them, or choose devices=jax.devices()[:{taken}]."
        )
    types = (axis_type,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types, devices=chosen)


def batch_axes(mesh: Any) -> tuple[str, ...]:
    """The axes of a mesh over which a batch is divided: those of ``data`` and ``fsdp`` that it has.

    Raises:
      ValueError: it has neither.
    """
    axes = tuple(name for name in BATCH_AXES if name in mesh.axis_names)
    if not axes:
        raise ValueError(
            f"A batch is divided over the axes 'data' and 'fsdp'; the mesh has {', '.join(mesh.axis_names)}."
        )
    return axes


def batch_shards(mesh: Any) -> int:
    """Parts into which a batch is divided."""
    return math.prod(mesh.shape[name] for name in batch_axes(mesh))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of an array whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(batch_axes(mesh)))


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device has whole."""
    return NamedSharding(mesh, PartitionSpec())
