"""The arrays that a compiled program takes and returns."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

__all__ = ["Array", "Buffer", "arrays", "read_buffers"]

_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_PARAMETER = re.compile(r"^\s*(?:ROOT )?%?[\w.-]+ = (\S+) parameter\((\d+)\)")
_ROOT = re.compile(r"^\s*ROOT %?[\w.-]+ = (\(.*?\)|\S+) [\w-]+\(")
_PATH = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
_ALIAS = re.compile(r"\{(\d*)\}: \((\d+), \{\}")


class Array(NamedTuple):
    """A dtype, as HLO writes it (``f32``), and dimensions."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    @property
    def bytes(self) -> int:
        """Its size; 0 for a token, which is no data."""
        bits = re.search(r"\d+", self.dtype)
        each = int(bits[0]) if bits else 8 * (self.dtype == "pred")
        return math.ceil(math.prod(self.shape) * each / 8)


class Buffer(NamedTuple):
    """An argument or a result of a program, as one device holds it.

    Attributes:
      role: ``argument`` or ``result``.
      path: of an argument, as JAX names it: ``state.params['w']``; empty for a result.
      array: its dtype and shape.
      reused: whether the result is written over the argument.
    """

    role: str
    path: str
    array: Array
    reused: bool

    def __str__(self) -> str:
        name = f"{self.role} {self.path}".strip()
        return f"{name} {self.array} {self.array.bytes / 2**20:.2f} MiB"


def arrays(shape: str) -> list[Array]:
    """The arrays in a shape as HLO writes it, several in a tuple."""
    found = _ARRAY.findall(shape)
    return [Array(dtype, tuple(int(d) for d in dims.split(",") if d)) for dtype, dims in found]


def read_buffers(text: str) -> list[Buffer]:
    """Arguments and results of an optimized HLO module."""
    aliased = _ALIAS.findall(text.partition("\n")[0])
    over, under = {int(result or 0) for result, _ in aliased}, {int(argument) for _, argument in aliased}
    found = []
    for line in text.partition("\nENTRY ")[2].partition("\n}")[0].splitlines():
        if match := _PARAMETER.match(line):
            path = name[1].replace("\\", "") if (name := _PATH.search(line)) else ""
            found += [Buffer("argument", path, each, int(match[2]) in under) for each in arrays(match[1])]
        if match := _ROOT.match(line):
            found += [Buffer("result", "", each, i in over) for i, each in enumerate(arrays(match[1]))]
    return found
