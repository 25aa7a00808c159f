"""Optimizer, schedule, accumulation, clipping, loss scale and average, put together in PyTorch's order."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

import jaxopt_core as jo
from jaxopt_core import schedulers
from jaxopt_core.recipes.names import named
from jaxopt_core.schedulers.expression import parse

__all__ = ["OPTIMIZERS", "SCHEDULES", "Optimizer", "build_optimizer"]

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": jo.sgd,
    "adam": jo.adam,
    "adamw": jo.adamw,
    "nadam": jo.nadam,
    "radam": jo.radam,
    "adamax": jo.adamax,
    "adadelta": jo.adadelta,
    "adagrad": jo.adagrad,
    "rmsprop": jo.rmsprop,
    "rprop": jo.rprop,
    "asgd": jo.asgd,
    "adafactor": jo.adafactor,
}
"""Those that train any network in small batches: not Muon (matrices only), LBFGS and SparseAdam."""

SCHEDULES: dict[str, Callable[[float, int], Any]] = {
    "constant": lambda lr, _: lr,
    "cosine": schedulers.cosine_annealing_lr,
    "linear": lambda lr, updates: schedulers.linear_lr(lr, 1.0, 0.0, updates),
    "one_cycle": lambda lr, updates: schedulers.one_cycle_lr(lr, total_steps=updates).lr,
    "warmup_cosine": lambda lr, updates: _warmup_cosine(lr, updates),  # noqa: PLW0108  defined below
}
"""``(highest rate, updates of the run) -> schedule``."""


class Optimizer(NamedTuple):
    """A chain, and the loss scale in it.

    Attributes:
      tx: the gradient transformation.
      loss_scale: for :func:`~jaxopt_core.training.make_step`, or None.
    """

    tx: optax.GradientTransformationExtraArgs
    loss_scale: jo.precision.LossScale | None


def build_optimizer(options: Any, batches: int) -> Optimizer:
    """The chain that options ask for.

    Args:
      options: has ``optimizer``, ``lr``, ``weight_decay``, ``momentum``, ``schedule``, ``precision``,
        ``accumulate``, ``clip`` and ``ema``.
      batches: of the whole run; ``batches / accumulate`` updates are made of them.

    Returns:
      ``accumulate(with_loss_scale(chain(clip, optimizer, ema)))``, of which only what is asked for is there.

    Raises:
      ValueError: a name is unknown, or the optimizer does not take an argument.
    """
    make = named("optimizer", options.optimizer, OPTIMIZERS)
    updates = max(1, batches // options.accumulate)
    taken = inspect.signature(make).parameters
    arguments = {}
    for name in ("weight_decay", "momentum"):
        value = getattr(options, name)
        if value is not None:
            if name not in taken:
                raise ValueError(f"--{name.replace('_', '-')}: {options.optimizer} has none")
            arguments[name] = value
    links = [make(lr=_schedule(options.schedule, options.lr, updates), **arguments)]
    if options.clip is not None:
        links.insert(0, jo.gradients.clip_grad_norm(options.clip))
    if options.ema is not None:
        links.append(jo.averaging.ema(options.ema))
    tx: Any = optax.chain(*links)
    loss_scale = None
    if options.precision == "float16":
        loss_scale = jo.precision.dynamic_loss_scale()
        tx = jo.precision.with_loss_scale(tx, loss_scale)
    if options.accumulate > 1:
        tx = jo.gradients.accumulate(tx, options.accumulate, reduction="mean")
    return Optimizer(optax.with_extra_args_support(tx), loss_scale)


def _schedule(text: str, lr: float, updates: int) -> Any:
    if "(" not in text:
        return named("schedule", text, SCHEDULES)(lr, updates)
    try:
        schedule = parse(text)
    except ValueError as error:
        raise ValueError(f"--schedule: {text!r}: {error}") from None
    if isinstance(schedule, schedulers.Cycle):
        return schedule.lr
    return schedule


def _warmup_cosine(lr: float, updates: int) -> Any:
    """A twentieth of the updates to warm up, and half a cosine down to 0."""
    warm = max(1, updates // 20)
    parts = [schedulers.warmup(lr, warm), schedulers.cosine_annealing_lr(lr, max(1, updates - warm))]
    return schedulers.sequential_lr(parts, [warm])


def autocast_dtype(precision: str) -> Any:
    """What ``--precision`` means for :func:`~jaxopt_core.training.make_step`."""
    return None if precision == "float32" else jnp.dtype(precision)
