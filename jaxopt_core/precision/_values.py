"""What is known about a value before a program runs, and what is decided about an operation."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

__all__ = ["Cast", "Decision", "Inner", "Origin", "Plan", "Value"]


class Origin(enum.IntEnum):
    """Where a value comes from; the higher, the less it has a say in the type of what it meets."""

    DATA = 0
    SCALAR = 1  # an argument without dimensions, which PyTorch does not let widen a tensor either
    CONSTANT = 2  # a number in the source, and what is made of such numbers alone


class Value(NamedTuple):
    """A value that was traced in float32, or any other, for which nothing here is ever true.

    Attributes:
      low: it is held in the low type.
      origin: see :class:`Origin`.
      product: it came out of a matrix product or a convolution, perhaps reshaped.
      spread: it was broadcast from something smaller.
    """

    low: bool = False
    origin: Origin = Origin.DATA
    product: bool = False
    spread: bool = False


class Cast(enum.Enum):
    """What happens to one operand on its way in."""

    KEEP = "keep"
    LOW = "low"
    LOW_CONSTANT = "low, finite numbers staying finite"
    FLOAT32 = "float32"
    SPREAD = "broadcast to the shape of the result, in float32 because its gradient is a sum, then low"


class Inner(NamedTuple):
    """A program inside an operation: the body of a loop, a branch, a function.

    Attributes:
      jaxpr: the program.
      values: what its arguments are.
      plan: how it runs.
      outs: what its results have to be, where the operation pins them.
    """

    jaxpr: Any
    values: tuple[Value, ...]
    plan: Plan
    outs: tuple[Value, ...]


class Decision(NamedTuple):
    """How one operation runs.

    Attributes:
      casts: one for every operand.
      outs: what its results are.
      ran: ``"low"``, ``"float32"``, ``"rounded"`` (in float32, its result then rounded to the low type) or
        ``""`` for an operation that has nothing to do with float32.
      why: the rule, for the report.
      wide: for every operand, whether it would be read in float32 if it came so.
      inner: the programs in it, in the order of its parameters.
    """

    casts: tuple[Cast, ...]
    outs: tuple[Value, ...]
    ran: str
    why: str
    wide: tuple[bool, ...] = ()
    inner: tuple[Inner, ...] = ()


class Plan(NamedTuple):
    """How a program runs.

    Attributes:
      decisions: one for every equation.
      outs: what its results are.
      wide: for every argument, whether all that reads it reads it in float32.
    """

    decisions: tuple[Decision, ...]
    outs: tuple[Value, ...]
    wide: tuple[bool, ...]
