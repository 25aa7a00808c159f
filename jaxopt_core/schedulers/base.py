"""What every scheduler is: a function of the count, and PyTorch's bookkeeping for nesting it.

On its own a scheduler is its closed form, ``schedule(count)``. Inside ``sequential_lr`` and
``chained_scheduler`` PyTorch's schedulers all write into one parameter group, most of them by
multiplying the rate that they find. There a scheduler is asked for the four things that PyTorch does
with it, on a ``group`` that is a dict with PyTorch's keys: construct (``enter``), the first value
(``first``), restart at a milestone (``restart``) and an ordinary step (``step``).
"""

from __future__ import annotations

import dataclasses
import operator
from typing import Any

import jax
import numpy as np

from jaxopt_core.checks import require_non_negative
from jaxopt_core.schedulers.space import Space

__all__ = ["Absolute", "Factor", "Group", "Scheduler", "check_rate", "whole"]

Group = dict[str, Any]


class Scheduler:
    """Base of the schedulers; a frozen dataclass whose fields are the arguments."""

    name = ""
    has_base_rate = True  # PyTorch's would take it from the optimizer
    lr: Any

    def __repr__(self) -> str:
        fields = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self) if f.repr)  # type: ignore[arg-type]
        return f"{self.name}({', '.join(f'{name}={_shown(value)}' for name, value in fields)})"

    def enter(self, group: Group) -> None:
        """What PyTorch's constructor leaves in the parameter group."""
        group.setdefault("initial_lr", self.lr)

    def restarted(self) -> Scheduler:
        """The scheduler as it goes on after a restart."""
        return self

    def first(self, group: Group) -> Any:
        """The rate after PyTorch's constructor."""
        raise NotImplementedError

    def restart(self, group: Group) -> Any:
        """The rate after a restart at a milestone."""
        raise NotImplementedError

    def step(self, group: Group, epoch: Any, calls: Any) -> Any:
        """The rate after an ordinary step, which is the ``calls``-th and leads to ``epoch``."""
        raise NotImplementedError


class Absolute(Scheduler):
    """A scheduler that does not look at the rate it finds."""

    def at(self, count: Any, group: Group) -> Any:
        """The rate at ``count``, with what others have left in the group."""
        del group
        return self(count)  # type: ignore[operator]

    def first(self, group: Group) -> Any:
        """Its value at 0."""
        return self.at(0, group)

    def restart(self, group: Group) -> Any:
        """Its value at 0."""
        return self.at(0, group)

    def step(self, group: Group, epoch: Any, calls: Any) -> Any:
        """Its value at ``epoch``."""
        del calls
        return self.at(epoch, group)


class Factor(Scheduler):
    """A scheduler that multiplies the rate it finds, so that it is base rate times a factor."""

    def product(self, space: Space, count: Any) -> Any:
        """All ratios up to ``count``, multiplied."""
        raise NotImplementedError

    def ratio(self, space: Space, epoch: Any) -> Any:
        """What one step multiplies with."""
        raise NotImplementedError

    def __call__(self, count: Any) -> Any:
        """The rate at ``count``."""
        space = Space(count, self.lr)
        return space.done(space.real(self.lr) * self.product(space, space.count(count)))

    def first(self, group: Group) -> Any:
        """The rate found, times the factor at 0."""
        return dataclasses.replace(self, lr=group["lr"])(0)  # type: ignore[type-var]

    def restart(self, group: Group) -> Any:
        """The base rate, times the factor at 0."""
        del group
        return self.restarted()(0)  # type: ignore[operator]

    def step(self, group: Group, epoch: Any, calls: Any) -> Any:
        """The rate found, times a ratio."""
        del calls
        space = Space(group["lr"], epoch)
        return space.done(space.real(group["lr"]) * self.ratio(space, space.count(epoch)))


def check_rate(value: Any, name: str = "lr") -> None:
    """Raises unless ``value`` is a number of at least 0, or a scalar array."""
    is_number = isinstance(value, int | float | np.number | np.ndarray | jax.Array)
    if not is_number or np.ndim(value) or np.iscomplexobj(value):
        raise TypeError(f"{name} must be a number or a scalar array; got {value!r}.")
    require_non_negative(value, "Invalid learning rate: {}")


def whole(name: str, value: Any, least: int = 1) -> int:
    """``value`` as an int; raises unless it is a whole number of at least ``least``."""
    expected = "positive" if least == 1 else "non-negative"
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"Expected {expected} integer {name}, but got {value}") from None
    if number < least or isinstance(value, bool):
        raise ValueError(f"Expected {expected} integer {name}, but got {value}")
    return number


def _shown(value: Any) -> str:
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    return f"{value:.6g}" if isinstance(value, float | np.floating) else repr(value)
