"""Curves of one run, or of several side by side, as one picture."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxopt_core.extras import needs_extra
from jaxopt_core.figures import COLORS, STYLE
from jaxopt_core.training.loggers import read_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Curves", "plot_curves", "read_curves"]

_LABELS = {
    "accuracy": "accuracy",
    "bits": "bits per character",
    "cer": "character error rate",
    "rmse": "root mean square error",
}


class Curves(NamedTuple):
    """What a run wrote down.

    Attributes:
      steps: column of ``steps.csv`` -> its values, one for each update.
      rows: column of ``metrics.csv`` -> its values, one for each validation.
    """

    steps: dict[str, list[float]]
    rows: dict[str, list[float]]


def read_curves(folder: str | os.PathLike[str]) -> Curves:
    """Reads the two files of :class:`~jaxopt_core.training.CsvLogger`.

    Raises:
      FileNotFoundError: one is missing.
      ValueError: one is not what it should be.
    """
    return Curves(read_csv(Path(folder) / "steps.csv"), read_csv(Path(folder) / "metrics.csv"))


def plot_curves(path: str | os.PathLike[str], runs: Mapping[str, Curves], title: str) -> None:
    """Draws loss, the validation's metric, learning rate and gradient norm over the updates, as a PNG.

    Args:
      path: the file to write.
      runs: name -> curves. Of one run the loss of every batch is drawn, faintly; of several only the means.
      title: one line above the picture.

    Raises:
      MissingExtraError: matplotlib is not installed.
      ValueError: there is no run, or one without a row.
    """
    if not runs:
        raise ValueError("expected at least one run to draw, got none")
    for name, curves in runs.items():
        if not curves.rows.get("step"):
            raise ValueError(f"{name}: expected at least one line in metrics.csv, found none")
    with needs_extra("train"):
        import matplotlib as mpl
        from matplotlib.figure import Figure

    # Figure instead of pyplot: no global state, and no display is looked for.
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 7), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13)
        (loss, metric), (rate, norm) = figure.subplots(2, 2)
        _draw_loss(loss, runs)
        _draw_metric(metric, runs)
        _draw_steps(rate, runs, "lr", "Learning rate")
        _draw_steps(norm, runs, "grad_norm", "Gradient norm, before clipping")
        for axes in (loss, metric, rate, norm):
            axes.set_xlabel("update")
            axes.set_xlim(0, 1.02 * max(curves.rows["step"][-1] for curves in runs.values()))
        figure.savefig(path, dpi=150, format="png")


def _draw_loss(axes: Axes, runs: Mapping[str, Curves]) -> None:
    for i, (name, curves) in enumerate(runs.items()):
        one, color = len(runs) == 1, COLORS[i % len(COLORS)]
        steps, rows = curves.steps, curves.rows
        if one and "loss" in steps:
            label = "training, each batch"
            axes.plot(steps["step"], steps["loss"], color=color, alpha=0.22, linewidth=0.7, label=label)
        if "train_loss" in rows:
            # A mean over an interval belongs in the middle of it.
            ends = np.asarray([0.0, *rows["step"]])
            mean = "training, mean" if one else None
            _line(axes, (ends[1:] + ends[:-1]) / 2, rows["train_loss"], color, mean, dashed=not one)
        if "val_loss" in rows:
            color = COLORS[1] if one else color
            _line(axes, rows["step"], rows["val_loss"], color, "validation" if one else name)
    axes.set(title="Loss" if len(runs) == 1 else "Loss (training dashed)")
    _log_scale(axes)
    axes.legend()


def _draw_metric(axes: Axes, runs: Mapping[str, Curves]) -> None:
    """The first metric of the validation that is not its loss."""
    first = next(iter(runs.values())).rows
    names = [name.removeprefix("val_") for name in first if name.startswith("val_") and name != "val_loss"]
    if not names:
        axes.set_title("No metric but the loss")
        return
    name = names[0]
    for i, (run, curves) in enumerate(runs.items()):
        rows, one = curves.rows, len(runs) == 1
        if one and f"train_{name}" in rows:
            ends = np.asarray([0.0, *rows["step"]])
            _line(axes, (ends[1:] + ends[:-1]) / 2, rows[f"train_{name}"], COLORS[0], "training, mean")
        if f"val_{name}" in rows:
            values, color = rows[f"val_{name}"], COLORS[1] if one else COLORS[i % len(COLORS)]
            _line(axes, rows["step"], values, color, "validation" if one else run)
            axes.annotate(
                f"{values[-1]:.4g}",
                (rows["step"][-1], values[-1]),
                xytext=(0, -14),
                textcoords="offset points",
                color=color,
                ha="right",
                weight="bold",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
            )
    label = _LABELS.get(name, name)
    axes.set(title=label[0].upper() + label[1:])
    axes.margins(y=0.12)  # room for the numbers
    axes.legend()


def _draw_steps(axes: Axes, runs: Mapping[str, Curves], column: str, title: str) -> None:
    for i, (name, curves) in enumerate(runs.items()):
        color = COLORS[i % len(COLORS)]
        for found, values in curves.steps.items():
            if found == column or found.startswith(f"{column}/"):
                axes.plot(curves.steps["step"], values, color=color, linewidth=0.8, label=name)
    axes.set(title=title)
    if column == "grad_norm":
        _log_scale(axes)


def _line(
    axes: Axes,
    x: NDArray[np.float64] | list[float],
    y: list[float],
    color: str,
    label: str | None,
    *,
    dashed: bool = False,
) -> None:
    # A line through one point is invisible; marks on many points are clutter.
    marker = "o" if len(y) <= 20 else ""
    style = "--" if dashed else "-"
    axes.plot(x, y, style, color=color, label=label, linewidth=1.8, marker=marker, markersize=4)


def _log_scale(axes: Axes) -> None:
    """Plain numbers instead of powers, and more of them where there are few decades."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low = min((np.min(line.get_ydata()) for line in axes.get_lines()), default=1.0)
    if not low > 0:
        return
    axes.set_yscale("log")
    bottom, top = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if top < 100 * bottom else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
