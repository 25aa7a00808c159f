"""Hyperparameters: from PyTorch's param_groups into an optimizer's state, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_core.groups import ByPath
from jaxopt_core.hyperparams import Scheduled
from jaxopt_core.interop.arrays import in_place_of, is_tensor, number
from jaxopt_core.interop.kinds import defaults
from jaxopt_core.interop.nested import Found
from jaxopt_core.interop.patterns import some
from jaxopt_core.interop.scheduler import left_in_group, schedule_state

__all__ = ["NextValues", "agrees", "carried", "from_scheduler", "in_group", "scheduled_at"]

_MISSING = object()


def carried(
    found: Found,
    states: Mapping[str, Any],
    groups: Mapping[str, Mapping[str, Any]],
    count: int | None,
    scheduler: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The state of the hyperparameters, with PyTorch's values.

    Args:
      found: the optimizer.
      states: the state of its hyperparameters.
      groups: path -> the ``param_group`` that the parameter is in.
      count: steps made so far, if that is known.
      scheduler: the state dict of PyTorch's scheduler.

    Returns:
      The new state, and what cannot be carried: fixed values that are others than PyTorch's.
    """
    carrying = _Carrying(found.kind, count, scheduler)
    new = dict(states)
    for name, argument in found.hyperparams.arguments.items():
        wanted = {path: _wanted(found.kind, group, name) for path, group in groups.items()}
        wanted = {path: value for path, value in wanted.items() if value is not _MISSING}
        if name != "axes" and wanted:
            state = carrying.value(name, argument, states.get(name), wanted)
            if name in states:
                new[name] = state
    return new, carrying.problems


def agrees(found: Found, path: str, group: Mapping[str, Any]) -> bool:
    """Whether the fixed values that the optimizer has for a parameter are those of a ``param_group``."""
    for name, argument in found.hyperparams.arguments.items():
        wanted = _wanted(found.kind, group, name)
        if name != "axes" and wanted is not _MISSING and not _agrees(argument, path, wanted):
            return False
    return True


class NextValues:
    """The values that the next update uses, as numbers of Python's."""

    def __init__(self, found: Found, states: Mapping[str, Any], count: int):
        self.found, self.states, self.count = found, states, count
        self.made: dict[tuple[str, ...], dict[str, Any]] = {}

    def at(self, path: str) -> dict[str, Any]:
        """Name -> value, for the parameter at ``path``."""
        key = self.found.hyperparams.group(path)
        if key not in self.made:
            arguments = self.found.hyperparams.arguments.items()
            self.made[key] = {
                name: _next(value, self.states.get(name), path, self.count)
                for name, value in arguments
                if name != "axes"
            }
        return self.made[key]


def from_scheduler(found: Found, path: str) -> dict[str, Any]:
    """What PyTorch's scheduler keeps in the ``param_group`` of a parameter."""
    schedule = found.hyperparams.arguments["lr"]
    while isinstance(schedule, ByPath):
        schedule = schedule.choices()[schedule.match(path)]
    return left_in_group(schedule) if callable(schedule) else {}


def in_group(value: Any, like: Any) -> Any:
    """A value as a ``param_group`` holds it: ``like``, if that is the same number, else in its form."""
    if isinstance(like, tuple | list) and isinstance(value, tuple) and len(like) == len(value):
        return type(like)(in_group(mine, theirs) for mine, theirs in zip(value, like, strict=True))
    if is_tensor(like):
        return np.full(like.shape, value, str(like.dtype).removeprefix("torch."))
    if isinstance(value, float) and isinstance(like, int | float):
        return like if value in (like, _plain(np.float32(like))) else value
    return like if _equal(value, like) else value


def scheduled_at(schedule: Any, count: int) -> float:
    """A schedule's value in float64."""
    with jax.enable_x64(True):
        return float(schedule(jnp.asarray(count, jnp.int32)))


class _Carrying:
    def __init__(self, kind: str, count: int | None, scheduler: Mapping[str, Any] | None):
        self.kind, self.count, self.scheduler = kind, count, scheduler
        self.problems: list[str] = []

    def value(self, name: str, argument: Any, state: Any, wanted: Mapping[str, Any]) -> Any:
        if isinstance(argument, ByPath):
            split: dict[str, dict[str, Any]] = {pattern: {} for pattern in argument.choices()}
            for path, value in wanted.items():
                split[argument.match(path)][path] = value
            entries = state or {}
            new = {
                pattern: self.value(name, each, entries.get(pattern), split[pattern])
                for pattern, each in argument.choices().items()
            }
            return new if state is not None else None
        if not wanted:
            return state
        if type(argument) is tuple:
            each_state = (None,) * len(argument) if state is None else state
            parts = enumerate(zip(argument, each_state, strict=True))
            elements = {path: _elements(value, len(argument)) for path, value in wanted.items()}
            each_new = tuple(
                self.value(f"{name}[{i}]", a, s, {path: each[i] for path, each in elements.items()})
                for i, (a, s) in parts
            )
            return each_new if state is not None else None
        if isinstance(state, Scheduled):
            return self._schedule(name, argument, state, wanted)
        if state is None:
            for value, paths in _by_value(wanted):
                if not _equal(argument, value):
                    remedy = "" if "[" in name else f". Construct tx with {name}={value!r}"
                    self.problems.append(
                        f"{name} of {some(paths)}: tx has {argument!r}, the checkpoint {value!r}{remedy}"
                    )
            return state
        values = _by_value(wanted)
        if len(values) > 1:
            each = "; ".join(f"{value!r} for {some(paths)}" for value, paths in values)
            self.problems.append(
                f"{name}: tx has one value for parameters that have several in the checkpoint: {each}. "
                f"Construct tx with {name}=by_path(...), or use from_torch_optimizer"
            )
            return state
        return in_place_of(state, np.asarray(values[0][0]))

    def _schedule(self, name: str, schedule: Any, state: Scheduled, wanted: Mapping[str, Any]) -> Any:
        if self.count is None:
            self.problems.append(
                f"{name} follows a schedule, and PyTorch's {self.kind} does not keep the number of steps: "
                "give count="
            )
            return state
        stateful = isinstance(schedule, optax.schedules.StatefulSchedule)
        memory = state.state
        if self.scheduler is not None and name == "lr":
            rate = next(iter(wanted.values()))
            memory, problems = schedule_state(schedule, self.scheduler, rate, self.count)
            self.problems += [each for each in problems if each not in self.problems]
        elif stateful:
            self.problems.append(
                f"{name} follows a schedule with a memory, which PyTorch keeps in the scheduler's state "
                "dict: give scheduler="
            )
            return state
        now = float(schedule(memory)) if stateful else scheduled_at(schedule, self.count)
        for value, paths in _by_value(wanted):
            if not math.isclose(now, value, rel_tol=1e-5, abs_tol=1e-12):
                self.problems.append(
                    f"{name} of {some(paths)}: the schedule of tx gives {now:.8g} at count {self.count}, "
                    f"the checkpoint has {value:.8g}. Does the schedule count epochs, or was the checkpoint "
                    "written between optimizer.step() and scheduler.step()?"
                )
        used = now if stateful else scheduled_at(schedule, max(self.count - 1, 0))
        placed = jax.tree.map(in_place_of, state.state, memory)
        return Scheduled(in_place_of(state.value, np.asarray(used)), placed)


def _wanted(kind: str, group: Mapping[str, Any], name: str) -> Any:
    if name in group:
        return number(group[name])
    return defaults(kind).get(name, _MISSING)  # a checkpoint older than the argument


def _elements(value: Any, length: int) -> Any:
    return value if isinstance(value, tuple) and len(value) == length else (value,) * length


def _by_value(wanted: Mapping[str, Any]) -> list[tuple[Any, list[str]]]:
    values: dict[Any, list[str]] = {}
    for path, value in wanted.items():
        values.setdefault(value, []).append(path)
    return list(values.items())


def _agrees(argument: Any, path: str, wanted: Any) -> bool:
    if isinstance(argument, ByPath):
        return _agrees(argument.choices()[argument.match(path)], path, wanted)
    if type(argument) is tuple:
        pairs = zip(argument, _elements(wanted, len(argument)), strict=True)
        return all(_agrees(each, path, value) for each, value in pairs)
    if callable(argument) or is_tensor(argument):
        return True
    return _equal(argument, wanted)


def _equal(ours: Any, theirs: Any) -> bool:
    if {ours, theirs} == {None, "original"}:  # Muon's adjust_lr_fn
        return True
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        # A learning rate may have been a float32 tensor.
        return math.isclose(ours, theirs, rel_tol=1e-7)
    return bool(ours == theirs)


def _next(argument: Any, state: Any, path: str, count: int) -> Any:
    if isinstance(argument, ByPath):
        pattern = argument.match(path)
        return _next(argument.choices()[pattern], state and state[pattern], path, count)
    if type(argument) is tuple:
        states = (None,) * len(argument) if state is None else state
        return tuple(_next(a, s, path, count) for a, s in zip(argument, states, strict=True))
    if state is None:
        return argument
    if isinstance(state, Scheduled):
        if isinstance(argument, optax.schedules.StatefulSchedule):
            return _plain(argument(state.state))
        return scheduled_at(argument, count)
    return _plain(state)


def _plain(value: Any) -> float:
    """The number that the user most likely wrote: the shortest that float32 rounds to this one."""
    array = np.asarray(value)
    return float(array) if array.dtype == np.float64 else float(str(array.astype(np.float32)[()]))
