"""Schedules given by a function of the user's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_core.schedulers.base import Absolute, Group, Scheduler, check_rate
from jaxopt_core.schedulers.space import Space, elementwise

__all__ = ["RateState", "lambda_lr", "multiplicative_lr"]


def lambda_lr(lr: Any, lr_lambda: Callable[[Any], Any]) -> Scheduler:
    """The base rate times any function of the count, as ``LambdaLR``: ``lr * lr_lambda(count)``.

    Args:
      lr: base rate, a number or a scalar array.
      lr_lambda: ``count -> factor``. In a compiled step the count is a tracer: where PyTorch's function has
        ``if``, this one needs ``jnp.where``.

    Returns:
      A schedule, ``count -> rate``.

    Raises:
      TypeError: ``lr_lambda`` is no function. PyTorch's list, one for each group, is ``by_path`` here.
      ValueError: ``lr`` is negative.

    Example:
      >>> import jaxopt_core as jo
      >>> [float(jo.schedulers.lambda_lr(1.0, lambda count: 1 / (1 + count))(count)) for count in (0, 1, 3)]
      [1.0, 0.5, 0.25]
    """
    _check(lr, lr_lambda)
    return _Lambda(lr, lr_lambda)


def multiplicative_lr(lr: Any, lr_lambda: Callable[[Any], Any]) -> optax.schedules.StatefulSchedule:
    """Multiplies the rate by a function of the count at every step, as ``MultiplicativeLR``.

    The rate at count ``t`` is ``lr * lr_lambda(1) * ... * lr_lambda(t)``; ``lr_lambda(0)`` is not asked for.

    Args:
      lr: base rate, a number or a scalar array.
      lr_lambda: ``count -> factor``, in JAX's operations.

    Returns:
      A stateful schedule in Optax's protocol, to be given to an optimizer as it is.

    Raises:
      TypeError: ``lr_lambda`` is no function.
      ValueError: ``lr`` is negative.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> tx = jo.sgd(lr=jo.schedulers.multiplicative_lr(1.0, lambda count: 0.5))
      >>> params, state = jnp.ones(2), tx.init(jnp.ones(2))
      >>> for _ in range(3):
      ...     updates, state = tx.update(params, state, params)
      ...     print(jo.read_hyperparams(state)["lr"])
      1.0
      0.5
      0.25
    """
    _check(lr, lr_lambda)
    return _Multiplicative(lr, lr_lambda)


class RateState(NamedTuple):
    """The memory of a schedule that computes a rate from the one before.

    Attributes:
      count: int32 scalar, steps made so far.
      lr: the rate now.
    """

    count: jax.Array  # type: ignore[assignment]  # not tuple.count
    lr: jax.Array


def _check(lr: Any, lr_lambda: Any) -> None:
    check_rate(lr)
    if not callable(lr_lambda):
        raise TypeError(f"lr_lambda should be a function, but got {type(lr_lambda).__name__}")


@dataclasses.dataclass(frozen=True, repr=False)
class _Lambda(Absolute):
    lr: Any
    lr_lambda: Callable[[Any], Any]
    name = "lambda_lr"

    def __call__(self, count: Any) -> Any:
        factor = elementwise(self.lr_lambda, count)
        space = Space(count, self.lr, factor)
        return space.done(space.real(self.lr) * space.real(factor))


@dataclasses.dataclass(frozen=True, repr=False)
class _Multiplicative(Scheduler):
    lr: Any
    lr_lambda: Callable[[Any], Any]
    name = "multiplicative_lr"

    def init(self) -> RateState:
        return RateState(jnp.zeros([], jnp.int32), jnp.asarray(self.lr, jnp.result_type(float)))

    def update(self, state: RateState, **extra: Any) -> RateState:
        del extra
        count = optax.safe_increment(state.count)
        return RateState(count, self.step({"lr": state.lr}, count, count))

    def __call__(self, state: RateState, **extra: Any) -> Any:
        del extra
        return state.lr

    def first(self, group: Group) -> Any:
        return group["lr"]

    def restart(self, group: Group) -> Any:
        return self.step(group, 0, 0)

    def step(self, group: Group, epoch: Any, calls: Any) -> Any:
        del calls
        factor = elementwise(self.lr_lambda, epoch)
        space = Space(group["lr"], epoch, factor)
        return space.done(space.real(group["lr"]) * space.real(factor))
