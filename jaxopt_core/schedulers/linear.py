"""Schedules that end after some steps: a constant, a line, a power of a line."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxopt_core.schedulers.base import Factor, Scheduler, check_rate, whole
from jaxopt_core.schedulers.space import Space

__all__ = ["constant_lr", "linear_lr", "polynomial_lr"]


def constant_lr(lr: Any, factor: float = 1.0 / 3, total_iters: int = 5) -> Scheduler:
    """``lr * factor`` for ``total_iters`` steps, then ``lr``, as ``ConstantLR``.

    Args:
      lr: base rate, a number or a scalar array.
      factor: of the first steps; with 1 the rate is ``lr`` throughout. Default 1/3.
      total_iters: number of these steps. With 0 the factor stays for ever, as in PyTorch (except where
        ``sequential_lr`` restarts it: there it is over at once). Default 5.

    Returns:
      A schedule, ``count -> rate``.

    Raises:
      ValueError: ``factor`` is not between 0 and 1, or is 0, by which PyTorch would divide when the first
        steps are over; ``total_iters`` is no integer of at least 0; ``lr`` is negative.

    Example:
      >>> import jaxopt_core as jo
      >>> [float(jo.schedulers.constant_lr(1.0, 0.5, total_iters=2)(count)) for count in range(4)]
      [0.5, 0.5, 1.0, 1.0]
    """
    check_rate(lr)
    if not 0 <= factor <= 1:
        raise ValueError("Constant multiplicative factor expected to be between 0 and 1.")
    if factor == 0:
        raise ValueError(
            "Constant multiplicative factor expected to be greater than 0: PyTorch leaves it by dividing by "
            "it. A rate of 0 for some steps is lambda_lr(lr, lambda count: count >= steps)."
        )
    return _Constant(lr, factor, whole("total_iters", total_iters, 0))


def linear_lr(
    lr: Any, start_factor: float = 1.0 / 3, end_factor: float = 1.0, total_iters: int = 5
) -> Scheduler:
    """Along a line from ``lr * start_factor`` to ``lr * end_factor``, as ``LinearLR``.

    ``lr * (start_factor + (end_factor - start_factor) * min(count, total_iters) / total_iters)``

    Args:
      lr: base rate, a number or a scalar array.
      start_factor: at count 0. Default 1/3.
      end_factor: from count ``total_iters`` on. Default 1.
      total_iters: number of steps of the line. With 0 the start stays for ever, as in PyTorch. Default 5.

    Returns:
      A schedule, ``count -> rate``.

    Raises:
      ValueError: a factor is not between 0 and 1, or ``start_factor`` is 0; ``total_iters`` is no integer
        of at least 0; ``lr`` is negative.

    Example:
      >>> import jaxopt_core as jo
      >>> [float(jo.schedulers.linear_lr(1.0, 0.5, total_iters=2)(count)) for count in range(4)]
      [0.5, 0.75, 1.0, 1.0]
    """
    check_rate(lr)
    if not 0 < start_factor <= 1:
        raise ValueError(
            "Starting multiplicative factor expected to be greater than 0 and less or equal to 1."
        )
    if not 0 <= end_factor <= 1:
        raise ValueError("Ending multiplicative factor expected to be between 0 and 1.")
    return _Linear(lr, start_factor, end_factor, whole("total_iters", total_iters, 0))


def polynomial_lr(lr: Any, total_iters: int = 5, power: float = 1.0) -> Scheduler:
    """Decays the rate to 0, as ``PolynomialLR``: ``lr * (1 - min(count, total_iters) / total_iters)**power``.

    Args:
      lr: base rate, a number or a scalar array.
      total_iters: count from which on the rate is 0. With 0 there is no decay, as in PyTorch. Default 5.
      power: exponent; 1 is a line. Default 1.

    Returns:
      A schedule, ``count -> rate``.

    Raises:
      ValueError: ``total_iters`` is no integer of at least 0; ``lr`` is negative.

    Example:
      >>> import jaxopt_core as jo
      >>> [float(jo.schedulers.polynomial_lr(1.0, 2, power=2)(count)) for count in range(4)]
      [1.0, 0.25, 0.0, 0.0]
    """
    check_rate(lr)
    return _Polynomial(lr, whole("total_iters", total_iters, 0), power)


@dataclasses.dataclass(frozen=True, repr=False)
class _Constant(Factor):
    lr: Any
    factor: float
    total_iters: int
    name = "constant_lr"

    def restarted(self) -> Scheduler:
        return self if self.total_iters else dataclasses.replace(self, factor=1.0)

    def product(self, space: Space, count: Any) -> Any:
        over = (count >= self.total_iters) & (self.total_iters > 0)
        return space.xp.where(over, 1, space.real(self.factor))

    def ratio(self, space: Space, epoch: Any) -> Any:
        factor = space.real(self.factor)
        return space.xp.where(epoch == 0, factor, space.xp.where(epoch == self.total_iters, 1 / factor, 1))


@dataclasses.dataclass(frozen=True, repr=False)
class _Linear(Factor):
    lr: Any
    start_factor: float
    end_factor: float
    total_iters: int
    name = "linear_lr"

    def restarted(self) -> Scheduler:
        return _require_some(self, self.total_iters)

    def product(self, space: Space, count: Any) -> Any:
        if not self.total_iters:
            return space.xp.full(count.shape, self.start_factor, space.dtype)
        return self._sum(space, space.xp.minimum(count, self.total_iters)) / self.total_iters

    def ratio(self, space: Space, epoch: Any) -> Any:
        inside = (epoch > 0) & (epoch <= self.total_iters)
        now = space.xp.where(inside, epoch, 1)
        ratio = self._sum(space, now) / self._sum(space, now - 1) if self.total_iters else 1
        return space.xp.where(epoch == 0, space.real(self.start_factor), space.xp.where(inside, ratio, 1))

    def _sum(self, space: Space, done: Any) -> Any:
        # Both terms are positive: a line that falls to 0 keeps its last digits.
        left = space.real(self.total_iters - done)
        return left * self.start_factor + space.real(done) * self.end_factor


@dataclasses.dataclass(frozen=True, repr=False)
class _Polynomial(Factor):
    lr: Any
    total_iters: int
    power: float
    name = "polynomial_lr"

    def restarted(self) -> Scheduler:
        return _require_some(self, self.total_iters)

    def product(self, space: Space, count: Any) -> Any:
        if not self.total_iters:
            return space.xp.ones(count.shape, space.dtype)
        left = self.total_iters - space.xp.minimum(count, self.total_iters)
        return (space.real(left) / self.total_iters) ** self.power

    def ratio(self, space: Space, epoch: Any) -> Any:
        left = self.total_iters - space.xp.minimum(epoch, self.total_iters)
        ratio = (space.real(left) / space.real(left + 1)) ** self.power
        return space.xp.where(epoch > self.total_iters, 1, ratio)


def _require_some(scheduler: Scheduler, total_iters: int) -> Scheduler:
    if not total_iters:
        raise ValueError(f"{scheduler} cannot be restarted at a milestone: PyTorch divides by total_iters.")
    return scheduler
