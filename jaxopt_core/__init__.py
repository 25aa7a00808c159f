"""PyTorch's optimisation stack in JAX: the same numbers, as pure gradient transformations."""

from jaxopt_core import averaging, gradients, losses, precision, schedulers
from jaxopt_core.access import read_hyperparams, set_hyperparams
from jaxopt_core.cpu import setup_cpu
from jaxopt_core.describe import describe
from jaxopt_core.groups import by_path
from jaxopt_core.leafwise import OptimizerState, apply_updates, bucketed, count_per_parameter
from jaxopt_core.optimizers import (
    adadelta,
    adafactor,
    adagrad,
    adam,
    adamax,
    adamw,
    asgd,
    lbfgs,
    muon,
    nadam,
    radam,
    rmsprop,
    rprop,
    sgd,
    sparse_adam,
    sparse_rows,
)
from jaxopt_core.schedulers import step_schedules

__all__ = [
    "OptimizerState",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "apply_updates",
    "asgd",
    "averaging",
    "bucketed",
    "by_path",
    "count_per_parameter",
    "describe",
    "gradients",
    "lbfgs",
    "losses",
    "muon",
    "nadam",
    "precision",
    "radam",
    "read_hyperparams",
    "rmsprop",
    "rprop",
    "schedulers",
    "set_hyperparams",
    "setup_cpu",
    "sgd",
    "sparse_adam",
    "sparse_rows",
    "step_schedules",
]
