"""The optimizers of ``torch.optim``, one algorithm a file."""

from jaxopt_core.optimizers.adadelta import adadelta
from jaxopt_core.optimizers.adafactor import adafactor
from jaxopt_core.optimizers.adagrad import adagrad
from jaxopt_core.optimizers.adam import adam, adamw
from jaxopt_core.optimizers.adamax import adamax
from jaxopt_core.optimizers.asgd import asgd
from jaxopt_core.optimizers.lbfgs import lbfgs
from jaxopt_core.optimizers.muon import muon
from jaxopt_core.optimizers.nadam import nadam
from jaxopt_core.optimizers.radam import radam
from jaxopt_core.optimizers.rmsprop import rmsprop
from jaxopt_core.optimizers.rprop import rprop
from jaxopt_core.optimizers.sgd import sgd
from jaxopt_core.optimizers.sparse_adam import sparse_adam, sparse_rows

__all__ = [
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "asgd",
    "lbfgs",
    "muon",
    "nadam",
    "radam",
    "rmsprop",
    "rprop",
    "sgd",
    "sparse_adam",
    "sparse_rows",
]
