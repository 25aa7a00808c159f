"""Many configurations in one compiled program."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax

from jaxopt_core.tuning.programs import How
from jaxopt_core.tuning.space import Config
from jaxopt_core.tuning.stage import Stage
from jaxopt_core.tuning.trainable import Trainable, in_one_part
from jaxopt_core.tuning.trials import Direction, Trial, pick_best

__all__ = ["Sweep", "sweep"]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What came of a sweep.

    Attributes:
      trials: in the order of the configurations.
      programs: how many programs were compiled.
      compile_seconds: what that took.
      seconds: what everything took.
    """

    trials: list[Trial]
    programs: int
    compile_seconds: float
    seconds: float

    def best(self, metric: str = "value", direction: Direction = "minimize") -> Trial:
        """The trial with the best finite metric; see :class:`~jaxopt_core.tuning.TrialsFailedError`."""
        return pick_best(self.trials, metric, direction)


def sweep(
    train: Trainable | Callable[..., Any],
    configs: Sequence[Config],
    *,
    args: tuple[Any, ...] = (),
    how: How = "auto",
    traced: Collection[str] = ("seed",),
    devices: Sequence[jax.Device] | None = None,
    memory: int | None = None,
) -> Sweep:
    """Trains with every configuration; configurations of one structure share one compiled program.

    Real numbers in a configuration are arguments of the program. Everything else - strings, flags, whole
    numbers, tuples, which names there are - is compiled in, and may decide what is computed. Trials whose
    values of these are equal form a group, and each group compiles once.

    Args:
      train: a :class:`Trainable`, or a pure function ``(config, *args) -> metrics``, a dict of arrays or one
        array, which is then the metric ``"value"``.
      configs: name -> value, one dict for each trial.
      args: of the function, the same for every trial: the data. A ``Trainable`` has its own.
      how: ``"map"`` trains in turn, ``"vmap"`` side by side. Default ``"auto"``: in turn on CPUs, side by
        side elsewhere.
      traced: names of whole numbers that do not decide the program. Default ``("seed",)``.
      devices: to spread the trials over. Default: all of this process.
      memory: bytes on one device; side by side, as many trials run at a time as fit. Default: most of what
        is free.

    Returns:
      A :class:`Sweep`. A trial whose structure cannot be compiled or run is there as failed, with the reason.

    Raises:
      ValueError: there is no configuration, or an argument is out of range.
      TypeError: a value that decides the program cannot be hashed.

    Example:
      >>> import jax.numpy as jnp
      >>> def distance(config):
      ...     power = 2 if config["kind"] == "square" else 4
      ...     return (config["x"] - 1.0) ** power
      >>> kinds = "square", "quartic"
      >>> result = sweep(distance, [{"x": x, "kind": kind} for x in (0.0, 0.5, 3.0) for kind in kinds])
      >>> [round(trial.metrics["value"], 4) for trial in result.trials], result.programs
      ([1.0, 1.0, 0.25, 0.0625, 4.0, 16.0], 2)
      >>> result.best().config
      {'x': 0.5, 'kind': 'quartic'}
    """
    if not configs:
        raise ValueError("configs: expected at least one, got none")
    start = time.perf_counter()
    trainable = train if isinstance(train, Trainable) else in_one_part(train, args)
    stage = Stage(trainable, how=how, traced=traced, devices=devices, memory=memory)
    trials = [Trial(number, dict(config)) for number, config in enumerate(configs)]
    stage.start(trials)
    for _ in range(trainable.parts):
        stage.advance()
    for trial in trials:
        if trial.status == "running":
            trial.status = "complete"
    return Sweep(trials, stage.programs, stage.compile_seconds, time.perf_counter() - start)
