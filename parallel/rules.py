"""Which part of a parameter, its gradient and its slots a device holds: rules, and strategies of rules.

A rule says where an array lives. It is one of

- a ``PartitionSpec``, for every array alike;
- a function ``(path, shape, mesh) -> PartitionSpec``, such as :func:`shard` makes;
- :func:`~jaxopt_core.by_path` of rules, for different parameters.

A strategy is three rules. Source: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion
Parameter Models", 2020, section 5 (its stages 1, 2 and 3; PyTorch's FSDP is stage 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from jax.sharding import PartitionSpec

from jaxopt_core.groups import ByPath
from jaxopt_core.parallel.meshes import batch_axes

__all__ = ["Rule", "Strategy", "fsdp", "replicate", "shard", "spec_of", "zero1", "zero2"]

Rule = PartitionSpec | Callable[[str, tuple[int, ...], Any], PartitionSpec] | ByPath


class Strategy(NamedTuple):
    """Where parameters, gradients and the optimizer's slots live.

    Attributes:
      params: the rule of the parameters.
      grads: of their gradients.
      slots: of whatever in the optimizer's state is shaped like a parameter, averages included.
    """

    params: Rule
    grads: Rule
    slots: Rule


def shard(axis: str | tuple[str, ...] | None = None, *, min_size: int = 0) -> Rule:
    """Divides an array along the longest of its dimensions that the axis divides; or not at all.

    Args:
      axis: mesh axis, or several together. Default: ``data`` and ``fsdp`` together.
      min_size: arrays of fewer elements stay whole, because a collective costs more than they do.

    Returns:
      A rule. An array none of whose dimensions can be divided is whole on every device: the remainder.

    Example:
      >>> import jax
      >>> from jaxopt_core.parallel import shard
      >>> four = jax.sharding.AbstractMesh((4, 1), ("data", "fsdp"))
      >>> rule = shard("data")
      >>> rule("kernel", (3, 8), four), rule("bias", (3,), four)
      (P(None, 'data'), P())
    """

    def rule(path: str, shape: tuple[int, ...], mesh: Any) -> PartitionSpec:
        del path
        axes = batch_axes(mesh) if axis is None else (axis,) if isinstance(axis, str) else tuple(axis)
        if unknown := [name for name in axes if name not in mesh.axis_names]:
            raise ValueError(f"The mesh has no axis {unknown[0]!r}; it has {', '.join(mesh.axis_names)}.")
        axes = tuple(name for name in axes if mesh.shape[name] > 1)
        parts = math.prod(mesh.shape[name] for name in axes)
        divisible = [(n, -i) for i, n in enumerate(shape) if n and n % parts == 0]
        if parts == 1 or not divisible or math.prod(shape) < min_size:
            return PartitionSpec()
        place = -max(divisible)[1]
        return PartitionSpec(*[None] * place, axes if len(axes) > 1 else axes[0])

    return rule


def spec_of(rule: Rule, path: str, shape: tuple[int, ...], mesh: Any) -> PartitionSpec:
    """What a rule says about one parameter.

    Raises:
      TypeError: it is no rule.
    """
    if isinstance(rule, ByPath):
        return spec_of(rule.choices()[rule.match(path)], path, shape, mesh)
    if isinstance(rule, PartitionSpec):
        return rule
    if not callable(rule):
        raise TypeError(f"A rule is a PartitionSpec, a function or by_path of these; got {rule!r}.")
    return rule(path, shape, mesh)


def replicate() -> Strategy:
    """Everything whole on every device: PyTorch's DistributedDataParallel."""
    return Strategy(PartitionSpec(), PartitionSpec(), PartitionSpec())


def zero1(rule: Rule | None = None) -> Strategy:
    """Divides the optimizer's state: PyTorch's ``ZeroRedundancyOptimizer``.

    Args:
      rule: of the slots. Default :func:`shard` over all devices that share a batch.

    Example:
      See :func:`~jaxopt_core.parallel.data_parallel`.
    """
    return Strategy(PartitionSpec(), PartitionSpec(), shard() if rule is None else rule)


def zero2(rule: Rule | None = None) -> Strategy:
    """Divides the optimizer's state and the gradients: FSDP's ``SHARD_GRAD_OP`` with whole parameters.

    Args:
      rule: of slots and gradients. Default :func:`shard` over all devices that share a batch.
    """
    chosen = shard() if rule is None else rule
    return Strategy(PartitionSpec(), chosen, chosen)


def fsdp(rule: Rule | None = None) -> Strategy:
    """Divides parameters, gradients and the optimizer's state: PyTorch's FSDP.

    Args:
      rule: of all three. Default :func:`shard` over the axis ``fsdp``, or over ``data`` if the mesh has
        one device along ``fsdp``.
    """
    chosen = _shard_fsdp if rule is None else rule
    return Strategy(chosen, chosen, chosen)


def _shard_fsdp(path: str, shape: tuple[int, ...], mesh: Any) -> PartitionSpec:
    axis = "fsdp" if mesh.shape.get("fsdp", 1) > 1 else "data"
    return spec_of(shard(axis), path, shape, mesh)
