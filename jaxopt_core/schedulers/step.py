"""Schedules that decay by a factor: now and then, at milestones, or at every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from jaxopt_core.schedulers.base import Factor, Scheduler, check_rate, whole
from jaxopt_core.schedulers.space import Space

__all__ = ["exponential_lr", "multi_step_lr", "step_lr"]


def step_lr(lr: Any, step_size: int, gamma: float = 0.1) -> Scheduler:
    """Decays the rate by ``gamma`` every ``step_size`` steps, as ``StepLR``.

    ``lr * gamma**floor(count / step_size)``

    Args:
      lr: base rate, a number or a scalar array.
      step_size: period of the decay, in counts.
      gamma: factor of each decay. Default 0.1.

    Returns:
      A schedule, ``count -> rate``.

    Raises:
      ValueError: ``lr`` is negative; ``step_size`` is no positive integer (PyTorch takes a fractional one,
        with a closed form that its steps do not follow).

    Example:
      >>> import jaxopt_core as jo
      >>> [round(float(jo.schedulers.step_lr(0.5, 2)(count)), 6) for count in range(5)]
      [0.5, 0.5, 0.05, 0.05, 0.005]
    """
    check_rate(lr)
    return _Step(lr, whole("step_size", step_size), gamma)


def multi_step_lr(lr: Any, milestones: Iterable[int], gamma: float = 0.1) -> Scheduler:
    """Decays the rate by ``gamma`` at each milestone, as ``MultiStepLR``.

    ``lr * gamma**(how many milestones are <= count)``

    Args:
      lr: base rate, a number or a scalar array.
      milestones: counts, in any order; one that is named twice decays twice.
      gamma: factor of each decay. Default 0.1.

    Returns:
      A schedule, ``count -> rate``.

    Raises:
      ValueError: ``lr`` is negative; a milestone is no integer of at least 0, which PyTorch would never
        reach.

    Example:
      >>> import jaxopt_core as jo
      >>> [round(float(jo.schedulers.multi_step_lr(0.5, [1, 3])(count)), 6) for count in range(4)]
      [0.5, 0.05, 0.05, 0.005]
    """
    check_rate(lr)
    return _MultiStep(lr, tuple(sorted(whole("milestone", each, 0) for each in milestones)), gamma)


def exponential_lr(lr: Any, gamma: float) -> Scheduler:
    """Decays the rate by ``gamma`` at every step, as ``ExponentialLR``: ``lr * gamma**count``.

    Args:
      lr: base rate, a number or a scalar array.
      gamma: factor of each decay.

    Returns:
      A schedule, ``count -> rate``.

    Raises:
      ValueError: ``lr`` is negative.

    Example:
      >>> import jaxopt_core as jo
      >>> [float(jo.schedulers.exponential_lr(1.0, 0.5)(count)) for count in range(4)]
      [1.0, 0.5, 0.25, 0.125]
    """
    check_rate(lr)
    return _Exponential(lr, gamma)


@dataclasses.dataclass(frozen=True, repr=False)
class _Step(Factor):
    lr: Any
    step_size: int
    gamma: float
    name = "step_lr"

    def product(self, space: Space, count: Any) -> Any:
        return space.power(self.gamma, count // self.step_size)

    def ratio(self, space: Space, epoch: Any) -> Any:
        decays = (epoch != 0) & (epoch % self.step_size == 0)
        return space.xp.where(decays, space.real(self.gamma), 1)


@dataclasses.dataclass(frozen=True, repr=False)
class _MultiStep(Factor):
    lr: Any
    milestones: tuple[int, ...]
    gamma: float
    name = "multi_step_lr"

    def product(self, space: Space, count: Any) -> Any:
        return space.power(self.gamma, self._passed(space, count, "right"))

    def ratio(self, space: Space, epoch: Any) -> Any:
        now = self._passed(space, epoch, "right") - self._passed(space, epoch, "left")
        return space.power(self.gamma, now)

    def _passed(self, space: Space, count: Any, side: str) -> Any:
        return space.xp.searchsorted(space.table(self.milestones, count), count, side=side)


@dataclasses.dataclass(frozen=True, repr=False)
class _Exponential(Factor):
    lr: Any
    gamma: float
    name = "exponential_lr"

    def product(self, space: Space, count: Any) -> Any:
        return space.power(self.gamma, count)

    def ratio(self, space: Space, epoch: Any) -> Any:
        del epoch
        return space.real(self.gamma)
