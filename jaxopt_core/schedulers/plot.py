"""Pictures of schedules."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jaxopt_core.extras import needs_extra
from jaxopt_core.figures import COLORS, STYLE
from jaxopt_core.schedulers.cyclic import Cycle
from jaxopt_core.schedulers.evaluate import evaluate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot"]


def plot(
    schedules: Any,
    steps: int,
    path: str | os.PathLike[str],
    *,
    log: bool = False,
    values: Sequence[float] | None = None,
) -> None:
    """Draws one or several schedules over the steps, as a PNG.

    Args:
      schedules: a schedule, a :class:`Cycle`, a list of these, or a dict from label to these. Momenta are
        drawn below the rates.
      steps: how many counts to draw, from 0.
      path: the file to write.
      log: draw rates on a logarithmic axis. Default False.
      values: the metric after each step, for :func:`reduce_lr_on_plateau`.

    Raises:
      MissingExtraError: matplotlib is not installed.
      ValueError: ``steps`` is no positive integer; there is no schedule; ``values`` are missing.

    Example:
      >>> import tempfile, jaxopt_core as jo
      >>> s = jo.schedulers
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     s.plot([s.step_lr(0.1, 30), s.one_cycle_lr(0.1, total_steps=100)], 100, f"{folder}/lr.png")
    """
    named = _named(schedules)
    rates = {label: evaluate(_rate(each), steps, values) for label, each in named.items()}
    momenta = {
        label: evaluate(each.momentum, steps)
        for label, each in named.items()
        if isinstance(each, Cycle) and each.momentum is not None
    }
    with needs_extra("train"):
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

    # Figure instead of pyplot: no global state, and no display is looked for.
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 4 + 0.3 * len(named) + 2.4 * bool(momenta)), layout="constrained")
        panels = figure.subplots(
            1 + bool(momenta), 1, sharex=True, squeeze=False, height_ratios=[3, 2][: 1 + bool(momenta)]
        )[:, 0]
        styles = {label: _style(i) for i, label in enumerate(named)}
        _draw(panels[0], rates, styles, "Learning rate")
        panels[0].set_yscale("log" if log else "linear")
        if momenta:
            _draw(panels[1], momenta, styles, "Momentum")
        panels[-1].set_xlabel("step")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        panels[-1].set_xlim(0, max(steps - 1, 1))
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left")
        figure.savefig(path, dpi=150, format="png")


def _named(schedules: Any) -> dict[str, Any]:
    if isinstance(schedules, Mapping):
        named = dict(schedules)
    else:
        several = schedules if isinstance(schedules, list | tuple) else [schedules]
        labels = [_label(_rate(each)) for each in several]
        numbered = (f"{label} ({i})" if label in labels[:i] else label for i, label in enumerate(labels))
        named = dict(zip(numbered, several, strict=True))
    if not named:
        raise ValueError("plot expects at least one schedule, but got none.")
    return named


def _rate(schedule: Any) -> Any:
    return schedule.lr if isinstance(schedule, Cycle) else schedule


def _label(schedule: Any) -> str:
    label = getattr(schedule, "__name__", None) or repr(schedule)
    return label if len(label) <= 100 else label[:97] + "..."


def _style(i: int) -> dict[str, Any]:
    dashes = ("-", "--", ":", "-.")[i // len(COLORS) % 4]
    return {"color": COLORS[i % len(COLORS)], "linestyle": dashes, "linewidth": 1.8}


def _draw(
    axes: Axes, curves: Mapping[str, NDArray[np.float64]], styles: Mapping[str, Any], title: str
) -> None:
    for label, curve in curves.items():
        # A line through few points hides that there is nothing between them.
        marker = "o" if len(curve) <= 30 else ""
        axes.plot(np.arange(len(curve)), curve, label=label, marker=marker, markersize=4, **styles[label])
    axes.set_title(title)
