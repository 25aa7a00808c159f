"""Trials on the device: started, advanced together, and dropped one by one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_core.tuning.memory import default_memory
from jaxopt_core.tuning.programs import How, Lifted, choose_how, collector_paused, count_lanes
from jaxopt_core.tuning.space import Config
from jaxopt_core.tuning.structure import Group, group
from jaxopt_core.tuning.trainable import Trainable, in_one_part
from jaxopt_core.tuning.trials import Trial

__all__ = ["Stage"]

_FIRST = "first part"  # beside the numbers of a trial: whether it has yet to begin


class Stage:
    """Runs batches of trials, with one program for each structure of configurations.

    Args:
      trainable: what is trained.
      how, devices, memory, traced: as for :func:`~jaxopt_core.tuning.sweep`.
      capacity: most trials of one structure at a time.
    """

    def __init__(
        self,
        trainable: Trainable,
        *,
        how: How = "auto",
        devices: Sequence[jax.Device] | None = None,
        memory: int | None = None,
        traced: Collection[str] = ("seed",),
        capacity: int | None = None,
    ) -> None:
        self.trainable, self.traced, self.capacity = _without_state(trainable), traced, capacity
        self.devices = list(devices) if devices is not None else jax.local_devices()
        if not self.devices:
            raise ValueError("devices: expected at least one, got none")
        self.how = choose_how(how, self.devices[0])
        self.memory = default_memory(self.devices[0]) if memory is None else memory
        self._programs: dict[Any, Lifted] = {}
        self._groups: list[tuple[Group, list[int], dict[str, Any]]] = []
        self._states: dict[int, Any] = {}
        self._trials: list[Trial] = []

    @property
    def programs(self) -> int:
        """How many programs were compiled so far."""
        return sum(lifted.programs for lifted in self._programs.values())

    @property
    def compile_seconds(self) -> float:
        """How long that took."""
        return sum(lifted.compile_seconds for lifted in self._programs.values())

    def start(self, trials: Sequence[Trial]) -> None:
        """Takes trials in the place of those before; they begin with the next :meth:`advance`."""
        self._trials, self._states = list(trials), {}
        self._groups = []
        for each in group([trial.config for trial in trials], self.traced):
            count, room = len(each.members), self._room(len(each.members))
            lanes = self._lanes(room)
            per_lane = -(-room // lanes)
            # Dealt like cards, so that every lane has a part of a batch that is not full.
            slots = [t % lanes * per_lane + t // lanes for t in range(count)]
            numbers = each.stack([trial.config for trial in trials])
            members = np.zeros(per_lane * lanes, int)
            members[slots] = np.arange(count)
            numbers = {name: values[members] for name, values in numbers.items()}
            numbers[_FIRST] = np.ones(len(members), bool)
            self._groups.append((each, slots, numbers))

    def advance(self) -> None:
        """Trains every running trial for one part, and notes its metrics or its failure."""
        for index, (each, slots, _) in enumerate(self._groups):
            members = [(self._trials[i], slot) for i, slot in zip(each.members, slots, strict=True)]
            running = [(trial, slot) for trial, slot in members if trial.status == "running"]
            if not running:
                self._states.pop(index, None)
                continue
            try:
                metrics = self._run(index, [slot for _, slot in running])
            except Exception as error:  # noqa: BLE001  # a trial's code may raise anything, and ends alone
                for trial, _ in running:
                    trial.fail(f"{type(error).__name__}: {error}".partition("\n")[0])
                self._states.pop(index, None)
                continue
            for trial, slot in running:
                values = {
                    name: value[slot].item() if value[slot].ndim == 0 else value[slot]
                    for name, value in metrics.items()
                }
                trial.metrics = values
                trial.history.append(values)

    def _run(self, index: int, slots: list[int]) -> dict[str, Any]:
        each, _, numbers = self._groups[index]
        program = self._program(each, numbers)
        state = self._states.pop(index, None)
        if state is None:
            state = program.blank(len(numbers[_FIRST]))
        state = program(slots, numbers, state)
        self._states[index], numbers[_FIRST] = state, np.zeros_like(numbers[_FIRST])
        metrics = [part for _, part in state]
        return {name: np.concatenate([part[name] for part in metrics]) for name in metrics[0]}

    def _lanes(self, room: int) -> int:
        return min(count_lanes(self.how, self.devices), room)

    def _room(self, count: int) -> int:
        """Slots of a group: as many as there may ever be, so that groups of any size share a program."""
        if self.how == "map" and self.capacity is not None:
            return max(self.capacity, count)
        return count if self.capacity is None else 1 << max(count - 1, 0).bit_length()

    def _program(self, each: Group, numbers: dict[str, Any]) -> Lifted:
        lanes = self._lanes(len(numbers[_FIRST]))
        key = each.key, lanes
        if key not in self._programs:
            init, advance = self.trainable.init, self.trainable.advance

            def configured(numbers: dict[str, Any]) -> Config:
                return each.join({name: value for name, value in numbers.items() if name != _FIRST})

            def begin(config: Config, *args: Any) -> Any:
                # A weakly typed scalar is not of the type that comes back from the program.
                return jax.tree.map(lambda x: jnp.asarray(x, jnp.asarray(x).dtype), init(config, *args))

            @jax.jit  # so that it is traced once, for both of the following
            def go_on(numbers: dict[str, Any], state: Any, *args: Any) -> Any:
                state, metrics = advance(configured(numbers), state, *args)
                return state, _named(metrics)

            def of_one(numbers: dict[str, Any], carry: Any, *args: Any) -> Any:
                # Beginning in the same program saves a second one.
                state = jax.lax.cond(
                    numbers[_FIRST], lambda: begin(configured(numbers), *args), lambda: carry[0]
                )
                return go_on(numbers, state, *args)

            def shape(numbers: dict[str, Any], *args: Any) -> Any:
                return go_on(numbers, begin(configured(numbers), *args), *args)

            one = {name: values[0] for name, values in numbers.items()}
            with collector_paused():
                shapes = jax.eval_shape(shape, one, *self.trainable.args)
            devices = self.devices[:lanes]
            # The data is on the devices once, however many programs there are.
            others = (each.args for each in self._programs.values() if each.devices == devices)
            args = next(others, self.trainable.args)
            self._programs[key] = Lifted(of_one, shapes, self.how, devices, lanes, self.memory, args)
        return self._programs[key]


def _without_state(trainable: Trainable) -> Trainable:
    """The same, of which nothing is kept after its only part: half of the program would be for that."""
    if trainable.parts > 1:
        return trainable

    def train(config: Config, *args: Any) -> Any:
        return trainable.advance(config, trainable.init(config, *args), *args)[1]

    return in_one_part(train, trainable.args)


def _named(metrics: Any) -> dict[str, Any]:
    return dict(metrics) if isinstance(metrics, Mapping) else {"value": metrics}
