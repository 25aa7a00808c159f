"""What a program computed while it was recorded."""

from __future__ import annotations

import collections
from typing import NamedTuple

from jaxopt_core.profiling.hlo import CONTAINERS, Program
from jaxopt_core.profiling.trace import Trace

__all__ = ["Cost", "cost"]


class Cost(NamedTuple):
    """What a program computed.

    Attributes:
      runs: how often it was recorded, on one device.
      flops: of one run; the body of a loop counts as often as it ran.
      bytes: that one run reads and writes, likewise; what lies in a cache is counted too.
      seconds: in which it computed, in all runs together.
    """

    runs: float
    flops: float
    bytes: float
    seconds: float


def cost(program: Program, trace: Trace) -> Cost:
    """XLA's count, in which every operation ran once, and the recording, which knows how often each did."""
    events = [event for event in trace.events if event.program == program.name]
    calls = collections.Counter(event.name for event in events)
    ran = [(each, calls[name]) for name, each in program.operations.items() if calls[name]]
    runs = max((n for each, n in ran if each.entry), default=max(calls.values(), default=0))
    inside = [(each, n / runs) for each, n in ran if each.kind not in CONTAINERS]
    flops = _mean([(each.flops, n) for each, n in inside])
    bytes_ = _mean([(each.bytes, n) for each, n in inside])
    busy = Trace(events, [], trace.devices).busy_seconds()
    return Cost(runs / trace.devices, program.flops * flops, program.bytes * bytes_, busy)


def _mean(weighted: list[tuple[int, float]]) -> float:
    whole = sum(weight for weight, _ in weighted)
    return sum(weight * n for weight, n in weighted) / whole if whole else 1.0
