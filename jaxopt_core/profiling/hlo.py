"""What the compiled programs say about their operations: kind, scope, phase, source line."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import jax

from jaxopt_core.profiling.buffers import Buffer, arrays, read_buffers

__all__ = ["Operation", "Product", "Program", "live_programs", "parse"]

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\(")
_CALLS = re.compile(r"(?:calls|to_apply|body)=%?([\w.-]+)")
_NAME = re.compile(r'op_name="([^"]*)"')
_LEFT = re.compile(r" dot\((?:\w+\[[\d,]*\](?:\{[^}]*\})? )?%?([\w.-]+)")
_KERNEL = re.compile(r" convolution\((?:[^()]*[ ,])?%?([\w.-]+)\)")
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_COMPILED = re.compile(r"p?jit\([^()/]*\)")
_TRANSFORM = re.compile(r"\b(?:jvp|transpose|vmap|checkpoint|rematted_computation|custom_vjp)\(")
_OPTIMIZER = re.compile(r"jaxopt_core/(optimizers|leaf|leafwise|gradients|averaging)|/optax/")
_CONTROL = ("while", "body", "cond", "closed_call", "branch", "scan", "checkpoint")
CONTAINERS = ("while", "call", "conditional", "async-start", "async-done")
"""Operations whose time is that of the operations inside."""


class Product(NamedTuple):
    """A matrix product: the dtype of its left factor, and its dimensions ``(m, k, n)``, batches in ``m``."""

    dtype: str
    dims: tuple[int, int, int]


class Operation(NamedTuple):
    """An operation of a compiled program.

    Attributes:
      kind: HLO's opcode; for a fusion that of the most telling operation inside.
      shape: of the result, as HLO writes it.
      scope: named scopes around it, ``a/b``; empty where there are none.
      phase: ``forward``, ``backward``, ``optimizer`` or ``other``.
      source: ``file:line`` of the Python that made it.
      product: the matrix product that it does, or None.
      flops: roughly; XLA counts better, but only whole programs.
      bytes: of the result.
      entry: whether it runs once a run of the program, and is in no loop or branch.
    """

    kind: str
    shape: str
    scope: str
    phase: str
    source: str
    product: Product | None = None
    flops: int = 0
    bytes: int = 0
    entry: bool = False


class Program(NamedTuple):
    """A compiled program.

    Attributes:
      name: of its module, ``jit_step``.
      operations: name -> operation.
      flops: as XLA counts them: the body of a loop once, for it does not know how often it will run.
      bytes: read and written, counted in the same way; what lies in a cache is counted too.
      memory: XLA's sizes of arguments, results, temporaries and aliases.
      buffers: arguments and results.
    """

    name: str
    operations: dict[str, Operation]
    flops: float
    bytes: float
    memory: Any
    buffers: list[Buffer]


def live_programs() -> list[Program]:
    """All programs that this process holds compiled, the newest first."""
    found = []
    for executable in jax.local_devices()[0].client.live_executables():
        module = executable.hlo_modules()[0]
        text = module.to_string()
        cost = executable.cost_analysis()
        cost = cost[0] if isinstance(cost, list) else cost
        memory = executable.get_compiled_memory_stats()
        found.append(
            Program(
                module.name,
                parse(text),
                cost.get("flops", 0.0),
                cost.get("bytes accessed", 0.0),
                memory,
                read_buffers(text),
            )
        )
    return found


def parse(text: str) -> dict[str, Operation]:
    """The operations in the text of an optimized HLO module."""
    sources = _Sources(text)
    lines: dict[str, list[str]] = {}
    shapes: dict[str, str] = {}
    inside = entry = ""
    for line in text.splitlines():
        if line.endswith("{") and "(" in line and "->" in line:
            inside = line.strip().removeprefix("ENTRY ").lstrip("%").split(" ", 1)[0]
            entry = inside if line.startswith("ENTRY ") else entry
            lines[inside] = []
        elif inside and (match := _INSTRUCTION.match(line)):
            lines[inside].append(line)
            shapes[match[1]] = match[2]
    found = {}
    for computation, body in lines.items():
        for line in body:
            match = _INSTRUCTION.match(line)
            if match is None:
                continue
            name, shape, kind = match.groups()
            called = _CALLS.search(line)
            inner = lines.get(called[1], []) if called and kind not in CONTAINERS else []
            operation = _operation(kind, shape, line, inner, sources)
            found[name] = operation._replace(
                product=next((each for x in [line, *inner] if (each := _product(x, shapes))), None),
                flops=sum(_flops(each, shapes) for each in inner or [line]),
                bytes=sum(each.bytes for each in arrays(shape)),
                entry=computation == entry,
            )
    return found


def _operation(kind: str, shape: str, line: str, inner: list[str], sources: _Sources) -> Operation:
    # A fusion may have no name of its own; its last named operation speaks for it.
    named = next((each for each in [line, *reversed(inner)] if _NAME.search(each)), "")
    op_name = match[1] if (match := _NAME.search(named)) else ""
    frame = int(match[1]) if (match := _FRAME.search(named)) else 0
    kinds = [match[3] for each in inner if (match := _INSTRUCTION.match(each))]
    telling = next((k for k in kinds if k in ("dot", "convolution", "custom-call", "sort", "reduce")), kind)
    source, stack = sources.line(frame), sources.stack(frame)
    return Operation(telling, shape, _scope(op_name), _phase(op_name, stack), source)


def _product(line: str, shapes: dict[str, str]) -> Product | None:
    if " dot(" not in line:
        return None
    instruction, left = _INSTRUCTION.match(line), _LEFT.search(line)
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line)
    if not (instruction and left and contracted and left[1] in shapes):
        return None
    factor, result = arrays(shapes[left[1]])[0], arrays(instruction[2])[0].shape
    k = math.prod(factor.shape[int(axis)] for axis in contracted[1].split(",") if axis)
    n = result[-1] if len(result) > 1 else 1
    return Product(factor.dtype, (math.prod(result) // max(n, 1), k, n))


def _flops(line: str, shapes: dict[str, str]) -> int:
    """Those of products and convolutions, and one for each element of what else is computed."""
    if product := _product(line, shapes):
        return 2 * math.prod(product.dims)
    instruction, kernel = _INSTRUCTION.match(line), _KERNEL.search(line)
    if instruction is None or instruction[3] in ("parameter", "constant"):
        return 0
    elements = sum(math.prod(each.shape) for each in arrays(instruction[2]))
    labels = re.search(r"dim_labels=\w+_(\w+)->", line)
    if not (kernel and labels and kernel[1] in shapes):
        return elements
    weights = arrays(shapes[kernel[1]])[0].shape
    return 2 * elements * math.prod(weights) // max(weights[labels[1].index("o")], 1)


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
