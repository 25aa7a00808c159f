"""Optuna's pictures of a study."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxopt_core.extras import needs_extra
from jaxopt_core.figures import STYLE
from jaxopt_core.tuning.storage import quiet

if TYPE_CHECKING:
    from jaxopt_core.tuning.study import Study

__all__ = ["plot_study"]


def plot_study(study: Study, folder: Path, *, label: str | None = None) -> list[Path]:
    """Draws history, importances and parallel coordinates of a study into a folder, as PNG.

    Args:
      study: with two or more complete trials.
      folder: for ``history.png``, ``importances.png`` and ``parallel.png``.
      label: of the metric. Default: its name.

    Returns:
      The files that were written. Importances need complete trials that differ in their result; without
      them that picture is left out.

    Raises:
      MissingExtraError: Optuna or matplotlib is not installed.
    """
    with needs_extra("tune"):
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from optuna.visualization import matplotlib as draw

    label = label or study.metric
    complete = [trial for trial in study.trials if trial.status == "complete"]
    if len(complete) < 2:
        return []
    pictures: dict[str, Any] = {
        "history": draw.plot_optimization_history,
        "parallel": draw.plot_parallel_coordinate,
    }
    if len({trial.metrics[study.metric] for trial in complete}) > 1:
        pictures["importances"] = draw.plot_param_importances
    written = []
    with quiet(), warnings.catch_warnings(), mpl.rc_context({**STYLE, "figure.constrained_layout.use": True}):
        warnings.simplefilter("ignore")  # that these functions are experimental
        for name, plot in pictures.items():
            axes = plot(study.optuna, target_name=label)
            figure: Figure = axes.figure
            figure.set_size_inches(9 if name == "parallel" else 7, 4.5)
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=150)
            _close(figure)
            written.append(path)
    return written


def _close(figure: object) -> None:
    # Optuna draws with pyplot, which keeps what is not closed.
    from matplotlib import pyplot

    pyplot.close(figure)  # type: ignore[arg-type]
