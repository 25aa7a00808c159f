"""Curves of a run as one picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jaxopt_core.extras import needs_extra
from jaxopt_core.figures import COLORS, STYLE
from jaxopt_core.training.metrics import EpochMetrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TRAIN, _TEST = COLORS[:2]


def plot_curves(
    path: str | os.PathLike[str],
    epochs: Sequence[EpochMetrics],
    losses: NDArray[np.float32],
    title: str,
) -> None:
    """Draws loss and accuracy over the epochs, side by side, as a PNG.

    Args:
        path: the file to write.
        epochs: at least one row.
        losses: loss of every update of the run, drawn faintly behind the epochs' means.
        title: one line above the picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with needs_extra("train"):
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    # Figure instead of pyplot: no global state, and no display is looked for.
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13)
        loss_axes, accuracy_axes = figure.subplots(1, 2)
        _draw_loss(loss_axes, epochs, losses)
        _draw_accuracy(accuracy_axes, epochs)
        for axes in (loss_axes, accuracy_axes):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
            axes.set_xlim(0, 1.02 * len(epochs))
        # Plain numbers instead of powers, and more of them where there are few decades.
        low, high = loss_axes.get_ylim()
        loss_axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        loss_axes.yaxis.set_major_formatter("{x:g}")
        loss_axes.yaxis.set_minor_formatter(NullFormatter())
        figure.savefig(path, dpi=150, format="png")


def _draw_loss(axes: Axes, epochs: Sequence[EpochMetrics], losses: NDArray[np.float32]) -> None:
    step_x = np.arange(1, len(losses) + 1) / len(losses) * len(epochs)
    axes.plot(step_x, losses, color=_TRAIN, alpha=0.22, linewidth=0.7, label="training, each batch")
    _draw_pair(axes, [row.train_loss for row in epochs], [row.test_loss for row in epochs])
    axes.set(title="Cross-entropy loss", xlabel="epoch", ylabel="nats", yscale="log")
    axes.legend()


def _draw_accuracy(axes: Axes, epochs: Sequence[EpochMetrics]) -> None:
    test = [100 * row.test_accuracy for row in epochs]
    _draw_pair(axes, [100 * row.train_accuracy for row in epochs], test)
    axes.annotate(
        f"{test[-1]:.2f}",
        (len(test), test[-1]),
        xytext=(6, 0),
        textcoords="offset points",
        color=_TEST,
        va="center",
        weight="bold",
    )
    axes.set(title="Accuracy", xlabel="epoch", ylabel="percent")


def _draw_pair(axes: Axes, train: Sequence[float], test: Sequence[float]) -> None:
    ends = np.arange(1, len(train) + 1)
    # A line through one point is invisible; marks on many points are clutter.
    marker = "o" if len(train) <= 20 else ""
    # The mean over an epoch belongs in the middle of it, the test's figure at its end.
    for x, values, color, label in (
        (ends - 0.5, train, _TRAIN, "training, mean of the epoch"),
        (ends, test, _TEST, "test"),
    ):
        axes.plot(x, values, color=color, label=label, linewidth=1.8, marker=marker, markersize=4)
