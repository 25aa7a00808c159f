"""A schedule from beginning to end, as an array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from jaxopt_core.schedulers._composed import Composition
from jaxopt_core.schedulers.base import Scheduler, whole
from jaxopt_core.schedulers.plateau import is_plateau

__all__ = ["evaluate"]


def evaluate(schedule: Any, steps: int, values: Sequence[float] | None = None) -> NDArray[np.float64]:
    """The values of a schedule at the counts from 0 to ``steps - 1``.

    Args:
      schedule: any schedule, stateful or not; of a :class:`Cycle`, its ``.lr`` or ``.momentum``.
      steps: how many values.
      values: the metric after each step, for :func:`reduce_lr_on_plateau`; at least ``steps - 1`` of them.

    Returns:
      Array ``(steps,)``. Schedules of this package that need no memory are computed in float64.

    Raises:
      ValueError: ``steps`` is no positive integer; a plateau is given without ``values`` or with too few.

    Example:
      >>> import jaxopt_core as jo
      >>> plateau = jo.schedulers.reduce_lr_on_plateau(1.0, factor=0.5, patience=0)
      >>> jo.schedulers.evaluate(plateau, 4, values=[3.0, 3.0, 2.0]).tolist()
      [1.0, 1.0, 0.5, 0.5]
    """
    steps = whole("steps", steps)
    if isinstance(schedule, optax.schedules.StatefulSchedule):
        return _by_steps(schedule, steps, values)
    if not callable(schedule):
        raise TypeError(f"evaluate expects a schedule; got {schedule!r}.")
    takes_numpy = isinstance(schedule, Scheduler | Composition)
    counts = np.arange(steps)
    batched = jax.jit(jax.vmap(lambda count: jnp.asarray(schedule(count))))
    return np.asarray(schedule(counts) if takes_numpy else batched(counts), np.float64)


def _by_steps(schedule: Any, steps: int, values: Sequence[float] | None) -> NDArray[np.float64]:
    extras: dict[str, Any] = {}
    if is_plateau(schedule):
        if values is None or len(values) < steps - 1:
            raise ValueError(
                f"What a plateau does depends on its metric: give values=[...], at least {steps - 1} of them."
            )
        schedule = schedule.each_step()
        extras["value"] = jnp.asarray([*values[: steps - 1], 0.0], jnp.result_type(float))

    def step(state: Any, extra: dict[str, jax.Array]) -> tuple[Any, Any]:
        return schedule.update(state, **extra), jnp.asarray(schedule(state))

    state = jax.tree.map(jnp.asarray, schedule.init())
    return np.asarray(jax.lax.scan(step, state, extras, length=steps)[1], np.float64)
