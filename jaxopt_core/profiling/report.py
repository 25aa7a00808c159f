"""What a recording says: tables by operation, scope and phase, compilations, memory."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jaxopt_core.profiling.hlo import CONTAINERS, Operation, Program
from jaxopt_core.profiling.trace import Trace

if TYPE_CHECKING:
    from jaxopt_core.profiling.recorder import Compilation

__all__ = ["By", "Profile", "Row"]

By = Literal["operation", "scope", "phase", "source"]
_UNKNOWN = Operation("?", "", "", "other", "", "")
_COLUMNS = ("name", "calls", "total", "average", "share", "scope", "source")


class Row(NamedTuple):
    """A line of a table; times in seconds, ``share`` of the time of all operations."""

    name: str
    calls: int
    total: float
    average: float
    share: float
    scope: str
    source: str


@dataclasses.dataclass
class Profile:
    """Recorded steps.

    Attributes:
      trace: what ran, and when.
      programs: what is compiled.
      steps: how many were recorded.
      wall: seconds that they took.
      waiting: seconds of these in which the loop waited for data.
      step_seconds: phase of the schedule -> seconds of each step.
      compilations: since recording was entered, those before the first recorded step included.
      explanations: what changed when a program was compiled again, in JAX's words.
      padded: share of the examples that only fill up batches.
      folder: with XLA's own recording.
    """

    trace: Trace
    programs: list[Program]
    steps: int
    wall: float
    waiting: float
    step_seconds: dict[str, list[float]]
    compilations: list[Compilation]
    explanations: list[str]
    padded: float
    folder: Path

    @property
    def overhead(self) -> float:
        """Median recorded step over median step of the warm-up, minus 1; NaN without a warm-up."""
        if not self.step_seconds["warmup"] or not self.step_seconds["active"]:
            return float("nan")
        return (
            statistics.median(self.step_seconds["active"]) / statistics.median(self.step_seconds["warmup"])
            - 1
        )

    def operations(self) -> list[tuple[Operation, float, str]]:
        """Every recorded run: the operation, its seconds, its name; what only contains others is left out."""
        known: dict[tuple[str, str], Operation] = {}
        for program in self.ran():
            known.update({(program.name, name): each for name, each in program.operations.items()})
        found = [(known.get((e.program, e.name), _UNKNOWN), e.duration, e.name) for e in self.trace.events]
        return [each for each in found if each[0].kind not in CONTAINERS]

    def rows(self, by: By = "operation", sort: str = "total") -> list[Row]:
        """The recorded time by operation, named scope, phase or source line, the largest first.

        ``phase`` has the time that the loop waited for data too.

        Raises:
          ValueError: there is no such table or column.
        """
        if by not in ("operation", "scope", "phase", "source") or sort not in _COLUMNS:
            columns = ", ".join(_COLUMNS)
            raise ValueError(
                f"expected operation, scope, phase or source, by {columns}; got {by!r}, {sort!r}"
            )
        groups: dict[str, list[tuple[float, Operation]]] = {}
        for operation, seconds, name in self.operations():
            key = (
                {"operation": name, "phase": operation.phase}.get(by)
                or getattr(operation, by, "")
                or "(none)"
            )
            groups.setdefault(key, []).append((seconds, operation))
        if by == "phase" and self.waiting:
            groups["data"] = [(self.waiting / self.steps, _UNKNOWN)] * self.steps
        whole = sum(seconds for runs in groups.values() for seconds, _ in runs) or 1.0
        rows = []
        for key, runs in groups.items():
            total, of = sum(seconds for seconds, _ in runs), runs[0][1]
            rows.append(Row(key, len(runs), total, total / len(runs), total / whole, of.scope, of.source))
        return sorted(
            rows, key=lambda row: getattr(row, sort), reverse=sort not in ("name", "scope", "source")
        )

    def ran(self) -> list[Program]:
        """The programs of which something was recorded.

        Of several compiled ones with the same name it is that which has most of the recorded operations, and
        of equals the newest.
        """
        names: dict[str, set[str]] = {}
        for event in self.trace.events:
            names.setdefault(event.program, set()).add(event.name)
        found: dict[str, Program] = {}
        for program in self.programs:
            recorded = names.get(program.name, set())
            before = found.get(program.name)
            known = 0 if before is None else len(recorded & before.operations.keys())
            if recorded and len(recorded & program.operations.keys()) > known:
                found[program.name] = program
        return list(found.values())

    def memory(self) -> dict[str, int]:
        """Bytes of the largest program that ran, by buffer, and the device's high-water mark if known."""
        import jax

        sizes: dict[str, int] = {}
        for program in self.ran():
            of: Any = program.memory
            found = {
                "arguments": of.argument_size_in_bytes,
                "results": of.output_size_in_bytes,
                "temporaries": of.temp_size_in_bytes,
                "reused arguments": of.alias_size_in_bytes,
            }
            if sum(found.values()) > sum(sizes.values()):
                sizes = found
        stats = jax.local_devices()[0].memory_stats() or {}
        return sizes | (
            {"high-water mark": stats["peak_bytes_in_use"]} if "peak_bytes_in_use" in stats else {}
        )

    def table(self, by: By = "operation", sort: str = "total", limit: int = 15) -> str:
        """:meth:`rows` as text, ``limit`` lines of them."""
        rows = self.rows(by, sort)
        lines = [f"{by:<32} {'calls':>6} {'total ms':>9} {'avg us':>9} {'share':>6}"]
        detailed = by == "operation"
        if detailed:
            lines[0] += f"  {'scope':<24} source"
        for row in rows[:limit]:
            times = f"{1e3 * row.total:>9.3f} {1e6 * row.average:>9.1f} {row.share:>6.1%}"
            line = f"{row.name[:32]:<32} {row.calls:>6} {times}"
            lines.append(line + (f"  {row.scope[-24:]:<24} {row.source}" if detailed else ""))
        if len(rows) > limit:
            lines.append(f"... and {len(rows) - limit} more")
        return "\n".join(lines)

    def summary(self) -> str:
        """Steps, compilations, flops, memory and the overhead of recording, as text."""
        per_step = self.wall / self.steps
        cost = "no longer than" if self.overhead <= 0 else f"{1 + self.overhead:.2f} times as long as"
        lines = [
            f"{self.steps} steps recorded, {1e3 * per_step:.3f} ms each; the median took {cost} one "
            "that is not recorded",
            f"{len(self.compilations)} compilations, {sum(c.seconds for c in self.compilations):.2f} s",
        ]
        lines += [
            f"{each.name}: {each.flops / 1e6:.2f} MFLOP, {each.bytes / 2**20:.2f} MiB read and written a run"
            for each in self.ran()
        ]
        sizes = ", ".join(f"{name} {size / 2**20:.2f} MiB" for name, size in self.memory().items())
        return "\n".join([*lines, f"memory: {sizes}"])
