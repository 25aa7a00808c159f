"""What the compiled programs say about their operations: kind, scope, phase, source line."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import jax

__all__ = ["Operation", "Program", "live_programs", "parse"]

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\(")
_CALLS = re.compile(r"(?:calls|to_apply|body)=%?([\w.-]+)")
_NAME = re.compile(r'op_name="([^"]*)"')
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_COMPILED = re.compile(r"p?jit\([^()/]*\)")
_TRANSFORM = re.compile(r"\b(?:jvp|transpose|vmap|checkpoint|rematted_computation|custom_vjp)\(")
_OPTIMIZER = re.compile(r"jaxopt_core/(optimizers|leaf|leafwise|gradients|averaging)|/optax/")
_CONTROL = ("while", "body", "cond", "closed_call", "branch", "scan", "checkpoint")
CONTAINERS = ("while", "call", "conditional", "async-start", "async-done")
"""Operations whose time is that of the operations inside."""


class Operation(NamedTuple):
    """An operation of a compiled program.

    Attributes:
      kind: HLO's opcode; for a fusion that of the most telling operation inside.
      shape: of the result, as HLO writes it.
      scope: named scopes around it, ``a/b``; empty where there are none.
      phase: ``forward``, ``backward``, ``optimizer`` or ``other``.
      source: ``file:line`` of the Python that made it.
      text: the instruction, with those of a fusion's inside.
    """

    kind: str
    shape: str
    scope: str
    phase: str
    source: str
    text: str


class Program(NamedTuple):
    """A compiled program.

    Attributes:
      name: of its module, ``jit_step``.
      operations: name -> operation.
      flops: of one run, as XLA counts them.
      bytes: that one run reads and writes, as XLA counts them; what lies in a cache is counted too.
      memory: XLA's sizes of arguments, results, temporaries and aliases.
      header: the first line of the text: shapes of arguments and results, and what is aliased.
    """

    name: str
    operations: dict[str, Operation]
    flops: float
    bytes: float
    memory: Any
    header: str


def live_programs() -> list[Program]:
    """All programs that this process holds compiled, the newest first."""
    found = []
    for executable in jax.local_devices()[0].client.live_executables():
        module = executable.hlo_modules()[0]
        text = module.to_string()
        cost = executable.cost_analysis()
        cost = cost[0] if isinstance(cost, list) else cost
        memory = executable.get_compiled_memory_stats()
        header = text.partition("\n")[0]
        found.append(
            Program(
                module.name,
                parse(text),
                cost.get("flops", 0.0),
                cost.get("bytes accessed", 0.0),
                memory,
                header,
            )
        )
    return found


def parse(text: str) -> dict[str, Operation]:
    """The operations in the text of an optimized HLO module."""
    sources = _Sources(text)
    lines: dict[str, list[str]] = {}
    inside = ""
    for line in text.splitlines():
        if line.endswith("{") and "(" in line and "->" in line:
            inside = line.strip().removeprefix("ENTRY ").lstrip("%").split(" ", 1)[0]
            lines[inside] = []
        elif inside and _INSTRUCTION.match(line):
            lines[inside].append(line)
    found = {}
    for body in lines.values():
        for line in body:
            match = _INSTRUCTION.match(line)
            if match is None:
                continue
            name, shape, kind = match.groups()
            called = _CALLS.search(line)
            inner = lines.get(called[1], []) if called and kind not in CONTAINERS else []
            found[name] = _operation(kind, shape, line, inner, sources)
    return found


def _operation(kind: str, shape: str, line: str, inner: list[str], sources: _Sources) -> Operation:
    # A fusion may have no name of its own; its last named operation speaks for it.
    named = next((each for each in [line, *reversed(inner)] if _NAME.search(each)), "")
    op_name = match[1] if (match := _NAME.search(named)) else ""
    frame = int(match[1]) if (match := _FRAME.search(named)) else 0
    kinds = [match[3] for each in inner if (match := _INSTRUCTION.match(each))]
    telling = next((k for k in kinds if k in ("dot", "convolution", "custom-call", "sort", "reduce")), kind)
    source, stack = sources.line(frame), sources.stack(frame)
    return Operation(
        telling, shape, _scope(op_name), _phase(op_name, stack), source, "\n".join([line, *inner])
    )


def _scope(op_name: str) -> str:
    text = op_name.partition(";")[0]  # of operations that were merged, the first
    text = _TRANSFORM.sub("", _COMPILED.sub("", text)).replace(")", "")
    parts = text.split("/")[:-1]
    return "/".join(part for part in parts if part and part not in _CONTROL and "<locals>" not in part)


def _phase(op_name: str, stack: str) -> str:
    if "transpose(" in op_name:
        return "backward"
    if "jvp(" in op_name:
        return "forward"
    return "optimizer" if "optimizer" in op_name or _OPTIMIZER.search(stack) else "other"


class _Sources:
    """The tables at the head of a module that say where operations come from."""

    def __init__(self, text: str) -> None:
        def table(title: str) -> dict[int, str]:
            part = text.partition(f"\n{title}\n")[2].partition("\n\n")[0]
            rows = (line.strip().split(" ", 1) for line in part.splitlines())
            return {int(row[0]): row[1] for row in rows if len(row) == 2 and row[0].isdigit()}

        def number(row: str, name: str) -> int:
            return int(match[1]) if (match := re.search(rf"\b{name}=(\d+)", row)) else 0

        files = {i: row.strip('"') for i, row in table("FileNames").items()}
        self._places = {
            i: (files.get(number(row, "file_name_id"), ""), number(row, "line"))
            for i, row in table("FileLocations").items()
        }
        self._frames = {
            i: (number(row, "file_location_id"), number(row, "parent_frame_id"))
            for i, row in table("StackFrames").items()
        }

    def _walk(self, frame: int) -> list[tuple[str, int]]:
        places = []
        while frame in self._frames:
            place, parent = self._frames[frame]
            places.append(self._places.get(place, ("", 0)))
            if parent == frame:
                break
            frame = parent
        return places

    def line(self, frame: int) -> str:
        """The innermost place that is not inside of an installed library, else the innermost of all."""
        places = self._walk(frame)
        own = [place for place in places if "site-packages" not in place[0]] or places
        return f"{own[0][0].rsplit('/', 1)[-1]}:{own[0][1]}" if own else ""

    def stack(self, frame: int) -> str:
        """All files from the innermost outwards."""
        return " ".join(file for file, _ in self._walk(frame))
