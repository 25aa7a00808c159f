"""PyTorch's learning-rate schedulers, as functions of the count.

Each takes PyTorch's arguments, without ``optimizer`` and ``last_epoch`` and with the base rate first, and
returns something to pass to any optimizer in place of a number. The count is the number of times that
``scheduler.step()`` would have been called: the number of updates made, or of epochs with
:func:`per_epoch`.

- Most are functions ``count -> rate`` of a Python, numpy or JAX number or array of counts. Python's and
  numpy's counts are computed in float64; JAX's in float32 (float64 where that is enabled), and there to
  within 1e-6 of the value at every step, the last ones of an annealing included.
- :func:`cyclic_lr` and :func:`one_cycle_lr` return a :class:`Cycle`: ``.lr`` and ``.momentum``.
- :func:`multiplicative_lr`, :func:`reduce_lr_on_plateau` and some compositions need memory. They are stateful
  schedules in Optax's protocol, and are passed to an optimizer in the same way.
- What people know by other names (warm-up into cosine, inverse square root, warm-up-stable-decay, ...) is
  listed in ``schedulers/recipes.py``; :func:`plot` and ``jaxopt-core plot-schedule`` draw any of it.
"""

from jaxopt_core.schedulers.compose import chained_scheduler, sequential_lr
from jaxopt_core.schedulers.cosine import cosine_annealing_lr, cosine_annealing_warm_restarts
from jaxopt_core.schedulers.cyclic import Cycle, cyclic_lr
from jaxopt_core.schedulers.epochs import per_epoch
from jaxopt_core.schedulers.evaluate import evaluate
from jaxopt_core.schedulers.functions import lambda_lr, multiplicative_lr
from jaxopt_core.schedulers.linear import constant_lr, linear_lr, polynomial_lr
from jaxopt_core.schedulers.one_cycle import one_cycle_lr
from jaxopt_core.schedulers.plateau import PlateauState, reduce_lr_on_plateau, step_schedules
from jaxopt_core.schedulers.plot import plot
from jaxopt_core.schedulers.recipes import (
    exponential_decay,
    inverse_sqrt,
    time_decay,
    warmup,
    warmup_stable_decay,
)
from jaxopt_core.schedulers.step import exponential_lr, multi_step_lr, step_lr
from jaxopt_core.schedulers.swa import swa_lr
from jaxopt_core.schedulers.transform import scale_by_learning_rate, scale_by_schedule

__all__ = [
    "Cycle",
    "PlateauState",
    "chained_scheduler",
    "constant_lr",
    "cosine_annealing_lr",
    "cosine_annealing_warm_restarts",
    "cyclic_lr",
    "evaluate",
    "exponential_decay",
    "exponential_lr",
    "inverse_sqrt",
    "lambda_lr",
    "linear_lr",
    "multi_step_lr",
    "multiplicative_lr",
    "one_cycle_lr",
    "per_epoch",
    "plot",
    "polynomial_lr",
    "reduce_lr_on_plateau",
    "scale_by_learning_rate",
    "scale_by_schedule",
    "sequential_lr",
    "step_lr",
    "step_schedules",
    "swa_lr",
    "time_decay",
    "warmup",
    "warmup_stable_decay",
]
