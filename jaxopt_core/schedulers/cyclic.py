"""Cyclical learning rates, with the momentum going the other way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxopt_core.schedulers.base import Absolute, Group, check_rate
from jaxopt_core.schedulers.space import Space, elementwise

__all__ = ["Cycle", "cyclic_lr"]


@dataclasses.dataclass(frozen=True)
class Cycle:
    """Two schedules that belong together.

    Attributes:
      lr: schedule of the rate.
      momentum: schedule of the momentum, for ``sgd(momentum=...)`` or ``adam(betas=(..., 0.999))``; ``None``
        if it does not cycle.
    """

    lr: Any
    momentum: Any

    def __repr__(self) -> str:
        return f"{self.lr!r}, which is a Cycle: pass its .lr and its .momentum"


def cyclic_lr(
    base_lr: Any,
    max_lr: Any,
    step_size_up: float = 2000,
    step_size_down: float | None = None,
    mode: str = "triangular",
    gamma: float = 1.0,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: str = "cycle",
    cycle_momentum: bool = True,
    base_momentum: Any = 0.8,
    max_momentum: Any = 0.9,
) -> Cycle:
    """Cycles between two rates along straight lines, as ``CyclicLR``.

    With ``h`` rising from 0 to 1 in ``step_size_up`` counts and falling in ``step_size_down``, again and
    again, the rate is ``base_lr + (max_lr - base_lr) * h * s`` and the momentum
    ``max_momentum - (max_momentum - base_momentum) * h * s``. ``s`` is 1 (``"triangular"``), halved after
    every cycle (``"triangular2"``), or ``gamma**count`` (``"exp_range"``).

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks", 2017.

    Args:
      base_lr: lower rate.
      max_lr: upper rate.
      step_size_up: counts of the rising half. Default 2000.
      step_size_down: counts of the falling half. Default ``step_size_up``.
      mode: ``"triangular"``, ``"triangular2"`` or ``"exp_range"``; of no effect with ``scale_fn``.
      gamma: of ``"exp_range"``. Default 1.
      scale_fn: a function in place of ``s``, in JAX's operations.
      scale_mode: whether ``scale_fn`` is given the number of the cycle, from 1 (``"cycle"``), or the count
        (``"iterations"``). Default ``"cycle"``.
      cycle_momentum: cycle the momentum too. Default True.
      base_momentum: lower momentum. Default 0.8.
      max_momentum: upper momentum, where a cycle begins. Default 0.9.

    Returns:
      A :class:`Cycle` of two schedules, ``count -> value``.

    Raises:
      ValueError: ``mode`` is unknown and there is no ``scale_fn``; a step size is not positive; a rate or a
        momentum is negative.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> cycle = jo.schedulers.cyclic_lr(0.1, 0.5, step_size_up=2)
      >>> [f"{cycle.lr(count):.1f}/{cycle.momentum(count):.2f}" for count in range(4)]
      ['0.1/0.90', '0.3/0.85', '0.5/0.80', '0.3/0.85']
      >>> tx = jo.adam(lr=cycle.lr, betas=(cycle.momentum, 0.999))
    """
    check_rate(base_lr, "base_lr")
    check_rate(max_lr, "max_lr")
    up = _int(step_size_up)
    down = up if step_size_down is None else _int(step_size_down)
    if not up > 0 or not down > 0:
        raise ValueError(f"Expected positive step_size_up and step_size_down, but got {up:g} and {down:g}")
    if scale_fn is None and mode not in ("triangular", "triangular2", "exp_range"):
        raise ValueError("mode is invalid and scale_fn is None")
    if scale_fn is None:
        scale_mode = "iterations" if mode == "exp_range" else "cycle"
    shape = _Triangle(up, down, mode, gamma, scale_fn, scale_mode)
    momentum = None
    if cycle_momentum:
        check_rate(base_momentum, "base_momentum")
        check_rate(max_momentum, "max_momentum")
        momentum = _Momentum(max_momentum, base_momentum, shape)
    return Cycle(_Rate(base_lr, max_lr, shape, momentum), momentum)


def _int(size: float) -> float:
    return int(size) if float(size).is_integer() else size


@dataclasses.dataclass(frozen=True)
class _Triangle:
    step_size_up: float
    step_size_down: float
    mode: str
    gamma: float
    scale_fn: Callable[[Any], Any] | None
    scale_mode: str

    def between(self, count: Any, start: Any, top: Any) -> Any:
        """From ``start`` towards ``top`` and back."""
        up, down = self.step_size_up, self.step_size_down
        total = _int(up + down)
        scale: Any = 1.0
        if self.scale_fn is not None:
            space = Space(count)
            k = space.count(count)
            # PyTorch hands over a whole number of cycles, and the count as it is.
            x = space.done(space.modulo(k, total)[0] + 1 if self.scale_mode == "cycle" else k)
            scale = elementwise(self.scale_fn, x)
        space = Space(count, start, top, scale)
        k, start, top = space.count(count), space.real(start), space.real(top)
        cycles, at = space.modulo(k, total)
        if self.scale_fn is None and self.mode != "triangular":
            halving = self.mode == "triangular2"
            scale = space.power(0.5, cycles) if halving else space.power(self.gamma, k)
        above = space.real(at) - up if not isinstance(up, int) else space.real(at - up)
        rise = space.xp.where(above <= 0, space.real(at) / up, space.real(total - at) / down)
        fall = space.xp.where(above <= 0, -above / up, above / down)
        scale = space.real(scale)
        return space.done(start * (1 - scale) + scale * (start * fall + top * rise))


@dataclasses.dataclass(frozen=True, repr=False)
class _Rate(Absolute):
    base_lr: Any
    max_lr: Any
    shape: _Triangle = dataclasses.field(repr=False)
    momentum: _Momentum | None = dataclasses.field(repr=False)
    name = "cyclic_lr"
    has_base_rate = False

    @property
    def lr(self) -> Any:
        return self.base_lr

    def __call__(self, count: Any) -> Any:
        return self.shape.between(count, self.base_lr, self.max_lr)

    def enter(self, group: Group) -> None:
        group["lr"] = self.base_lr
        super().enter(group)
        if self.momentum is not None:
            self.momentum.enter(group)


@dataclasses.dataclass(frozen=True)
class _Momentum:
    max_momentum: Any
    base_momentum: Any
    shape: _Triangle

    def __call__(self, count: Any) -> Any:
        return self.shape.between(count, self.max_momentum, self.base_momentum)

    def enter(self, group: Group) -> None:
        group.update(max_momentum=self.max_momentum, base_momentum=self.base_momentum)

    def at(self, count: Any, group: Group) -> Any:
        # CyclicLR remembers its own momenta; OneCycleLR reads the group's.
        del group
        return self(count)
