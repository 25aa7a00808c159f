"""Compositions of schedulers: as a function of the count where that is possible, else step by step."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxopt_core.schedulers._nesting import Chain, Leaf, Node, Series, Span
from jaxopt_core.schedulers.base import Absolute, Factor, Group, Scheduler
from jaxopt_core.schedulers.cyclic import Cycle
from jaxopt_core.schedulers.functions import RateState
from jaxopt_core.schedulers.space import Space

__all__ = ["Composition", "composed", "rate_of"]


def composed(composition: Composition) -> Any:
    """The schedule, or :class:`Cycle` of schedules, that a composition stands for."""
    made_of = (composition.name, composition.children, composition.milestones)
    node = composition.node()
    group: Group = {}
    node.construct(group)
    spans = tuple(node.spans(0, math.inf))
    parts = _closed(spans, group)
    schedule: Any = _Pieces(*made_of, parts) if parts else _Steps(*made_of, spans, _Fixed(group))
    if "momentum" not in group:
        return schedule
    return Cycle(schedule, _Momentum(spans, _Fixed(group)))


def rate_of(child: Any) -> Any:
    """The schedule of the rate in a child, which may be a :class:`Cycle`."""
    return child.lr if isinstance(child, Cycle) else child


@dataclasses.dataclass(frozen=True, repr=False)
class _Function(Absolute):
    """Any function of the count as a scheduler."""

    function: Callable[[Any], Any]
    has_base_rate = False

    @property
    def lr(self) -> Any:
        return self.function(0)

    def __call__(self, count: Any) -> Any:
        return self.function(count)


@dataclasses.dataclass(frozen=True, repr=False)
class Composition:
    """What a composed schedule was composed of."""

    name: str
    children: tuple[Any, ...]
    milestones: tuple[int, ...] | None

    def __repr__(self) -> str:
        milestones = "" if self.milestones is None else f", {list(self.milestones)}"
        return f"{self.name}([{', '.join(repr(rate_of(child)) for child in self.children)}]{milestones})"

    def node(self) -> Node:
        """For a walk; each needs counters of its own."""
        nodes = [_node(child) for child in self.children]
        return Chain(nodes) if self.milestones is None else Series(nodes, self.milestones)


def _node(child: Any) -> Node:
    rate = rate_of(child)
    if isinstance(rate, Composition):
        return rate.node()
    momentum = child.momentum if isinstance(child, Cycle) else None
    return Leaf(rate if isinstance(rate, Scheduler) else _Function(rate), momentum)


class _Fixed:
    """A parameter group after construction, compared by identity."""

    def __init__(self, group: Group):
        self.group = group


@dataclasses.dataclass(frozen=True)
class _Part:
    """A closed form in place from ``start`` to before ``stop``, with its own count from ``start``."""

    rate: Callable[[Any], Any]
    start: int
    stop: float

    def __call__(self, count: Any) -> Any:
        last = None if math.isinf(self.stop) else int(self.stop) - 1 - self.start
        space = Space(count)
        return self.rate(space.done(space.xp.clip(space.count(count) - self.start, 0, last)))


def _closed(spans: Sequence[Span], group: Group) -> tuple[_Part, ...] | None:
    """The parts of a schedule without memory; ``None`` if there is need of one."""
    if len(spans) > 1 and all(span.start == 0 for span in spans):
        return _product(spans)
    parts: list[_Part] = []
    for span in spans:
        if parts and parts[-1].stop != span.start:
            return None
        found = parts[-1](span.start - 1) if parts else group["initial_lr"]
        rate = _closed_form(span, group, found)
        if rate is None:
            return None
        parts.append(_Part(rate, span.start, span.stop))
    return tuple(parts)


def _product(spans: Sequence[Span]) -> tuple[_Part, ...] | None:
    factors: list[Any] = [span.scheduler for span in spans if isinstance(span.scheduler, Factor)]
    plain = all(span.epoch == 0 and span.calls == 1 and math.isinf(span.stop) for span in spans)
    if len(factors) < len(spans) or not plain:
        return None

    def rate(count: Any) -> Any:
        space = Space(count, factors[0].lr)
        value = space.real(factors[0].lr)
        for each in factors:
            value = value * each.product(space, space.count(count))
        return space.done(value)

    return (_Part(rate, 0, math.inf),)


def _closed_form(span: Span, group: Group, found: Any) -> Any:
    scheduler: Any = span.scheduler
    if isinstance(scheduler, Absolute):
        return lambda count: scheduler.at(count + span.epoch, group)
    if span.epoch != 0 or span.calls != 1 or isinstance(scheduler, optax.schedules.StatefulSchedule):
        return None
    if scheduler.name == "swa_lr":
        return dataclasses.replace(scheduler, lr=found, swa_lr=group["swa_lr"])
    if span.start:
        return scheduler.restarted()
    if issubclass(type(scheduler), Factor):
        return dataclasses.replace(scheduler, lr=found)
    are_numbers = isinstance(found, int | float) and isinstance(scheduler.lr, int | float)
    is_base = scheduler.lr == found if are_numbers else scheduler.lr is found
    return scheduler if is_base else None


@dataclasses.dataclass(frozen=True, repr=False)
class _Pieces(Composition):
    """A composition that is a function of the count."""

    parts: tuple[_Part, ...]

    def __call__(self, count: Any) -> Any:
        """The rate at ``count``."""
        rate = self.parts[0](count)
        for part in self.parts[1:]:
            value = part(count)
            space = Space(count, rate, value)
            k = space.count(count)
            rate = space.done(space.xp.where(k >= part.start, space.real(value), space.real(rate)))
        return rate


@dataclasses.dataclass(frozen=True, repr=False)
class _Steps(Composition):
    """A composition that goes from rate to rate: a stateful schedule."""

    spans: tuple[Span, ...]
    fixed: _Fixed

    def init(self) -> RateState:
        """The state at count 0."""
        lr = jnp.asarray(self.fixed.group["lr"], jnp.result_type(float))
        return RateState(jnp.zeros([], jnp.int32), lr)

    def update(self, state: RateState, **extra: Any) -> RateState:
        """The state one count later."""
        del extra
        count = optax.safe_increment(state.count)
        lr = state.lr
        for span in self.spans:
            done = count - span.start
            if not math.isinf(span.stop):
                done = jnp.minimum(done, int(span.stop) - 1 - span.start)
            done = jnp.maximum(done, 0)
            group = {**self.fixed.group, "lr": lr}
            new = span.scheduler.step(group, span.epoch + done, span.calls + done)
            if span.start:
                new = jnp.where(
                    count == span.start, jnp.asarray(span.scheduler.restart(group), lr.dtype), new
                )
            lr = jnp.where(_at_work(span, count), jnp.asarray(new, lr.dtype), lr)
        return RateState(count, lr)

    def __call__(self, state: RateState, **extra: Any) -> jax.Array:
        """The rate now."""
        del extra
        return state.lr


def _momentum_of(span: Span, group: Group, count: Any) -> Any:
    return span.momentum.at(count + span.epoch, group)


def _at_work(span: Span, count: Any) -> Any:
    return count >= span.start if math.isinf(span.stop) else (count >= span.start) & (count < span.stop)


@dataclasses.dataclass(frozen=True)
class _Momentum:
    """The momentum that the cycles in a composition leave in the group."""

    spans: tuple[Span, ...]
    fixed: _Fixed

    def __call__(self, count: Any) -> Any:
        group = self.fixed.group
        space = Space(count, group["momentum"])
        k = space.count(count)
        value = space.real(group["momentum"])
        cycling = [span for span in self.spans if span.momentum is not None]
        ended = sorted((s for s in cycling if 1 < s.stop < math.inf), key=lambda s: s.stop)
        # First what has ended, the latest last; then what is at work, in order. At 0 it is the constructors'.
        at_work = [(span, _at_work(span, k) & (k > 0)) for span in cycling]
        for span, now in [*((span, k >= span.stop) for span in ended), *at_work]:
            momentum = functools.partial(_momentum_of, span, group)
            part = _Part(momentum, span.start, span.stop)
            value = space.xp.where(now, space.real(part(count)), value)
        return space.done(value)
