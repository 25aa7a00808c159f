"""Scores as pictures: confusion, ROC, errors of numbers, loss by position, and layers over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxopt_core.evaluation._figure import StrPath, picture
from jaxopt_core.evaluation.classes import Confusion
from jaxopt_core.evaluation.roc import RocCurve
from jaxopt_core.figures import COLORS

__all__ = ["plot_confusion", "plot_errors", "plot_layers", "plot_positions", "plot_roc"]


def plot_confusion(path: StrPath, confusion: Confusion, names: Sequence[str] | None = None) -> None:
    """Draws the table of counts, coloured by each row's shares, with recall and precision at its sides.

    Args:
        path: the PNG to write.
        confusion: of at least one example.
        names: of the classes. Default: their numbers.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ValueError: nothing was counted.
    """
    counts = confusion.counts
    size = confusion.num_classes
    if not counts.sum():
        raise ValueError("expected at least one example to draw, got none")
    names = [str(i) for i in range(size)] if names is None else list(names)
    rows = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(rows, 1)
    recall, precision = confusion.recall(None), confusion.precision(None)
    side = 3.2 + 0.55 * size
    with picture(path, (side + 0.4, side)) as figure:
        axes = figure.subplots()
        is_short = max(map(len, names)) < 4
        turned: Any = {} if is_short else {"rotation": 45, "ha": "left", "rotation_mode": "anchor"}
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for i in range(size):
            for j in range(size):
                color = "white" if shares[i, j] > 0.6 else "#333333" if counts[i, j] else "#cccccc"
                axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=color, fontsize=9)
            axes.text(size - 0.3, i, f"{recall[i]:.3f}", va="center", fontsize=9)
            axes.text(i, size - 0.3, f"{precision[i]:.3f}", ha="center", va="top", fontsize=9, rotation=45)
        axes.text(size - 0.3, -0.75, "recall", fontsize=9, style="italic")
        axes.text(-0.75, size - 0.3, "precision", fontsize=9, style="italic", ha="right", va="top")
        axes.set_xticks(range(size), names, **turned)
        axes.set_yticks(range(size), names)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        right, total = int(np.trace(counts)), int(counts.sum())
        figure.suptitle(f"{right} of {total} right: {right / total:.4f}", x=0.02, ha="left", fontsize=12)


def plot_roc(path: StrPath, curves: Sequence[RocCurve]) -> None:
    """Draws the curves of :func:`roc_curves`, and good ones beside it with the upper left corner enlarged.

    Args:
        path: the PNG to write.
        curves: at least one.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ValueError: there is no curve.
    """
    if not curves:
        raise ValueError("expected at least one curve to draw, got none")
    panels = 2 if max(curve.auc for curve in curves) > 0.95 else 1
    with picture(path, (5.5 * panels, 5)) as figure:
        whole, *corners = figure.subplots(1, panels, squeeze=False)[0]
        for axes in (whole, *corners):
            for i, curve in enumerate(curves):
                style = {
                    "color": COLORS[i % len(COLORS)],
                    "linestyle": ("-", "--", ":")[i // len(COLORS) % 3],
                }
                label = f"{curve.name}: {curve.auc:.4f}"
                axes.plot(curve.false_positives, curve.true_positives, label=label, **style)
            axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
            axes.set_xlabel("false positive rate")
        whole.set_ylabel("true positive rate")
        whole.set_xlim(-0.01, 1.01)
        whole.set_ylim(-0.01, 1.01)
        whole.set_title(f"ROC, mean area {np.mean([curve.auc for curve in curves]):.4f}")
        for corner in corners:
            corner.set_xlim(-0.002, 0.2)
            corner.set_ylim(0.8, 1.002)
            corner.set_title("Its upper left corner")
        whole.legend(title="area", fontsize=8, ncols=1 + len(curves) // 8, loc="lower right")


def plot_errors(path: StrPath, targets: Any, predicted: Any) -> None:
    """Draws predicted numbers over the true ones, and how the errors are distributed.

    Args:
        path: the PNG to write.
        targets: the true numbers, of shape ``(N,)``.
        predicted: of the same shape.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ValueError: shapes that do not fit, or no number.
    """
    targets, predicted = np.asarray(targets, np.float64), np.asarray(predicted, np.float64)
    if targets.shape != predicted.shape or targets.ndim != 1 or not targets.size:
        raise ValueError(f"expected two columns of as many numbers, got {targets.shape}, {predicted.shape}")
    errors = predicted - targets
    rmse = float(np.sqrt(np.mean(errors**2)))
    with picture(path, (11, 5)) as figure:
        left, right = figure.subplots(1, 2)
        low, high = min(targets.min(), predicted.min()), max(targets.max(), predicted.max())
        left.hexbin(targets, predicted, gridsize=50, bins="log", cmap="Blues", mincnt=1)
        left.plot([low, high], [low, high], color=COLORS[1], linewidth=1)
        left.set_xlabel("true")
        left.set_ylabel("predicted")
        left.set_title(f"{len(targets)} predictions")
        right.hist(errors, bins=60, color=COLORS[0])
        right.set_xlabel("predicted minus true")
        right.set_title(f"RMSE {rmse:.4f}, mean error {errors.mean():+.4f}")


def plot_positions(path: StrPath, losses: Any, unit: str) -> None:
    """Draws a sequence model's loss by position: how much what came before helps.

    Args:
        path: the PNG to write.
        losses: mean loss at each position, of shape ``(length,)``.
        unit: of the losses.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ValueError: not a row of numbers.
    """
    losses = np.asarray(losses, np.float64)
    if losses.ndim != 1 or not losses.size:
        raise ValueError(f"expected a loss for each position, got shape {losses.shape}")
    with picture(path, (8, 4.5)) as figure:
        axes = figure.subplots()
        axes.plot(np.arange(1, len(losses) + 1), losses, color=COLORS[0])
        axes.axhline(losses.mean(), color="#999999", linewidth=1, linestyle="--")
        axes.annotate(f"mean {losses.mean():.3f}", (len(losses), losses.mean()), ha="right", va="bottom")
        axes.set_xlabel("tokens read")
        axes.set_ylabel(unit)
        axes.set_title("Loss of the next token by position")


def plot_layers(path: StrPath, steps: Sequence[int], layers: Mapping[str, Any], title: str) -> None:
    """Draws one number for each layer over training, such as its gradient's norm, as colours.

    Args:
        path: the PNG to write.
        steps: when it was measured, ascending.
        layers: name -> as many numbers, at least 0; the first layer is drawn at the top. Zero, a dead layer,
            is black; infinities and NaN are red.
        title: what the number is.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ValueError: no layer, or not a number for each step.
    """
    table = np.array([np.asarray(values, np.float64) for values in layers.values()])
    if not layers or table.ndim != 2 or table.shape[1] != len(steps) or not len(steps):
        raise ValueError(f"expected {len(steps)} numbers for each of the layers, got shape {table.shape}")
    with picture(path, (10, 1.6 + 0.32 * len(layers))) as figure:
        from matplotlib import colormaps

        axes = figure.subplots()
        cmap = colormaps["viridis"].with_extremes(under="black", bad="red")
        good = table[np.isfinite(table) & (table > 0)]
        low, high = (np.log10(good.min()), np.log10(good.max())) if good.size else (0.0, 1.0)
        with np.errstate(divide="ignore"):
            logs = np.where(np.isfinite(table), np.log10(np.maximum(table, 0)), np.nan)
        logs = np.where(np.isneginf(logs), low - 1, logs)
        edges = np.interp(np.arange(len(steps) + 1) - 0.5, np.arange(len(steps)), steps)
        mesh = axes.pcolormesh(edges, np.arange(len(layers) + 1), logs, cmap=cmap, vmin=low,
                               vmax=max(high, low + 1e-3))  # fmt: skip
        axes.set_yticks(np.arange(len(layers)) + 0.5, list(layers), fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("step")
        axes.set_title(title)
        axes.grid(False)
        figure.colorbar(mesh, ax=axes, label="log10", pad=0.01)
