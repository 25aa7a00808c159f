"""What a compiled program communicates: its collectives, how often they run, and their bytes."""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

__all__ = ["Collective", "collectives", "count_collectives", "traffic"]

_OPS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_HEADER = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\) -> .*\{$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (?P<type>\(.*?\)|\S+) (?P<op>[\w\-]+)\((?P<rest>.*)$")
_ARRAY = re.compile(r"(?P<dtype>[a-z]+[0-9a-z]*)\[(?P<shape>[\d,]*)\]")
_CALLED = re.compile(r"(?:to_apply|body|calls|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count"?:\{"n":"(\d+)"')


class Collective(NamedTuple):
    """A collective operation of a program.

    Attributes:
      op: ``all-reduce``, ``all-gather``, ``reduce-scatter``, ``all-to-all`` or ``collective-permute``.
      times: how often one run of the program executes it: the product of the trip counts of the loops
        around it. A loop of unknown length counts once.
      dtype: of what travels, in XLA's words (``f32``). Of several arrays in one operation, the first's.
      bytes: of the whole array: what is reduced, or the result of a gather.
      group: devices that take part together.
    """

    op: str
    times: int
    dtype: str
    bytes: int
    group: int

    @property
    def sent(self) -> float:
        """Bytes that each device sends in one run, on a ring, which is the least that is possible.

        ``2 (n-1)/n`` of the array for an all-reduce, ``(n-1)/n`` for half of one; source: Patarasuk and
        Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009.
        """
        share = (self.group - 1) / self.group
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.op, share)
        return self.times * self.bytes * factor


def collectives(compiled: Any) -> list[Collective]:
    """The collectives of a compiled program, in the order of its text.

    Args:
      compiled: what ``.lower(...).compile()`` returns, or its text.

    Returns:
      One entry for each operation; those among one device only are left out.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_core.parallel import collectives, data_parallel, mesh
      >>> many = mesh()
      >>> step = data_parallel(lambda state, batch: (state, {"mean": jnp.mean(batch["x"])}), many)
      >>> found = collectives(step.lower({}, {"x": jnp.ones(8 * many.size)}).compile())
      >>> [(c.op, c.times, c.bytes) for c in found] == [("all-reduce", 1, 4)] * (many.size > 1)
      True
    """
    text = compiled if isinstance(compiled, str) else compiled.as_text()
    devices = re.search(r"(?:num_partitions|replica_count)=(\d+)", text)
    lines, entry = _computations(text)
    return list(_walk(lines, entry, 1, int(devices[1]) if devices else 1))


def count_collectives(compiled: Any) -> dict[str, int]:
    """Operation -> how often one run of a program executes it.

    Example:
      See :func:`collectives`.
    """
    counts: collections.Counter[str] = collections.Counter()
    for each in collectives(compiled):
        counts[each.op] += each.times
    return dict(counts)


def traffic(found: Iterable[Collective]) -> float:
    """Bytes that each device sends in one run of a program, on a ring; see :attr:`Collective.sent`."""
    return sum(each.sent for each in found)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    lines: dict[str, list[str]] = {}
    entry, current = "", ""
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = header["name"]
            lines[current] = []
            entry = current if header["entry"] else entry
        elif current:
            lines[current].append(line)
    return lines, entry


def _walk(lines: dict[str, list[str]], name: str, times: int, devices: int) -> Iterator[Collective]:
    for line in lines.get(name, []):
        found = _LINE.match(line)
        if not found:
            continue
        op = found["op"].removesuffix("-start")
        if op in _OPS:
            each = _collective(op, times, found["type"], found["rest"], devices)
            if each.group > 1:
                yield each
            continue
        inside = times
        if op == "while" and (trips := _TRIPS.search(line)):
            inside = times * int(trips[1])
        names = _CALLED.findall(line)
        for branches in _BRANCHES.findall(line):
            names += re.findall(r"%?([\w.\-]+)", branches)
        for called in names:
            yield from _walk(lines, called, inside, devices)


def _collective(op: str, times: int, type_: str, rest: str, devices: int) -> Collective:
    group = _group(rest, devices)
    arrays = _ARRAY.findall(type_)
    size = sum(_bytes(dtype) * math.prod(int(n) for n in shape.split(",") if n) for dtype, shape in arrays)
    if op == "reduce-scatter":
        size *= group
    return Collective(op, times, arrays[0][0], size, group)


def _group(rest: str, devices: int) -> int:
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=", rest):
        return int(iota[1].split(",")[-1])
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return len(listed[1].split(","))
    return devices


def _bytes(dtype: str) -> int:
    bits = re.search(r"\d+", dtype)
    return max(1, int(bits[0]) // 8) if bits else 1  # pred has no number
