"""Schedulers made of schedulers: one after the other, and all at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import optax

from jaxopt_core.schedulers._composed import Composition, composed, rate_of
from jaxopt_core.schedulers.base import Scheduler, whole
from jaxopt_core.schedulers.cyclic import Cycle
from jaxopt_core.schedulers.plateau import is_plateau

__all__ = ["chained_scheduler", "sequential_lr"]


def sequential_lr(schedulers: Sequence[Any], milestones: Sequence[int]) -> Any:
    """One scheduler after the other, as ``SequentialLR``.

    The first runs until ``milestones[0]``; there the second starts anew from its count 0, and so on.

    Args:
      schedulers: schedulers of this package, at least one; or any functions ``count -> rate``, such as
        Optax's schedules, each of which is asked for the counts from 0.
      milestones: the counts at which the next begins, one fewer than schedulers, in order.

    Returns:
      A schedule, ``count -> rate``, where that says everything; otherwise a stateful schedule, which needs
      the rate before (a later ``multiplicative_lr``, for one). With a ``cyclic_lr`` or ``one_cycle_lr`` among
      the schedulers, a :class:`Cycle` of the rate and the momentum.

    Raises:
      ValueError: in PyTorch's words; milestones are not whole, not in order or negative.
      NotImplementedError: a later scheduler is itself a ``sequential_lr`` or ``chained_scheduler``: PyTorch
        fails at its milestone.

    What PyTorch does, and so does this:

    - ``multiplicative_lr`` and ``swa_lr`` go on from the rate that they find at their milestone; all others
      restart from their own base rate.
    - A ``sequential_lr`` as the first scheduler is one step ahead of its own milestones, and what is inside a
      ``chained_scheduler`` or ``sequential_lr`` there has made one step too many.
    - With a ``one_cycle_lr`` anywhere in it, the sequence starts from that one's initial rate, and two of
      them share the rates, and two ``swa_lr`` the final rate, of the last one.

    Where PyTorch's schedulers all take the optimizer's rate, each has a base rate of its own here.

    Example:
      >>> import jaxopt_core as jo
      >>> s = jo.schedulers
      >>> schedule = s.sequential_lr(
      ...     [s.linear_lr(1.0, 0.5, total_iters=2), s.cosine_annealing_lr(1.0, 4)], milestones=[2])
      >>> [f"{schedule(count):.2f}" for count in range(7)]
      ['0.50', '0.75', '1.00', '0.85', '0.50', '0.15', '0.00']
    """
    name, schedulers = "SequentialLR", tuple(schedulers)
    if not schedulers:
        raise ValueError(f"{name} expects at least one scheduler, but got no scheduler.")
    _check_children(name, schedulers)
    if len(milestones) != len(schedulers) - 1:
        raise ValueError(
            "Sequential Schedulers expects number of schedulers provided to be one more than the number of "
            f"milestone points, but got number of schedulers {len(schedulers)} and the number of milestones "
            f"to be equal to {len(milestones)}"
        )
    points = tuple(whole("milestone", each, 0) for each in milestones)
    if list(points) != sorted(points):
        raise ValueError(f"Expected milestones in order, but got {list(milestones)}")
    for child, start in zip(schedulers[1:], points, strict=True):
        if isinstance(rate_of(child), Composition) and start:
            raise NotImplementedError(
                f"PyTorch cannot restart a {rate_of(child).name} inside {name} at a milestone. Put its "
                f"schedulers into the outer list instead."
            )
    return composed(Composition("sequential_lr", schedulers, points))


def chained_scheduler(schedulers: Sequence[Any]) -> Any:
    """All schedulers at every step, each changing the rate it finds, as ``ChainedScheduler``.

    Most schedulers multiply the rate, so that their factors multiply. ``cosine_annealing_lr`` moves it
    towards ``eta_min``, ``swa_lr`` towards ``swa_lr``; ``lambda_lr``, ``cosine_annealing_warm_restarts``,
    ``cyclic_lr``, ``one_cycle_lr`` and functions of the count overwrite it.

    Args:
      schedulers: as for :func:`sequential_lr`. The rate starts at the base rate of the first, and all
        that have a base rate must have the same.

    Returns:
      A schedule, ``count -> rate``, where all schedulers only multiply; otherwise a stateful schedule, which
      goes from rate to rate as PyTorch does, at float32's rounding error for every step. With a
      ``cyclic_lr`` or ``one_cycle_lr`` in it, a :class:`Cycle` of the rate and the momentum.

    Raises:
      ValueError: in PyTorch's words; base rates differ.

    Example:
      >>> import jaxopt_core as jo
      >>> s = jo.schedulers
      >>> schedule = s.chained_scheduler([s.constant_lr(1.0, 0.5, 2), s.exponential_lr(1.0, 0.5)])
      >>> [float(schedule(count)) for count in range(4)]
      [0.5, 0.25, 0.25, 0.125]
    """
    name, schedulers = "ChainedScheduler", tuple(schedulers)
    if not schedulers:
        raise ValueError(f"{name} expects at least one scheduler to be chained, but got no scheduler.")
    _check_children(name, schedulers)
    composition = Composition("chained_scheduler", schedulers, None)
    _check_base_rates(composition)
    return composed(composition)


def _check_children(name: str, schedulers: Sequence[Any]) -> None:
    for i, scheduler in enumerate(schedulers):
        if is_plateau(scheduler):
            raise ValueError(
                f"{name} does not support `ReduceLROnPlateau` scheduler as it requires additional kwargs "
                f"to be specified when calling `step`, but got one at index {i} in the given schedulers "
                f"sequence."
            )
        is_ours = isinstance(scheduler, Scheduler | Cycle | Composition)
        if not is_ours and (
            not callable(scheduler) or isinstance(scheduler, optax.schedules.StatefulSchedule)
        ):
            raise TypeError(
                f"{name} at index {i} should be a scheduler or a function of the count, but got {scheduler!r}"
            )


def _check_base_rates(composition: Composition) -> None:
    sharing = [leaf.scheduler for leaf in composition.node().leaves() if leaf.scheduler.has_base_rate]
    rates = [scheduler.lr for scheduler in sharing if isinstance(scheduler.lr, int | float | np.number)]
    if any(rate != rates[0] for rate in rates):
        raise ValueError(
            f"ChainedScheduler expects all schedulers to have the same base rate, but got "
            f"{', '.join(f'{rate:g}' for rate in rates)}."
        )
