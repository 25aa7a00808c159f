"""A flame picture: scopes above their parts, as wide as their time."""

from __future__ import annotations

import os

from jaxopt_core.extras import needs_extra
from jaxopt_core.figures import COLORS, STYLE
from jaxopt_core.profiling.report import Profile

__all__ = ["plot_flame"]

Box = tuple[int, float, float, str, str]


def plot_flame(profile: Profile, path: str | os.PathLike[str]) -> None:
    """Draws recorded time by phase, scope, source line and operation, as PNG or SVG by the name's end.

    Raises:
      MissingExtraError: matplotlib is not installed.
    """
    with needs_extra("train"):
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle

    stacks: dict[tuple[str, ...], float] = {}
    for operation, seconds, name in profile.operations():
        scopes = operation.scope.split("/") if operation.scope else []
        stack = (operation.phase, *scopes, operation.source or "(no line)", name)
        stacks[stack] = stacks.get(stack, 0.0) + seconds
    if profile.waiting:
        stacks[("data",)] = profile.waiting
    boxes = _boxes(sorted(stacks.items()))
    whole, depth = sum(stacks.values()), 1 + max(level for level, *_ in boxes)
    phases = sorted({stack[0] for stack in stacks})
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(12, 1.2 + 0.42 * depth), layout="constrained")
        axes = figure.subplots()
        for level, start, width, label, phase in boxes:
            color = COLORS[phases.index(phase) % len(COLORS)]
            alpha = 0.95 if level == 0 else 0.75 if level % 2 else 0.6
            axes.add_patch(
                Rectangle((start, level), width, 0.94, facecolor=color, alpha=alpha, edgecolor="white")
            )
            room = int(width / whole * 150)
            if room > 4:
                text = label if len(label) <= room else label[: room - 1] + "…"
                axes.text(
                    start + width / 2, level + 0.47, text, ha="center", va="center", fontsize=8, color="white"
                )
        axes.set(
            xlim=(0, whole),
            ylim=(0, depth),
            title=f"{profile.steps} steps, {1e3 * whole:.2f} ms of operations",
        )
        axes.set_axis_off()
        axes.set_title(f"{profile.steps} steps, {1e3 * whole:.2f} ms of operations")
        figure.savefig(path, dpi=150)


def _boxes(stacks: list[tuple[tuple[str, ...], float]]) -> list[Box]:
    """Level, start, width, label and phase of each box; neighbours with a common beginning share one."""
    boxes: list[Box] = []
    start = 0.0
    open_: list[tuple[str, float]] = []

    def close(upto: int, end: float, phase: str) -> None:
        while len(open_) > upto:
            label, begun = open_.pop()
            boxes.append((len(open_), begun, end - begun, label, phase))

    phase = ""
    for stack, seconds in stacks:
        shared = 0
        while shared < min(len(open_), len(stack)) and open_[shared][0] == stack[shared]:
            shared += 1
        close(shared, start, phase)
        phase = stack[0]
        open_.extend((label, start) for label in stack[shared:])
        start += seconds
    close(0, start, phase)
    return boxes
