"""Draws ``step.svg``: one step of training in PyTorch, and here. Run ``python docs/pictures/step.py``."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

BLUE, RED, INK = "#3b6fb6", "#d1495b", "#333333"


def box(
    axes: Axes, x: float, y: float, text: str, color: str, *, width: float = 1.9, code: bool = True
) -> None:
    """A rounded box with text in it, its left edge at ``x`` and its middle at ``y``."""
    shape = FancyBboxPatch((x, y - 0.3), width, 0.6, boxstyle="round,pad=0,rounding_size=0.12")
    shape.set(facecolor=color + "1a", edgecolor=color, linewidth=1.2)
    axes.add_patch(shape)
    font = "monospace" if code else "sans-serif"
    axes.text(x + width / 2, y, text, ha="center", va="center", family=font, fontsize=9.5, color=INK)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], bend: float = 0.0) -> None:
    """An arrow between two points."""
    style = f"arc3,rad={bend}"
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=INK, connectionstyle=style)
    )


def in_place(axes: Axes) -> None:
    """PyTorch: objects that change."""
    axes.set_title("PyTorch: objects change in place", loc="left", color=RED, fontweight="bold", fontsize=11)
    box(axes, 0, 2.6, "batch", INK, width=1.6)
    box(axes, 0, 1.5, "loss.backward()", RED, width=2.3)
    box(axes, 0, 0.4, "optimizer.step()", RED, width=2.3)
    box(axes, 4.2, 1.5, "model\nparameters, .grad", RED, code=False, width=2.2)
    box(axes, 4.2, 0.4, "optimizer\nits state", RED, code=False, width=2.2)
    arrow(axes, (0.8, 2.3), (0.8, 1.82))
    arrow(axes, (0.8, 1.2), (0.8, 0.72))
    arrow(axes, (2.35, 1.5), (4.15, 1.5))
    arrow(axes, (2.35, 0.5), (4.15, 1.3))
    arrow(axes, (2.35, 0.4), (4.15, 0.4))
    axes.text(3.25, 1.62, "writes .grad", ha="center", fontsize=8.5, color=INK)
    axes.text(3.25, 0.16, "changes both", ha="center", fontsize=8.5, color=INK)


def as_function(axes: Axes) -> None:
    """Here: a function, and what goes in and comes out."""
    axes.set_title("here: a step is a function", loc="left", color=BLUE, fontweight="bold", fontsize=11)
    for y, name in ((2.6, "params"), (1.5, "state"), (0.4, "batch")):
        box(axes, 0, y, name, BLUE if name != "batch" else INK, width=1.4)
        arrow(axes, (1.45, y), (2.35, 1.5 + (y - 1.5) * 0.3))
    box(axes, 2.4, 1.5, "step", BLUE, width=1.4)
    axes.text(3.1, 0.72, "jax.jit:\none program", ha="center", va="center", fontsize=8.5, color=INK)
    for y, name in ((2.6, "params"), (1.5, "state")):
        box(axes, 4.8, y, "new " + name, BLUE, width=1.7)
        arrow(axes, (3.85, 1.5 + (y - 1.5) * 0.3), (4.75, y))
    arrow(axes, (5.65, 2.95), (0.7, 2.95), bend=0.16)
    axes.text(3.2, 3.6, "you assign them, and the next step takes them", ha="center", fontsize=8.5, color=INK)


def main() -> None:
    """Writes the picture beside this script."""
    mpl.rcParams |= {"svg.hashsalt": "step", "svg.fonttype": "path"}  # the same file every time
    figure = Figure(figsize=(10, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, draw in ((left, in_place), (right, as_function)):
        draw(axes)
        axes.set(xlim=(-0.1, 6.6), ylim=(0, 3.8))
        axes.axis("off")
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
