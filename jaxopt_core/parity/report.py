"""What a comparison found: a table, a verdict and a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxopt_core.extras import needs_extra
from jaxopt_core.figures import COLORS, STYLE
from jaxopt_core.parity.differences import Difference, Divergence

__all__ = ["Parity"]


@dataclasses.dataclass(frozen=True)
class Parity:
    """How far a run here was from PyTorch's; printed, a table with a verdict.

    Attributes:
      optimizer: PyTorch's name of it.
      dtype: in which both computed.
      size: number of elements of the parameters.
      series: ``"params"``, ``"lr"`` or slot -> per step: our difference from PyTorch's loop, that of
        PyTorch's other implementations, and the difference of the norm that is allowed.
      variants: these implementations; the largest difference of any of them is the noise.
      first: the first value beyond what is allowed, or ``None``.
    """

    optimizer: str
    dtype: str
    size: int
    series: Mapping[str, Sequence[tuple[Difference, Difference, float]]]
    variants: tuple[str, ...]
    first: Divergence | None

    @property
    def ok(self) -> bool:
        """Whether nothing was further from PyTorch than allowed."""
        return self.first is None

    @property
    def steps(self) -> int:
        """How many updates were made."""
        return len(self.series["params"])

    def __str__(self) -> str:
        noise = " and ".join(self.variants) or "no second implementation"
        title = (
            f"{self.optimizer}, {self.size} parameters, {self.dtype}, {self.steps} steps. Largest difference "
            f"from PyTorch's loop; in brackets PyTorch's own ({noise})."
        )
        rows = [["step", "of", "absolute", "", "relative", "", "ulp", "", "norm", "", "allowed"]]
        for step in checkpoints(self.steps):
            for quantity, by_step in self.series.items():
                ours, floor, allowed = by_step[step - 1]
                cells = [x for pair in zip(ours, floor, strict=True) for x in pair]
                texts = [_number(x, is_ulp=i in (4, 5)) for i, x in enumerate(cells)]
                shown = [f"({text})" if i % 2 else text for i, text in enumerate(texts)]
                rows.append([str(step), quantity, *shown, f"{allowed:.1e}"])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([title, "", *lines, "", self.verdict])

    __repr__ = __str__

    @property
    def verdict(self) -> str:
        """Equal, or the first value that is not."""
        if self.first is None:
            return f"Equal: within PyTorch's noise at each of {self.steps} steps."
        return f"Different, first at {self.first}"

    def plot(self, path: str | Path) -> None:
        """Draws the relative differences over the steps, ours and PyTorch's own.

        Args:
          path: the file to write, its format by its ending.

        Raises:
          MissingExtraError: matplotlib is not installed.
        """
        with needs_extra("parity"):
            from matplotlib.figure import Figure
            from matplotlib.style import context
        steps = range(1, self.steps + 1)
        with context(STYLE):
            figure = Figure(figsize=(8, 4.5), layout="constrained")
            axes: Any = figure.subplots()
            for color, (quantity, by_step) in zip(COLORS * 3, self.series.items(), strict=False):
                ours, floor = [row[0].norm for row in by_step], [row[1].norm for row in by_step]
                axes.plot(steps, _drawn(ours), color=color, label=quantity)
                if any(floor):
                    axes.plot(steps, _drawn(floor), color=color, linestyle=":", linewidth=1.2)
            axes.plot([], [], color="#555555", linestyle=":", label="PyTorch against itself")
            if self.first is not None:
                axes.axvline(self.first.step, color="#333333", linewidth=0.8)
                axes.annotate(
                    "first beyond", (self.first.step, 1), xycoords=("data", "axes fraction"), va="top"
                )
            axes.set_yscale("log")
            axes.set_xlabel("step")
            axes.set_ylabel("difference, relative to the norm")
            axes.set_title(f"{self.optimizer}, {self.dtype}: distance from PyTorch's loop")
            axes.legend(fontsize=9)
            figure.savefig(path, dpi=150)


def checkpoints(steps: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... and the last.

    Example:
      >>> checkpoints(30)
      [1, 2, 5, 10, 20, 30]
    """
    round_ones = [m * 10**e for e in range(len(str(steps))) for m in (1, 2, 5)]
    return [*(step for step in round_ones if step < steps), steps]


def _number(value: float, *, is_ulp: bool) -> str:
    if value == 0:
        return "0"
    return f"{value:.1f}" if is_ulp and value < 1e5 else f"{value:.1e}"


def _drawn(values: list[float]) -> list[float]:
    return [value if value > 0 else float("nan") for value in values]  # log 0 has no place
