"""Cosine annealing, with and without warm restarts."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from jaxopt_core.schedulers.base import Absolute, Group, Scheduler, check_rate, whole
from jaxopt_core.schedulers.space import Space

__all__ = ["cosine_annealing_lr", "cosine_annealing_warm_restarts"]


def cosine_annealing_lr(lr: Any, T_max: Any, eta_min: Any = 0.0) -> Scheduler:
    """Anneals the rate along half a cosine, as ``CosineAnnealingLR``.

    ``eta_min + (lr - eta_min) * (1 + cos(pi * count / T_max)) / 2``: down to ``eta_min`` at ``T_max``, and up
    again after it, in periods of ``2 * T_max``.

    Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, equation 5,
    without the restarts.

    Args:
      lr: base rate, a number or a scalar array.
      T_max: counts from ``lr`` to ``eta_min``.
      eta_min: the lowest rate. Default 0.

    Returns:
      A schedule, ``count -> rate``; a fractional count is a fraction of an epoch.

    Raises:
      ValueError: ``T_max`` is not positive; a rate is negative.

    Differences from ``optax.cosine_decay_schedule``: that one stays at the end; in float32 its last values
    cancel, these do not.

    Example:
      >>> import jaxopt_core as jo
      >>> [f"{jo.schedulers.cosine_annealing_lr(1.0, 2)(count):.3f}" for count in range(5)]
      ['1.000', '0.500', '0.000', '0.500', '1.000']
    """
    check_rate(lr)
    check_rate(eta_min, "eta_min")
    if not isinstance(T_max, int | float | np.number) or not 0 < T_max < math.inf:
        raise ValueError(f"Expected positive T_max, but got {T_max}")
    return _Cosine(lr, int(T_max) if float(T_max).is_integer() else float(T_max), eta_min)


def cosine_annealing_warm_restarts(lr: Any, T_0: int, T_mult: Any = 1, eta_min: Any = 0.0) -> Scheduler:
    """Half cosines from ``lr`` to ``eta_min`` one after the other, as ``CosineAnnealingWarmRestarts``.

    The first takes ``T_0`` counts, each following one ``T_mult`` times as many.

    Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017.

    Args:
      lr: base rate, a number or a scalar array.
      T_0: counts until the first restart.
      T_mult: how much longer each cycle is than the one before. Default 1.
      eta_min: the lowest rate, never quite reached. Default 0.

    Returns:
      A schedule, ``count -> rate``. A fractional count is what PyTorch's
      ``scheduler.step(epoch + i / iters)`` sets; see ``per_epoch(..., fractional=True)``. Where a count given
      to PyTorch in this way is itself a restart, PyTorch's rounded logarithm can miss the restart (243 in
      powers of 3); here it cannot.

    Raises:
      ValueError: ``T_0`` is no positive integer, ``T_mult`` none of at least 1, ``eta_min`` no number; a rate
        is negative.

    Example:
      >>> import jaxopt_core as jo
      >>> schedule = jo.schedulers.cosine_annealing_warm_restarts(1.0, T_0=2, T_mult=2)
      >>> [f"{schedule(count):.3f}" for count in (0, 1, 2, 4, 6)]
      ['1.000', '0.500', '1.000', '0.500', '1.000']
    """
    check_rate(lr)
    whole("T_0", T_0)
    if not isinstance(T_mult, int) or T_mult < 1:
        raise ValueError(f"Expected integer T_mult >= 1, but got {T_mult}")
    if not isinstance(eta_min, int | float):
        raise ValueError(f"Expected float or int eta_min, but got {eta_min} of type {type(eta_min)}")
    check_rate(eta_min, "eta_min")
    return _WarmRestarts(lr, T_0, T_mult, eta_min)


@dataclasses.dataclass(frozen=True, repr=False)
class _Cosine(Scheduler):
    lr: Any
    T_max: float
    eta_min: Any
    name = "cosine_annealing_lr"

    def __call__(self, count: Any) -> Any:
        space = Space(count, self.lr, self.eta_min)
        low = space.real(self.eta_min)
        height = self._height(space, space.count(count))
        return space.done(low + (space.real(self.lr) - low) * height)

    def first(self, group: Group) -> Any:
        return group["lr"]

    def restart(self, group: Group) -> Any:
        del group
        return self(0)

    def step(self, group: Group, epoch: Any, calls: Any) -> Any:
        del calls
        space = Space(group["lr"], epoch, self.lr, self.eta_min)
        xp, lr, low = space.xp, space.real(group["lr"]), space.real(self.eta_min)
        epoch = space.count(epoch)
        # PyTorch divides by the height before, except one step after the lowest point, where it is 0.
        rises = space.modulo(epoch - 1, 2 * self.T_max)[1] == self.T_max
        height, before = self._height(space, epoch), self._height(space, epoch - 1)
        annealed = low + (lr - low) * height / xp.where(rises, 1, before)
        risen = lr + (space.real(self.lr) - low) * space.wave(1, self.T_max)
        return space.done(xp.where(rises, risen, annealed))

    def _height(self, space: Space, count: Any) -> Any:
        from_bottom = space.xp.abs(self.T_max - space.modulo(count, 2 * self.T_max)[1])
        return space.wave(from_bottom, self.T_max)


@dataclasses.dataclass(frozen=True, repr=False)
class _WarmRestarts(Absolute):
    lr: Any
    T_0: int
    T_mult: int
    eta_min: float
    name = "cosine_annealing_warm_restarts"

    def __call__(self, count: Any) -> Any:
        space = Space(count, self.lr)
        left, length = self._cycle(space, space.count(count))
        low = space.real(self.eta_min)
        return space.done(low + (space.real(self.lr) - low) * space.wave(left, length))

    def _cycle(self, space: Space, count: Any) -> tuple[Any, Any]:
        """Counts that are left in the cycle, and its length."""
        if self.T_mult == 1:
            return self.T_0 - count % self.T_0, self.T_0
        most = np.iinfo(count.dtype).max if np.issubdtype(count.dtype, np.integer) else 2**53
        starts = [0]
        while starts[-1] < most:
            starts.append(starts[-1] * self.T_mult + self.T_0)
        cycle = space.xp.searchsorted(space.table(starts, count), count, side="right") - 1
        cycle = space.xp.minimum(cycle, len(starts) - 2)
        length = space.real([self.T_0 * self.T_mult**i for i in range(len(starts) - 1)])[cycle]
        start, end = (space.table(table, count)[cycle] for table in (starts, starts[1:]))
        # The last cycle ends beyond the largest count.
        beyond = length - space.real(count - start)
        return space.xp.where(cycle == len(starts) - 2, beyond, space.real(end - count)), length
