"""The training loop, and what it leaves behind: metrics, curves, checkpoints."""

from jaxopt_core.training.callbacks import Callback, Row, Run
from jaxopt_core.training.checkpoint import Checkpoints, CorruptCheckpointError, Restored
from jaxopt_core.training.early_stopping import EarlyStopping
from jaxopt_core.training.loggers import CsvLogger, TensorBoardLogger, read_csv
from jaxopt_core.training.loop import evaluate, fit
from jaxopt_core.training.nonfinite import NonFiniteError, explain_nonfinite
from jaxopt_core.training.parameters import load_parameters, save_parameters
from jaxopt_core.training.plots import Curves, plot_curves, read_curves
from jaxopt_core.training.progress import ProgressBar
from jaxopt_core.training.state import TrainState, init_state
from jaxopt_core.training.step import make_step

__all__ = [
    "Callback",
    "Checkpoints",
    "CorruptCheckpointError",
    "CsvLogger",
    "Curves",
    "EarlyStopping",
    "NonFiniteError",
    "ProgressBar",
    "Restored",
    "Row",
    "Run",
    "TensorBoardLogger",
    "TrainState",
    "evaluate",
    "explain_nonfinite",
    "fit",
    "init_state",
    "load_parameters",
    "make_step",
    "plot_curves",
    "read_csv",
    "read_curves",
    "save_parameters",
]
