"""Which steps of a loop are recorded, as ``torch.profiler.schedule``."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["Phase", "Schedule"]

Phase = Literal["wait", "warmup", "active", "done"]


class Schedule(NamedTuple):
    """Waits, warms up, records; over and over.

    Attributes:
      wait: steps at the start of a cycle in which nothing happens. Default 1, in which the step compiles.
      warmup: steps that are timed without recording, so that the overhead of recording is known. Default 3.
      active: steps that are recorded. Default 5.
      repeat: cycles; 0 goes on to the end of the loop. Default 1.

    Example:
      >>> schedule = Schedule(wait=1, warmup=1, active=2)
      >>> [schedule.phase(step) for step in range(5)]
      ['wait', 'warmup', 'active', 'active', 'done']
    """

    wait: int = 1
    warmup: int = 3
    active: int = 5
    repeat: int = 1

    def phase(self, step: int) -> Phase:
        """What happens in a step, counted from 0."""
        cycle, place = divmod(step, self.wait + self.warmup + self.active)
        if self.repeat and cycle >= self.repeat:
            return "done"
        if place < self.wait:
            return "wait"
        return "warmup" if place < self.wait + self.warmup else "active"

    def check(self) -> None:
        """Raises ValueError for numbers that record nothing."""
        if min(self.wait, self.warmup, self.repeat) < 0 or self.active < 1:
            raise ValueError(f"expected counts of at least 0 and active of at least 1, got {tuple(self)}")
