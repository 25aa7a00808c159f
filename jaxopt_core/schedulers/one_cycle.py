"""The 1cycle policy: one rise, one fall, and the momentum the other way."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from jaxopt_core.schedulers.base import Absolute, Group, check_rate, whole
from jaxopt_core.schedulers.cyclic import Cycle
from jaxopt_core.schedulers.space import Space

__all__ = ["one_cycle_lr"]


def one_cycle_lr(
    max_lr: Any,
    total_steps: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: Any = 0.3,
    anneal_strategy: str = "cos",
    cycle_momentum: bool = True,
    base_momentum: Any = 0.85,
    max_momentum: Any = 0.95,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Cycle:
    """One cycle of rate and momentum over the whole run, as ``OneCycleLR``.

    The rate goes from ``max_lr / div_factor`` to ``max_lr`` until ``pct_start * total_steps - 1``, and from
    there to ``max_lr / div_factor / final_div_factor`` at ``total_steps - 1``; the momentum from
    ``max_momentum`` to ``base_momentum`` and back. With ``three_phase`` the way down first mirrors the way
    up. Each phase is half a cosine or a line.

    Source: Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
    Rates", 2018.

    Args:
      max_lr: the highest rate.
      total_steps: number of steps. Or ``epochs`` and ``steps_per_epoch``, whose product it is.
      epochs: number of epochs.
      steps_per_epoch: steps in each.
      pct_start: fraction of the steps in which the rate rises, a float. Default 0.3.
      anneal_strategy: ``"cos"`` or ``"linear"``. Default ``"cos"``.
      cycle_momentum: cycle the momentum too. Default True.
      base_momentum: lowest momentum. Default 0.85.
      max_momentum: highest momentum. Default 0.95.
      div_factor: ``max_lr`` over the rate at the start. Default 25.
      final_div_factor: the rate at the start over that at the end. Default 1e4.
      three_phase: use a phase for each of rise, fall and annihilation. Default False.

    Returns:
      A :class:`Cycle` of two schedules, ``count -> value``. A count beyond ``total_steps`` raises
      ``ValueError``, in PyTorch's words, where the count is known. A compiled step cannot raise: there the
      rate stays at its lowest value, and the momentum at its highest, from then on.

    Raises:
      ValueError: in PyTorch's words; also where ``pct_start * total_steps`` is 1: the first phase has no
        length, and PyTorch divides by it.

    Example:
      >>> import jaxopt_core as jo
      >>> cycle = jo.schedulers.one_cycle_lr(1.0, total_steps=10)
      >>> [f"{cycle.lr(count):.3f}/{cycle.momentum(count):.2f}" for count in (0, 1, 2, 9)]
      ['0.040/0.95', '0.520/0.90', '1.000/0.85', '0.000/0.95']
      >>> tx = jo.sgd(lr=cycle.lr, momentum=cycle.momentum)
    """
    check_rate(max_lr, "max_lr")
    if total_steps is not None:
        steps = whole("total_steps", total_steps)
    elif epochs is not None and steps_per_epoch is not None:
        steps = whole("epochs", epochs) * whole("steps_per_epoch", steps_per_epoch)
    else:
        raise ValueError("You must define either total_steps OR (epochs AND steps_per_epoch)")
    if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
        raise ValueError(f"Expected float between 0 and 1 pct_start, but got {pct_start}")
    if anneal_strategy not in ("cos", "linear"):
        raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
    if not div_factor > 0 or not final_div_factor > 0:
        raise ValueError(
            f"Expected positive div_factor and final_div_factor, but got {div_factor} and {final_div_factor}"
        )
    if float(pct_start * steps) == 1:
        raise ValueError(
            f"pct_start * total_steps must not be 1: the first phase would end where it begins. Got "
            f"pct_start={pct_start} and total_steps={steps}; with pct_start=0.0 the run begins at max_lr."
        )
    phases = _Phases(steps, pct_start, anneal_strategy, three_phase)
    initial_lr = max_lr / div_factor
    momentum = None
    if cycle_momentum:
        check_rate(base_momentum, "base_momentum")
        check_rate(max_momentum, "max_momentum")
        momentum = _Momentum(max_momentum, base_momentum, phases)
    return Cycle(_Rate(max_lr, initial_lr, initial_lr / final_div_factor, phases, momentum), momentum)


@dataclasses.dataclass(frozen=True)
class _Phases:
    total_steps: int
    pct_start: float
    anneal_strategy: str
    three_phase: bool

    def ends(self) -> list[float]:
        rising = float(self.pct_start * self.total_steps)
        falling = [float(2 * self.pct_start * self.total_steps) - 2] if self.three_phase else []
        return [rising - 1, *falling, self.total_steps - 1]

    def along(self, count: Any, values: tuple[Any, ...]) -> Any:
        """The value at ``count`` on the way from each of ``values`` to the next."""
        space = Space(count, *values)
        k = self._checked(space, space.count(count))
        points = [space.real(value) for value in values]
        ends = self.ends()
        starts = [0.0, *ends[:-1]]
        result, later = None, None
        for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
            value = self._anneal(space, k, start, end, points[i], points[i + 1])
            result = value if result is None else space.xp.where(later, value, result)
            # Phases follow in this order even where a later one ends first.
            passed = k > (math.floor(end) if np.issubdtype(k.dtype, np.integer) else end)
            later = passed if later is None else later & passed
        return space.done(result)

    def _anneal(self, space: Space, count: Any, start: float, end: float, first: Any, last: Any) -> Any:
        done, left = space.minus(count, start), -space.minus(count, end)
        length = end - start
        if length == 0:
            return last
        if self.anneal_strategy == "linear":
            return first * (left / length) + last * (done / length)
        return first * space.wave(left, length) + last * space.wave(done, length)

    def _checked(self, space: Space, count: Any) -> Any:
        if isinstance(count, jax.core.Tracer):
            return space.xp.where(count > self.total_steps, self.total_steps - 1, count)
        if np.any(late := np.asarray(count) > self.total_steps):
            raise ValueError(
                f"Tried to step {np.asarray(count)[late].min()} times. The specified number of total steps "
                f"is {self.total_steps}"
            )
        return count


@dataclasses.dataclass(frozen=True, repr=False)
class _Rate(Absolute):
    max_lr: Any
    initial_lr: Any
    min_lr: Any
    phases: _Phases = dataclasses.field(repr=False)
    momentum: _Momentum | None = dataclasses.field(repr=False)
    name = "one_cycle_lr"
    has_base_rate = False

    @property
    def lr(self) -> Any:
        return self.initial_lr

    def __call__(self, count: Any) -> Any:
        return self.at(count, vars(self))

    def at(self, count: Any, group: Group) -> Any:
        back = (group["initial_lr"],) if self.phases.three_phase else ()
        points = (group["initial_lr"], group["max_lr"], *back, group["min_lr"])
        return self.phases.along(count, points)

    def enter(self, group: Group) -> None:
        group.update(initial_lr=self.initial_lr, max_lr=self.max_lr, min_lr=self.min_lr)
        if self.momentum is not None:
            self.momentum.enter(group)


@dataclasses.dataclass(frozen=True)
class _Momentum:
    max_momentum: Any
    base_momentum: Any
    phases: _Phases

    def __call__(self, count: Any) -> Any:
        return self.at(count, vars(self))

    def enter(self, group: Group) -> None:
        group.update(max_momentum=self.max_momentum, base_momentum=self.base_momentum)

    def at(self, count: Any, group: Group) -> Any:
        high, low = group["max_momentum"], group["base_momentum"]
        back = (high,) if self.phases.three_phase else ()
        return self.phases.along(count, (high, low, *back, high))
