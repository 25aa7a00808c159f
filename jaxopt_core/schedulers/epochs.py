"""Schedules that are stepped once an epoch."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_core.schedulers.base import whole
from jaxopt_core.schedulers.cyclic import Cycle
from jaxopt_core.schedulers.plateau import is_plateau
from jaxopt_core.schedulers.space import Space

__all__ = ["per_epoch"]


def per_epoch(schedule: Any, steps_per_epoch: int, *, fractional: bool = False) -> Any:
    """Steps a schedule once an epoch, as ``scheduler.step()`` outside of PyTorch's inner loop.

    Args:
      schedule: a schedule of this package, a :class:`Cycle`, or any function ``count -> value``. A stateful
        one is updated at the end of each epoch.
      steps_per_epoch: updates in an epoch.
      fractional: hand over fractions of an epoch, as ``scheduler.step(epoch + i / steps_per_epoch)`` does
        with warm restarts; for schedules without memory. Default False.

    Returns:
      The same of the count of updates.

    Raises:
      ValueError: ``steps_per_epoch`` is no positive integer; a plateau, which has ``per_epoch=True`` of its
        own, is given; or a stateful schedule with ``fractional``.

    Example:
      >>> import jaxopt_core as jo
      >>> schedule = jo.schedulers.per_epoch(jo.schedulers.step_lr(1.0, 1), steps_per_epoch=3)
      >>> [round(float(schedule(count)), 6) for count in range(5)]
      [1.0, 1.0, 1.0, 0.1, 0.1]
    """
    steps = whole("steps_per_epoch", steps_per_epoch)
    if isinstance(schedule, Cycle):
        momentum = schedule.momentum
        return Cycle(
            per_epoch(schedule.lr, steps, fractional=fractional),
            momentum and per_epoch(momentum, steps, fractional=fractional),
        )
    if is_plateau(schedule):
        raise ValueError(
            "A plateau needs an epoch's metric, not an epoch's number: construct it with "
            "reduce_lr_on_plateau(..., per_epoch=True) and call step_schedules(opt_state, value)."
        )
    if isinstance(schedule, optax.schedules.StatefulSchedule):
        if fractional:
            raise ValueError(f"{schedule!r} goes from step to step and has no values between them.")
        return _StatefulPerEpoch(schedule, steps)
    if not callable(schedule):
        raise TypeError(f"per_epoch expects a schedule; got {schedule!r}.")
    return _PerEpoch(schedule, steps, fractional)


@dataclasses.dataclass(frozen=True)
class _PerEpoch:
    schedule: Any
    steps_per_epoch: int
    fractional: bool

    def __call__(self, count: Any) -> Any:
        space = Space(count)
        k, steps = space.count(count), self.steps_per_epoch
        return self.schedule(space.done(space.real(k) / steps if self.fractional else k // steps))

    def __repr__(self) -> str:
        return f"per_epoch({self.schedule!r}, {self.steps_per_epoch})"


class _EpochState(NamedTuple):
    count: jax.Array  # type: ignore[assignment]  # not tuple.count
    state: Any


@dataclasses.dataclass(frozen=True)
class _StatefulPerEpoch:
    schedule: Any
    steps_per_epoch: int

    def init(self) -> _EpochState:
        return _EpochState(jnp.zeros([], jnp.int32), self.schedule.init())

    def update(self, state: _EpochState, **extra: Any) -> _EpochState:
        count = optax.safe_increment(state.count)
        ends = count % self.steps_per_epoch == 0
        new = self.schedule.update(state.state, **extra)
        return _EpochState(count, jax.tree.map(lambda n, o: jnp.where(ends, n, o), new, state.state))

    def __call__(self, state: _EpochState, **extra: Any) -> Any:
        return self.schedule(state.state, **extra)

    def __repr__(self) -> str:
        return f"per_epoch({self.schedule!r}, {self.steps_per_epoch})"
