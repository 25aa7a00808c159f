"""Who holds what, and how much a configuration would take: bytes per device."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import PartitionSpec

from jaxopt_core.parallel.parts import division, part_shape
from jaxopt_core.parallel.placement import flatten_shapes
from jaxopt_core.parallel.rules import Strategy, replicate, spec_of
from jaxopt_core.parallel.scope import Part
from jaxopt_core.tree import is_absent

__all__ = ["MemoryEstimate", "describe_sharding", "estimate_memory"]


class _Shape(NamedTuple):
    shape: dict[str, int]
    axis_names: tuple[str, ...]


class MemoryEstimate(NamedTuple):
    """Bytes per device of a configuration; printed, a table.

    Attributes:
      params: parameters that stay on a device.
      grads: gradients at the end of the backward pass.
      opt_state: the optimizer's state.
      gathered: parameters that are gathered for a step and freed after it, if all are there at once.
      size: number of parameters.
      devices: number of devices.
    """

    params: int
    grads: int
    opt_state: int
    gathered: int
    size: int
    devices: int

    @property
    def kept(self) -> int:
        """What is there between steps, parameters and optimizer state."""
        return self.params + self.opt_state

    @property
    def total(self) -> int:
        """What is there at the peak of a step, activations apart."""
        return self.params + self.grads + self.opt_state + self.gathered

    def __str__(self) -> str:
        lines = [
            f"{self.size:,} parameters on {self.devices} device{'s'[: self.devices > 1]}, bytes per device:"
        ]
        names = ("params", "grads", "opt_state", "gathered", "total")
        return "\n".join([*lines, *(f"  {name:<10} {_human(getattr(self, name)):>9}" for name in names)])


def estimate_memory(
    model: Any, optimizer: optax.GradientTransformation, mesh: Any, strategy: Strategy | None = None
) -> MemoryEstimate:
    """Predicts the bytes per device of a configuration, from shapes alone: nothing is allocated.

    Args:
      model: the parameters, a pytree of arrays or ``jax.ShapeDtypeStruct``; or a function without arguments
        that makes them, which is not run but evaluated in shapes.
      optimizer: as it will be used; its ``init`` is evaluated in shapes.
      mesh: the devices, or a dict of axis sizes (``{"data": 8, "fsdp": 64}``) of devices that are not there.
      strategy: default :func:`~jaxopt_core.parallel.replicate`.

    Returns:
      A :class:`MemoryEstimate`. Activations are not in it: they depend on batch, remat and compiler.

    Raises:
      ValueError: the mesh has none of the strategy's axes.

    Example:
      >>> import jax, jax.numpy as jnp, jaxopt_core as jo
      >>> from jaxopt_core.parallel import estimate_memory, zero1
      >>> params = {"kernel": jax.ShapeDtypeStruct((4096, 4096), jnp.float32)}
      >>> print(estimate_memory(params, jo.adamw(), {"data": 8}, zero1()))
      16,777,216 parameters on 8 devices, bytes per device:
        params      64.0 MiB
        grads       64.0 MiB
        opt_state   16.0 MiB
        gathered         0 B
        total      144.0 MiB
    """
    strategy = replicate() if strategy is None else strategy
    sizes = dict(mesh) if isinstance(mesh, dict) else dict(mesh.shape)
    where = _Shape(sizes, tuple(sizes))
    params = jax.eval_shape(model) if callable(model) else model
    leaves = flatten_shapes(params)
    present = [(p, x) for p, x in zip(leaves.paths, leaves.values, strict=True) if not is_absent(x)]
    parts = {
        path: Part(tuple(x.shape), *[spec_of(rule, path, tuple(x.shape), where) for rule in strategy])
        for path, x in present
    }

    def held(kind: str) -> int:
        return sum(_held(tuple(x.shape), x.dtype, getattr(parts[path], kind), where) for path, x in present)

    divided = [(path, x) for path, x in present if division(parts[path].params) is not None]
    like = leaves.unflatten(leaves.values)
    return MemoryEstimate(
        params=held("params"),
        grads=held("grads"),
        opt_state=_state_bytes(jax.eval_shape(optimizer.init, like), leaves, parts, where),
        gathered=sum(math.prod(x.shape) * x.dtype.itemsize for _, x in divided),
        size=sum(math.prod(x.shape) for _, x in present),
        devices=math.prod(sizes.values()),
    )


def describe_sharding(tree: Any) -> str:
    """A table of who holds what: every array's shape, how it is divided, and its bytes on a device.

    Args:
      tree: a pytree of arrays that are on devices.

    Returns:
      The table; arrays of one device or whole on all say ``whole``.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_core.parallel import describe_sharding
      >>> print(describe_sharding({"x": jnp.ones((8, 2))}))
      array  shape   dtype    devices  divided  bytes per device
      x      (8, 2)  float32  1        whole                64 B
      total                                                 64 B
    """
    rows = [["array", "shape", "dtype", "devices", "divided", "bytes per device"]]
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        shape = leaf.sharding.shard_shape(leaf.shape)
        size = math.prod(shape) * (leaf.nbytes // max(leaf.size, 1))
        total += size
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = getattr(leaf.sharding, "spec", PartitionSpec())
        how = "whole" if shape == leaf.shape else _in_words(spec, leaf.ndim)
        devices = str(len(leaf.sharding.device_set))
        rows.append([name, str(leaf.shape), str(leaf.dtype), devices, how, _human(size)])
    rows.append(["total", "", "", "", "", _human(total)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join([*(c.ljust(w) for c, w in zip(r, widths[:-1], strict=False)), r[-1].rjust(widths[-1])])
        for r in rows
    )
    return "\n".join(lines)


def _state_bytes(state: Any, leaves: Any, parts: dict[str, Part], where: Any) -> int:
    def is_like_params(node: Any) -> bool:
        structure: Any = jax.tree.structure(node, is_leaf=is_absent)
        return bool(structure == leaves.treedef)

    total = 0
    for node in jax.tree.leaves(state, is_leaf=is_like_params):
        if not is_like_params(node):
            total += math.prod(node.shape) * node.dtype.itemsize
            continue
        slots = jax.tree.leaves(node, is_leaf=is_absent)
        for path, slot in zip(leaves.paths, slots, strict=True):
            if is_absent(slot):
                continue
            part, shape = parts.get(path), tuple(slot.shape)
            spec = PartitionSpec()
            if part is not None and len(shape) == len(part.shape):
                axes = (*part.slots, *[None] * (len(shape) - len(part.slots)))
                kept = zip(axes, shape, part.shape, strict=True)
                spec = PartitionSpec(*[axis if n == m else None for axis, n, m in kept])
            total += _held(shape, slot.dtype, spec, where)
    return total


def _held(shape: tuple[int, ...], dtype: Any, spec: PartitionSpec, where: Any) -> int:
    return math.prod(part_shape(shape, spec, where)) * np.dtype(dtype).itemsize


def _in_words(spec: PartitionSpec, ndim: int) -> str:
    axes = (*spec, *[None] * (ndim - len(spec)))
    names = ["-" if a is None else repr(a) if isinstance(a, str) else " x ".join(map(repr, a)) for a in axes]
    return ", ".join(names)


def _human(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
