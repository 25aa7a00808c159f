"""Small parameters that are computed together, for ``bucketed``.

A program with thousands of small leaves spends its time on its buffers and its compilation on thousands
of kernels. Leaves of one shape, dtype and group of hyperparameters can therefore be joined along their
first axis, in runs of a fixed length, so that there are few kernels and equal ones, which compile once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_core.hyperparams import Hyperparams
from jaxopt_core.tree import Leaves, Slots, is_absent

__all__ = ["Run", "RunSlots", "TreeSlots", "join", "plan", "split"]

LARGEST = 4096  # elements of a leaf worth joining: larger ones only pay for the copy
LENGTH = 16  # leaves in a run: longer ones are not faster, and take longer to compile


class Run(NamedTuple):
    """Leaves computed together, by their places in the flattened tree; most often one alone."""

    path: str
    members: tuple[int, ...]
    like: jax.ShapeDtypeStruct  # the members joined

    def of(self, values: Sequence[Any]) -> list[Any]:
        """The members' values out of those of every leaf."""
        return [values[i] for i in self.members]


def join(parts: Sequence[Any]) -> Any:
    """Arrays of one shape as one, along their first axis.

    XLA on CPU compiles each concatenation of more than eight arrays for itself. Of up to eight it makes, with
    what comes before, a fusion, and equal fusions are compiled once: hence the new axis, and the two levels.
    """
    if len(parts) == 1:
        return parts[0]
    rows = [jnp.atleast_1d(part)[None] for part in parts]
    shape = rows[0].shape[1:]
    eights = [jax.lax.concatenate(rows[i : i + 8], 0) for i in range(0, len(rows), 8)]
    return jax.lax.concatenate([eight.reshape(-1, *shape[1:]) for eight in eights], 0)


def split(joined: Any, like: Sequence[Any]) -> list[Any]:
    """Undoes :func:`join`; ``like`` is what it was given."""
    if len(like) == 1:
        return [joined]
    shape = like[0].shape
    return [part.reshape(shape) for part in jax.lax.split(joined, [joined.shape[0] // len(like)] * len(like))]


def plan(hyperparams: Hyperparams, leaves: Leaves, gradients: Sequence[Any], joining: bool) -> list[Run]:
    """Every leaf that has a gradient, in runs; each alone unless ``joining``."""
    alike: dict[Any, list[int]] = {}
    for i, (path, param, grad) in enumerate(zip(leaves.paths, leaves.values, gradients, strict=True)):
        if is_absent(param) or is_absent(grad):
            continue
        small = joining and 0 < param.size <= LARGEST and jnp.issubdtype(param.dtype, jnp.floating)
        key = (hyperparams.group(path), param.shape, param.dtype) if small else i
        alike.setdefault(key, []).append(i)
    runs = [group[i : i + LENGTH] for group in alike.values() for i in range(0, len(group), LENGTH)]
    return [Run(leaves.paths[run[0]], tuple(run), _joined(leaves.values[run[0]], len(run))) for run in runs]


def _joined(first: Any, members: int) -> jax.ShapeDtypeStruct:
    if members == 1:
        return jax.ShapeDtypeStruct(first.shape, first.dtype)
    rows, *rest = first.shape or (1,)
    return jax.ShapeDtypeStruct((members * rows, *rest), first.dtype)


class TreeSlots:
    """Slots kept as trees shaped like the parameters."""

    def __init__(self, leaves: Leaves, slots: Slots):
        self.leaves, self.names = leaves, list(slots)
        self.per_leaf = leaves.scatter(slots)

    def read(self, run: Run) -> Slots:
        """The slots of a run, joined."""
        return {
            name: join(run.of([slots.get(name) for slots in self.per_leaf]))
            for name in self.per_leaf[run.members[0]]
        }

    def write(self, run: Run, slots: Slots) -> None:
        """Replaces the slots of a run of one."""
        (member,) = run.members
        self.per_leaf[member] = self.per_leaf[member] | slots

    def state(self) -> Slots:
        """What the optimizer's state keeps."""
        return {name: self.leaves.gather(self.per_leaf, name) for name in self.names}


class RunSlots:
    """Slots kept as one array a run, under the path of the run's first member."""

    def __init__(self, slots: Slots):
        for name, arrays in slots.items():
            if not isinstance(arrays, dict):
                raise ValueError(
                    f"The state was not made by a bucketed optimizer: slot {name!r} is a "
                    f"{type(arrays).__name__}, not a dict of runs. Call tx.init(params) of the bucketed one."
                )
        self.slots = {name: dict(arrays) for name, arrays in slots.items()}

    @classmethod
    def of(cls, trees: TreeSlots, runs: Sequence[Run]) -> RunSlots:
        """Joins slots that are kept as trees."""
        joined = [(run.path, trees.read(run)) for run in runs]
        return cls({name: {path: s[name] for path, s in joined if name in s} for name in trees.names})

    def read(self, run: Run) -> Slots:
        """The slots of a run."""
        return {name: arrays[run.path] for name, arrays in self.slots.items() if run.path in arrays}

    def write(self, run: Run, slots: Slots) -> None:
        """Replaces the slots of a run."""
        for name, joined in slots.items():
            self.slots[name][run.path] = joined

    def state(self) -> Slots:
        """What the optimizer's state keeps."""
        return self.slots
