"""What PyTorch's SequentialLR and ChainedScheduler do with the schedulers inside them.

All schedulers of an optimizer share one rate, and constructing, undoing and restarting them leaves traces
in it and in their counters. Which of them act at which count does not depend on the rate, so the whole
structure can be walked through once, when it is constructed, and becomes a list of :class:`Span`: this
scheduler, from this count to that one, beginning with its counters here. The walk below follows PyTorch's
constructors line by line, as if the schedulers had been made in the order in which they are listed.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from jaxopt_core.schedulers.base import Group, Scheduler

__all__ = ["Chain", "Leaf", "Node", "Series", "Span"]


@dataclasses.dataclass(frozen=True)
class Span:
    """A scheduler at work from count ``start`` to before ``stop``.

    At ``start``, unless that is 0, it is restarted, and its ``epoch`` and number of ``calls`` are these.
    """

    scheduler: Scheduler
    momentum: Any
    start: int
    stop: float
    epoch: int
    calls: int


class Node:
    """A scheduler with PyTorch's mutable counters, during the walk."""

    def construct(self, group: Group) -> None:
        """PyTorch's constructor."""
        raise NotImplementedError

    def undo(self) -> None:
        """``SequentialLR.recursive_undo``."""
        raise NotImplementedError

    def initial_step(self, group: Group) -> None:
        """``LRScheduler._initial_step``."""
        self.step(group)

    def step(self, group: Group) -> None:
        """``step``."""
        raise NotImplementedError

    def spans(self, start: int, stop: float) -> Iterator[Span]:
        """What happens from ``start`` on; at 0 the walk has already happened."""
        raise NotImplementedError

    def leaves(self) -> Iterator[Leaf]:
        """The schedulers inside, in order."""
        raise NotImplementedError


class Leaf(Node):
    """A scheduler that contains no others."""

    def __init__(self, scheduler: Scheduler, momentum: Any):
        self.scheduler = scheduler
        self.momentum = momentum
        self.epoch = -1
        self.calls = 0

    def construct(self, group: Group) -> None:
        group.setdefault("lr", self.scheduler.lr)
        self.scheduler.enter(group)
        self.initial_step(group)

    def undo(self) -> None:
        self.epoch -= 1

    def initial_step(self, group: Group) -> None:
        self.epoch, self.calls = self.epoch + 1, 1
        group["lr"] = self.scheduler.first(group)
        self._move(group)

    def step(self, group: Group) -> None:
        self.epoch, self.calls = self.epoch + 1, self.calls + 1
        group["lr"] = self.scheduler.step(group, self.epoch, self.calls)
        self._move(group)

    def restart(self, group: Group) -> None:
        """``_update_lr(0)``."""
        self.epoch = 0
        group["lr"] = self.scheduler.restart(group)
        self._move(group)

    def _move(self, group: Group) -> None:
        if self.momentum is not None:
            group["momentum"] = self.momentum.at(self.epoch, group)

    def spans(self, start: int, stop: float) -> Iterator[Span]:
        if start:
            yield Span(self.scheduler, self.momentum, start, stop, 0, 1)
        else:
            yield Span(self.scheduler, self.momentum, 0, stop, self.epoch, self.calls)

    def leaves(self) -> Iterator[Leaf]:
        yield self


class Chain(Node):
    """``ChainedScheduler``."""

    def __init__(self, children: Sequence[Node]):
        self.children = children

    def construct(self, group: Group) -> None:
        for child in self.children:
            child.construct(group)

    def undo(self) -> None:
        for child in self.children:
            child.undo()

    def step(self, group: Group) -> None:
        for child in self.children:
            child.step(group)

    def spans(self, start: int, stop: float) -> Iterator[Span]:
        for child in self.children:
            yield from child.spans(start, stop)

    def leaves(self) -> Iterator[Leaf]:
        for child in self.children:
            yield from child.leaves()


class Series(Chain):
    """``SequentialLR``."""

    def __init__(self, children: Sequence[Node], milestones: Sequence[int]):
        super().__init__(children)
        self.milestones = milestones
        self.epoch = 0

    def construct(self, group: Group) -> None:
        super().construct(group)
        group["lr"] = group["initial_lr"]
        self.undo()
        self._current().initial_step(group)

    def step(self, group: Group) -> None:
        self.epoch += 1
        current = self._current()
        if isinstance(current, Leaf) and self.epoch in self.milestones:
            current.restart(group)
        else:
            current.step(group)

    def _current(self) -> Node:
        return self.children[bisect.bisect_right(self.milestones, self.epoch)]

    def spans(self, start: int, stop: float) -> Iterator[Span]:
        del start  # 0: nothing restarts a series
        # Its own epoch is ahead of the count where it has been stepped during construction.
        edges = [0, *(max(0, milestone - self.epoch) for milestone in self.milestones), math.inf]
        for child, begin, end in zip(self.children, edges, edges[1:], strict=False):
            if begin < min(end, stop):
                yield from child.spans(int(begin), min(end, stop))
