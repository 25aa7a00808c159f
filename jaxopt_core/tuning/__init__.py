"""Finding hyperparameters: many trials in one compiled program, chosen and pruned by Optuna."""

from jaxopt_core.tuning.batch_size import BatchSize, find_batch_size
from jaxopt_core.tuning.halving import successive_halving
from jaxopt_core.tuning.lr_finder import RangeTest, lr_finder
from jaxopt_core.tuning.pictures import plot_study
from jaxopt_core.tuning.population import Population, population_based_training
from jaxopt_core.tuning.programs import MemoryLimitError
from jaxopt_core.tuning.pruning import halving_pruner
from jaxopt_core.tuning.search import CrossValidated, cross_validate, random_search
from jaxopt_core.tuning.space import Choice, Config, Float, Integer, Space, SpaceError
from jaxopt_core.tuning.storage import StorageError, open_storage
from jaxopt_core.tuning.study import Study, study
from jaxopt_core.tuning.sweep import Sweep, sweep
from jaxopt_core.tuning.trainable import Setup, Trainable, minibatch_trainable
from jaxopt_core.tuning.trials import Trial, TrialsFailedError

__all__ = [
    "BatchSize",
    "Choice",
    "Config",
    "CrossValidated",
    "Float",
    "Integer",
    "MemoryLimitError",
    "Population",
    "RangeTest",
    "Setup",
    "Space",
    "SpaceError",
    "StorageError",
    "Study",
    "Sweep",
    "Trainable",
    "Trial",
    "TrialsFailedError",
    "cross_validate",
    "find_batch_size",
    "halving_pruner",
    "lr_finder",
    "minibatch_trainable",
    "open_storage",
    "plot_study",
    "population_based_training",
    "random_search",
    "study",
    "successive_halving",
    "sweep",
]
