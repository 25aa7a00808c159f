"""Reading what XLA recorded."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax

__all__ = ["Event", "Trace", "read_trace"]


class Event(NamedTuple):
    """One run of an operation: its name, its program's, and when, in seconds."""

    name: str
    program: str
    start: float
    duration: float


class Trace(NamedTuple):
    """A recording.

    Attributes:
      events: of the device (or, on a CPU, of XLA's threads).
      host_waits: waits of the Python thread for a result, or copies to NumPy: (start, duration).
    """

    events: list[Event]
    host_waits: list[tuple[float, float]]

    def busy_seconds(self) -> float:
        """How long at least one operation ran."""
        busy, end = 0.0, float("-inf")
        for event in sorted(self.events, key=lambda event: event.start):
            stop = event.start + event.duration
            busy += max(0.0, stop - max(event.start, end))
            end = max(end, stop)
        return busy


def read_trace(folder: Path) -> Trace:
    """Reads the newest recording below a folder.

    Raises:
      FileNotFoundError: there is none.
    """
    files = sorted(folder.glob("**/*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise FileNotFoundError(f"{folder}: expected a recording of XLA's profiler (*.xplane.pb), found none")
    events, waits = [], []
    for plane in jax.profiler.ProfileData.from_file(str(files[-1])).planes:
        for line in plane.lines:
            for event in line.events:
                if line.name.startswith("python"):
                    if event.name == "np.asarray(jax.Array)" or event.name.endswith("Buffer::Await"):
                        waits.append((event.start_ns * 1e-9, event.duration_ns * 1e-9))
                    continue
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    module = str(stats.get("hlo_module", ""))
                    events.append(
                        Event(str(stats["hlo_op"]), module, event.start_ns * 1e-9, event.duration_ns * 1e-9)
                    )
    return Trace(events, waits)
