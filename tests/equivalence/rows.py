"""What a row of the equivalence tables is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

__all__ = [
    "EXACT",
    "HALF",
    "NOISE",
    "By",
    "Given",
    "Row",
    "Schedule",
    "Tolerance",
    "given",
    "real_dtype",
    "value_at",
]


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far from PyTorch a row may be, and why.

    Errors are relative to the largest magnitude that the element has had (`measure.relative_errors`).
    The limit is `rtol`, or `ulps` units in the last place of the value's dtype, or where that is more,
    `factor` times PyTorch's own noise on this very row: how far `variants` lie from `reference`, over all
    parameters. Two, the usual factor, is the triangle inequality: we and PyTorch's loop, each no further
    than that from the correctly rounded result.

    `strays` leaves may miss the limit, if they are within `stray_rtol`: where a value is rounded to
    bfloat16 on the way, the last bit before it can decide the rounding.
    """

    reason: str
    rtol: float = 0.0
    ulps: float = 0.0
    factor: float = 0.0
    variants: tuple[str, ...] = ()
    reference: str = "loop"
    strays: int = 0
    stray_rtol: float = 0.0

    def floor(self, dtype: np.dtype) -> float:
        return max(self.rtol, self.ulps * float(ml_dtypes.finfo(dtype).eps))


EXACT = Tolerance("float64: the same formulas; only the order of operations differs", rtol=1e-12)
NOISE = Tolerance(
    "PyTorch's foreach, fused and once-rounded arithmetics against its loop, measured on the row; "
    "4 ulp where they happen to agree to the bit",
    ulps=4,
    factor=2.0,
    variants=("foreach", "fused", "wide"),
)
# PyTorch's loop rounds every intermediate result to half precision, its fused kernels and we only the
# last. Our update is rounded once more, before it is added: the 4 ulp.
HALF = Tolerance(
    "float32 arithmetic rounded once a step, as fused kernels do; noise is PyTorch's distance from that",
    ulps=4,
    factor=1.0,
    variants=("foreach", "fused", "loop"),
    reference="wide",
)


@dataclasses.dataclass(frozen=True)
class Given:
    """A hyperparameter that we get as an array (so that it may change), and PyTorch as a number."""

    value: float


given = Given


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A hyperparameter that follows a function of the number of updates made."""

    function: Callable[[int], float]


@dataclasses.dataclass(frozen=True)
class By:
    """`by_path` here, a `param_group` for each parameter in PyTorch."""

    patterns: Mapping[str, Any]
    default: Any


@dataclasses.dataclass(frozen=True)
class Row:
    """One case: run both, compare the parameters and every slot after every step.

    Attributes:
      optimizer: our name.
      arguments: constructor arguments in PyTorch's names; values may be `Given`, `Schedule` or `By`.
      dtype: of the parameters; complex leaves get the complex dtype of the same precision.
      steps: number of updates.
      tolerance: and its reason.
      tree: name in `trees.TREES`.
      gradients: name in `trees.GRADIENTS`.
      changes: hyperparameter -> {step: value from this step on}, made with `set_hyperparams`.
      bucketed: whether to run `jo.bucketed` of the optimizer, and compare the parameters only.
      axes: our `axes` argument; the tree is then in our layout and PyTorch gets the transposed one.
    """

    optimizer: str
    arguments: Mapping[str, Any]
    dtype: str
    steps: int
    tolerance: Tolerance
    tree: str = "small"
    gradients: str = "normal"
    changes: Mapping[str, Mapping[int, Any]] = dataclasses.field(default_factory=dict)
    axes: Mapping[str, tuple[int, ...]] | None = None
    bucketed: bool = False

    def __str__(self) -> str:
        arguments = ",".join(f"{name}={_short(value)}" for name, value in self.arguments.items())
        changes = "".join(f"+{name}@{'/'.join(map(str, at))}" for name, at in self.changes.items())
        extras = [x for x, usual in ((self.tree, "small"), (self.gradients, "normal")) if x != usual]
        extras += ["axes"] * bool(self.axes) + ["bucketed"] * self.bucketed
        return "-".join([self.optimizer, arguments + changes or "defaults", self.dtype, *extras])


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ",".join(map(_short, value)) + ")"
    if isinstance(value, By):
        return (
            "by("
            + ",".join(f"{p}:{_short(v)}" for p, v in value.patterns.items())
            + f",{_short(value.default)})"
        )
    if isinstance(value, Given):
        return f"[{value.value:g}]"
    return "f(count)" if isinstance(value, Schedule) else str(value)


def value_at(when: Mapping[int, Any], t: int) -> Any:
    """The value of a change at step `t`: {step: value from this step on}."""
    return when[max(step for step in when if step <= t)]


def real_dtype(dtype: str) -> Any:
    """The dtype of the hyperparameters, for parameters of `dtype`."""
    return np.float64 if dtype == "float64" else np.float32
