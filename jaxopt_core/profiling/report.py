"""What a recording says: tables by operation, scope and phase, compilations, memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jaxopt_core.profiling.buffers import Buffer
from jaxopt_core.profiling.cost import Cost, cost
from jaxopt_core.profiling.hlo import CONTAINERS, Operation, Program
from jaxopt_core.profiling.trace import Trace

if TYPE_CHECKING:
    from jaxopt_core.profiling.recorder import Compilation

__all__ = ["By", "Profile", "Row"]

By = Literal["operation", "scope", "phase", "source"]
_UNKNOWN = Operation("?", "", "", "other", "")
LARGEST = 5
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
      recorded: numbers of the steps that were recorded, from 0.
      wall: seconds that they took.
      warmup: seconds of one step that was not recorded, or None without a warm-up.
      waiting: seconds of the recorded steps in which the loop waited for data.
      compilations: since recording was entered, those before the first recorded step included.
      explanations: function -> what changed when it was compiled again, in JAX's words.
      padded: share of the examples that only fill up batches.
      folder: with XLA's own recording.
    """

    trace: Trace
    programs: list[Program]
    recorded: list[int]
    wall: float
    warmup: float | None
    waiting: float
    compilations: list[Compilation]
    explanations: dict[str, list[str]]
    padded: float
    folder: Path

    @property
    def steps(self) -> int:
        """How many were recorded."""
        return len(self.recorded)

    @property
    def overhead(self) -> float | None:
        """Time of a recorded step over that of one in the warm-up, minus 1; None without a warm-up."""
        return None if self.warmup is None else self.wall / self.steps / self.warmup - 1

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

    def cost(self, program: Program) -> Cost:
        """What a program computed in a run; its loops count as often as they ran."""
        return cost(program, self.trace)

    def memory(self) -> dict[str, int]:
        """Bytes of the largest program that ran, by use, and the device's high-water mark.

        A device that does not know its mark, such as a CPU, gets an estimate, named so: arguments, results
        and temporaries of that program, less what is reused.
        """
        import jax

        stats = jax.local_devices()[0].memory_stats() or {}
        measured = {"high-water mark": stats["peak_bytes_in_use"]} if "peak_bytes_in_use" in stats else {}
        program = self._largest()
        if program is None:
            return measured
        sizes = _sizes(program)
        *held, reused = sizes.values()
        return sizes | (measured or {"high-water mark (estimate)": sum(held) - reused})

    def buffers(self) -> list[Buffer]:
        """Arguments and results of the largest program that ran, the largest first.

        A result that is written over an argument has none of its own.
        """
        program = self._largest()
        found = program.buffers if program is not None else []
        own = [each for each in found if each.role == "argument" or not each.reused]
        return sorted(own, key=lambda each: -each.array.bytes)

    def _largest(self) -> Program | None:
        return max(self.ran(), key=lambda program: sum(_sizes(program).values()), default=None)

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
        if self.overhead is None:
            took = "the overhead of recording is unknown without a warm-up"
        elif self.overhead <= 0:
            took = "no longer than one that is not recorded"
        else:
            took = f"{1 + self.overhead:.2f} times as long as one that is not recorded"
        lines = [
            f"{self.steps} steps recorded, {1e3 * self.wall / self.steps:.3f} ms each; {took}",
            f"{len(self.compilations)} compilations, {sum(c.seconds for c in self.compilations):.2f} s",
        ]
        for program in self.ran():
            of = self.cost(program)
            moved = f"{of.bytes / 2**20:.2f} MiB read and written a run"
            lines.append(f"{program.name}: {of.flops / 1e6:.2f} MFLOP, {moved}")
        sizes = ", ".join(f"{name} {size / 2**20:.2f} MiB" for name, size in self.memory().items())
        return "\n".join([*lines, f"memory: {sizes}", *(f"  {each}" for each in self.buffers()[:LARGEST])])


def _sizes(program: Program) -> dict[str, int]:
    of: Any = program.memory
    return {
        "arguments": of.argument_size_in_bytes,
        "results": of.output_size_in_bytes,
        "temporaries": of.temp_size_in_bytes,
        "reused arguments": of.alias_size_in_bytes,
    }
