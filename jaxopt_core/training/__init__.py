"""The training loop, and what it leaves behind: metrics, curves, parameters."""

from jaxopt_core.training.loop import (
    Progress,
    Run,
    TrainState,
    count_steps,
    evaluate,
    fit,
    make_train_steps,
)
from jaxopt_core.training.metrics import EpochMetrics, read_metrics, write_metrics
from jaxopt_core.training.parameters import load_parameters, save_parameters
from jaxopt_core.training.plots import plot_curves
from jaxopt_core.training.progress import progress_bar

__all__ = [
    "EpochMetrics",
    "Progress",
    "Run",
    "TrainState",
    "count_steps",
    "evaluate",
    "fit",
    "load_parameters",
    "make_train_steps",
    "plot_curves",
    "progress_bar",
    "read_metrics",
    "save_parameters",
    "write_metrics",
]
