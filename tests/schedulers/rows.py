"""The table that both sides are built from: a scheduler in PyTorch's name and arguments, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_core import schedulers

__all__ = ["CLOSED", "LR", "NESTED", "SIXTEEN", "STATEFUL", "Row", "make", "needs_memory", "values"]

LR = 0.4

SIXTEEN = {
    "LambdaLR": "lambda_lr",
    "MultiplicativeLR": "multiplicative_lr",
    "StepLR": "step_lr",
    "MultiStepLR": "multi_step_lr",
    "ConstantLR": "constant_lr",
    "LinearLR": "linear_lr",
    "ExponentialLR": "exponential_lr",
    "PolynomialLR": "polynomial_lr",
    "CosineAnnealingLR": "cosine_annealing_lr",
    "CosineAnnealingWarmRestarts": "cosine_annealing_warm_restarts",
    "CyclicLR": "cyclic_lr",
    "OneCycleLR": "one_cycle_lr",
    "ChainedScheduler": "chained_scheduler",
    "SequentialLR": "sequential_lr",
    "ReduceLROnPlateau": "reduce_lr_on_plateau",
    "SWALR": "swa_lr",
}


class Row(NamedTuple):
    """A scheduler: PyTorch's class, its arguments, and how many values of it are compared."""

    theirs: str
    arguments: dict[str, Any]
    steps: int

    @property
    def spec(self) -> tuple[str, dict[str, Any]]:
        """What ``oracle.run_scheduler`` takes."""
        return self.theirs, self.arguments

    def __str__(self) -> str:
        return _shown(self.spec)


def make(spec: tuple[str, Mapping[str, Any]], lr: Any = LR) -> Any:
    """Our scheduler from PyTorch's name and arguments."""
    name, arguments = spec
    ours = getattr(schedulers, SIXTEEN[name])
    if "schedulers" in arguments:
        return ours(**{**arguments, "schedulers": [make(child, lr) for child in arguments["schedulers"]]})
    return ours(**arguments) if name in ("CyclicLR", "OneCycleLR") else ours(lr, **arguments)


def needs_memory(schedule: Any) -> bool:
    """Whether it goes from value to value; of a cycle, its rate."""
    schedule = schedule.lr if isinstance(schedule, schedulers.Cycle) else schedule
    return isinstance(schedule, optax.schedules.StatefulSchedule)


def values(schedule: Any, steps: int) -> np.ndarray:
    """The values of a schedule, those of a stateful one by its steps in one compiled program."""
    if not needs_memory(schedule):
        return np.asarray(jax.jit(schedule)(jnp.arange(steps)))

    def body(state: Any, _: Any) -> tuple[Any, Any]:
        return schedule.update(state), schedule(state)

    return np.asarray(jax.lax.scan(body, schedule.init(), length=steps)[1])


def _shown(spec: Any) -> str:
    name, arguments = spec
    inner = [_shown(child) for child in arguments.get("schedulers", [])]
    rest = [
        f"{key}={value.__name__ if callable(value) else value}"
        for key, value in arguments.items()
        if key != "schedulers"
    ]
    return f"{name}({', '.join(inner + rest)})"


def slowly(count: Any) -> Any:
    """A function for LambdaLR."""
    return 1 / (1 + count / 10)


def decay(count: Any) -> Any:
    """A function for MultiplicativeLR."""
    return 0.9 + (count % 5) / 100


CLOSED = [
    Row("LambdaLR", dict(lr_lambda=slowly), 40),
    Row("StepLR", dict(step_size=1), 9),
    Row("StepLR", dict(step_size=30, gamma=0.3), 200),
    Row("StepLR", dict(step_size=3, gamma=1.5), 30),
    Row("MultiStepLR", dict(milestones=[3, 8, 20]), 30),
    Row("MultiStepLR", dict(milestones=[8, 3, 3, 0], gamma=0.7), 12),
    Row("MultiStepLR", dict(milestones=[]), 4),
    Row("ConstantLR", {}, 12),
    Row("ConstantLR", dict(factor=1.0, total_iters=3), 6),
    Row("ConstantLR", dict(factor=0.01, total_iters=1), 6),
    Row("ConstantLR", dict(factor=0.5, total_iters=0), 6),
    Row("LinearLR", {}, 12),
    Row("LinearLR", dict(start_factor=1e-3, total_iters=100), 120),
    Row("LinearLR", dict(start_factor=1.0, end_factor=0.0, total_iters=100), 120),
    Row("LinearLR", dict(start_factor=0.5, end_factor=0.25, total_iters=1), 5),
    Row("LinearLR", dict(start_factor=0.5, total_iters=0), 5),
    Row("PolynomialLR", {}, 12),
    Row("PolynomialLR", dict(total_iters=50, power=2.0), 60),
    Row("PolynomialLR", dict(total_iters=50, power=0.5), 60),
    Row("PolynomialLR", dict(total_iters=0), 4),
    Row("ExponentialLR", dict(gamma=0.9), 100),
    Row("ExponentialLR", dict(gamma=0.9995), 5000),
    Row("ExponentialLR", dict(gamma=1.01), 500),
    Row("ExponentialLR", dict(gamma=0.0), 4),
    Row("CosineAnnealingLR", dict(T_max=10), 71),
    Row("CosineAnnealingLR", dict(T_max=100, eta_min=1e-3), 701),
    Row("CosineAnnealingLR", dict(T_max=1), 8),
    Row("CosineAnnealingLR", dict(T_max=7, eta_min=0.5), 50),
    Row("CosineAnnealingLR", dict(T_max=7.5), 60),
    Row("CosineAnnealingWarmRestarts", dict(T_0=10), 45),
    Row("CosineAnnealingWarmRestarts", dict(T_0=1), 5),
    Row("CosineAnnealingWarmRestarts", dict(T_0=7, T_mult=3, eta_min=1e-3), 300),
    Row("CosineAnnealingWarmRestarts", dict(T_0=5, T_mult=2), 160),
    Row("CyclicLR", dict(base_lr=1e-3, max_lr=0.1, step_size_up=7), 60),
    Row("CyclicLR", dict(base_lr=1e-3, max_lr=0.1, step_size_up=5, step_size_down=9, mode="triangular2"), 70),
    Row("CyclicLR", dict(base_lr=0.0, max_lr=0.1, step_size_up=4, mode="exp_range", gamma=0.99), 40),
    Row("CyclicLR", dict(base_lr=0.2, max_lr=0.1, step_size_up=2.5, base_momentum=0.0), 40),
    Row("CyclicLR", dict(base_lr=0.1, max_lr=1.0, step_size_up=4, scale_fn=slowly), 40),
    Row(
        "CyclicLR",
        dict(base_lr=0.1, max_lr=1.0, step_size_up=4, scale_fn=slowly, scale_mode="iterations"),
        40,
    ),
    Row("CyclicLR", dict(base_lr=0.1, max_lr=1.0, step_size_up=4, cycle_momentum=False), 20),
    Row("OneCycleLR", dict(max_lr=0.3, total_steps=1), 2),
    Row("OneCycleLR", dict(max_lr=0.3, total_steps=100), 101),
    Row("OneCycleLR", dict(max_lr=0.3, epochs=3, steps_per_epoch=33, three_phase=True), 100),
    Row("OneCycleLR", dict(max_lr=0.3, total_steps=77, anneal_strategy="linear"), 78),
    Row("OneCycleLR", dict(max_lr=0.3, total_steps=77, anneal_strategy="linear", three_phase=True), 77),
    Row("OneCycleLR", dict(max_lr=0.3, total_steps=50, pct_start=0.0), 50),
    Row("OneCycleLR", dict(max_lr=0.3, total_steps=50, pct_start=0.7, three_phase=True), 50),
    Row("OneCycleLR", dict(max_lr=0.3, total_steps=50, pct_start=1.0), 50),
    Row("OneCycleLR", dict(max_lr=0.3, total_steps=50, div_factor=1.0, final_div_factor=1e6), 50),
    Row("OneCycleLR", dict(max_lr=0.3, total_steps=50, base_momentum=0.0, cycle_momentum=True), 50),
    Row("SWALR", dict(swa_lr=0.05), 30),
    Row("SWALR", dict(swa_lr=0.05, anneal_epochs=4, anneal_strategy="linear"), 12),
    Row("SWALR", dict(swa_lr=0.9, anneal_epochs=1), 5),
    Row("SWALR", dict(swa_lr=0.05, anneal_epochs=0), 5),
]

STATEFUL = [Row("MultiplicativeLR", dict(lr_lambda=decay), 40)]

_LINEAR = ("LinearLR", dict(start_factor=0.1, total_iters=4))
_CONSTANT = ("ConstantLR", dict(factor=0.5, total_iters=3))
_STEP = ("StepLR", dict(step_size=3, gamma=0.5))
_MULTI = ("MultiStepLR", dict(milestones=[0, 2, 6]))
_EXP = ("ExponentialLR", dict(gamma=0.9))
_POLY = ("PolynomialLR", dict(total_iters=8, power=2.0))
_COS = ("CosineAnnealingLR", dict(T_max=5))
_COS_MIN = ("CosineAnnealingLR", dict(T_max=5, eta_min=0.05))
_RESTARTS = ("CosineAnnealingWarmRestarts", dict(T_0=3, T_mult=2, eta_min=0.01))
_LAMBDA = ("LambdaLR", dict(lr_lambda=slowly))
_MULTIPLICATIVE = ("MultiplicativeLR", dict(lr_lambda=decay))
_CYCLIC = ("CyclicLR", dict(base_lr=LR, max_lr=1.0, step_size_up=3))
_ONE = ("OneCycleLR", dict(max_lr=LR * 25, total_steps=30))  # starts at LR, as the others do
_ONE_HIGH = ("OneCycleLR", dict(max_lr=0.7, total_steps=30))
_SWA = ("SWALR", dict(swa_lr=0.03, anneal_epochs=4))
_ALL = [
    *(_LINEAR, _CONSTANT, _STEP, _MULTI, _EXP, _POLY, _COS, _COS_MIN, _RESTARTS, _LAMBDA, _MULTIPLICATIVE),
    *(_CYCLIC, _ONE, _SWA),
]

_SOME = [_LINEAR, _MULTI, _EXP, _COS_MIN, _MULTIPLICATIVE, _ONE, _SWA]


def _sequential(*children: Any, milestones: list[int]) -> tuple[str, dict[str, Any]]:
    return "SequentialLR", dict(schedulers=list(children), milestones=milestones)


def _chained(*children: Any) -> tuple[str, dict[str, Any]]:
    return "ChainedScheduler", dict(schedulers=list(children))


NESTED = [
    Row(*spec, 25)
    for spec in [
        *[_sequential(child, milestones=[]) for child in _ALL],
        *[_sequential(_STEP, child, milestones=[4]) for child in _ALL],
        *[_sequential(child, _RESTARTS, milestones=[5]) for child in _ALL],
        *[_sequential(child, _SWA, milestones=[5]) for child in _ALL],
        *[_chained(child) for child in _ALL],
        *[_chained(_EXP, child) for child in _ALL],
        *[_chained(child, _STEP, _CONSTANT) for child in _SOME],
        *[_sequential(_chained(child, _EXP), _COS, milestones=[6]) for child in _SOME],
        *[_sequential(_sequential(child, _POLY, milestones=[3]), _STEP, milestones=[9]) for child in _SOME],
        *[_chained(_sequential(_LINEAR, child, milestones=[4]), _STEP) for child in _SOME],
        _sequential(_LINEAR, _COS, _CONSTANT, _EXP, milestones=[4, 9, 14]),
        _sequential(_LINEAR, _COS, _EXP, milestones=[4, 4]),
        _sequential(_LINEAR, _COS, milestones=[0]),
        _sequential(_LINEAR, _chained(_STEP, _EXP), milestones=[0]),
        _sequential(_LINEAR, _MULTIPLICATIVE, _SWA, milestones=[4, 9]),
        _sequential(_LINEAR, _ONE_HIGH, milestones=[4]),
        _sequential(_COS_MIN, _ONE_HIGH, milestones=[13]),
        _sequential(_ONE, _ONE_HIGH, milestones=[12]),
        _sequential(_SWA, ("SWALR", dict(swa_lr=0.3, anneal_epochs=2)), milestones=[6]),
        _sequential(_ONE, _CYCLIC, milestones=[9]),
        _sequential(_CYCLIC, _STEP, _ONE, milestones=[5, 9]),
        _sequential(_LINEAR, ("ConstantLR", dict(factor=0.5, total_iters=0)), milestones=[4]),
        _chained(_EXP, _STEP, _LINEAR, _CONSTANT, _POLY, _MULTI),
        _chained(_COS_MIN, _EXP, _STEP),
        _chained(_chained(_EXP, _COS), _chained(_STEP)),
        _chained(_EXP, _sequential(_LINEAR, _COS_MIN, milestones=[4]), _LINEAR),
        _chained(_sequential(_ONE, _STEP, milestones=[5]), _CYCLIC),
        _chained(_CYCLIC, _sequential(_ONE, _STEP, milestones=[5])),
        _chained(_CYCLIC, _sequential(_STEP, _ONE, milestones=[5])),
        _sequential(
            _sequential(_sequential(_EXP, _STEP, milestones=[3]), _COS, milestones=[6]), _POLY, milestones=[9]
        ),
        _sequential(_chained(_sequential(_EXP, _COS_MIN, milestones=[3]), _LINEAR), _POLY, milestones=[9]),
    ]
]
