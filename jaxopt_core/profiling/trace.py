"""Reading what XLA recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxopt_core.training.dispatch import OWN_WAIT

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
      host_waits: waits of the loop's thread for a result, or copies to NumPy: (start, duration). Those of
        ``fit`` and of the recorder are left out.
      devices: how many computed; all that one CPU stands for are one.
    """

    events: list[Event]
    host_waits: list[tuple[float, float]]
    devices: int

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
    events: list[Event] = []
    waits: list[tuple[float, float]] = []
    devices = 0
    for plane in jax.profiler.ProfileData.from_file(str(files[-1])).planes:
        before = len(events)
        for line in plane.lines:
            waits += _waits(line)
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    module = str(stats.get("hlo_module", ""))
                    events.append(
                        Event(str(stats["hlo_op"]), module, event.start_ns * 1e-9, event.duration_ns * 1e-9)
                    )
        devices += len(events) > before
    return Trace(events, waits, max(devices, 1))


def _waits(line: Any) -> list[tuple[float, float]]:
    """Of the loop's thread, which is the one with :data:`OWN_WAIT`, without those inside of that.

    The name of a thread tells nothing: it is that of the script, or of whatever runs Python.
    """
    found, own = [], []
    for event in line.events:
        span = event.start_ns * 1e-9, event.duration_ns * 1e-9
        if event.name == OWN_WAIT:
            own.append(span)
        elif event.name == "np.asarray(jax.Array)" or event.name.endswith("Buffer::Await"):
            found.append(span)
    return [
        (start, duration)
        for start, duration in found
        if own and not any(begun <= start <= begun + lasted for begun, lasted in own)
    ]
