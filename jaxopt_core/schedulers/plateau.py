"""A rate that is reduced when a metric stops improving."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_core.groups import ByPath
from jaxopt_core.hyperparams import Scheduled
from jaxopt_core.schedulers.base import check_rate

__all__ = ["PlateauState", "is_plateau", "reduce_lr_on_plateau", "step_schedules"]


def reduce_lr_on_plateau(
    lr: Any,
    mode: str = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: str = "rel",
    cooldown: int = 0,
    min_lr: float = 0.0,
    eps: float = 1e-8,
    *,
    per_epoch: bool = False,
) -> optax.schedules.StatefulSchedule:
    """Reduces the rate when a metric has stopped improving, as ``ReduceLROnPlateau``.

    At every value of the metric::

        if better(value, best): best = value; num_bad_epochs = 0
        else:                   num_bad_epochs += 1
        if cooldown_counter > 0: cooldown_counter -= 1; num_bad_epochs = 0
        if num_bad_epochs > patience:
            new = max(lr * factor, min_lr); lr = new if lr - new > eps
            cooldown_counter = cooldown; num_bad_epochs = 0

    NaN is never better. The next update is the first with the new rate.

    Args:
      lr: the rate to begin with, a number or a scalar array.
      mode: ``"min"`` or ``"max"``: which way is better. Default ``"min"``.
      factor: of a reduction, less than 1. Default 0.1.
      patience: values without improvement that are waited for; the next one reduces. Default 10.
      threshold: smallest improvement that counts. Default 1e-4.
      threshold_mode: ``"rel"``, a fraction of the best value, or ``"abs"``. Default ``"rel"``.
      cooldown: values after a reduction during which nothing is counted. Default 0.
      min_lr: lowest rate. One for each parameter group is a plateau for each group, in ``by_path``.
      eps: a smaller change of the rate is not made. Default 1e-8.
      per_epoch: who hands over the metric. ``False``: every update, ``tx.update(..., value=loss)``, and one
        without it is an error. ``True``: :func:`step_schedules`, whenever it is called, as PyTorch's
        ``scheduler.step(value)`` usually is once an epoch; then ``tx.update`` needs no ``value`` and ignores
        one.

    Returns:
      A stateful schedule in Optax's protocol, to be given to an optimizer as it is.

    Raises:
      ValueError: in PyTorch's words; a rate is negative. In ``tx.update``: there is no ``value``.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> tx = jo.sgd(lr=jo.schedulers.reduce_lr_on_plateau(0.5, patience=1, per_epoch=True))
      >>> params, state = jnp.ones(2), tx.init(jnp.ones(2))
      >>> for validation_loss in (1.0, 0.9, 0.9, 0.9):
      ...     updates, state = tx.update(params, state, params)  # any number of times
      ...     state = jo.step_schedules(state, validation_loss)
      >>> print(jo.read_hyperparams(state)["lr"])
      0.05

      A lowest rate for each group:

      >>> def plateau(min_lr):
      ...     return jo.schedulers.reduce_lr_on_plateau(0.5, min_lr=min_lr)
      >>> tx = jo.sgd(lr=jo.by_path({"head": plateau(0.1)}, default=plateau(0.0)))
    """
    check_rate(lr)
    if isinstance(min_lr, list | tuple | ByPath):
        raise TypeError(
            "min_lr must be a number. For one in each parameter group give a plateau to each group: "
            "lr=by_path({pattern: reduce_lr_on_plateau(lr, min_lr=...)}, default=reduce_lr_on_plateau(lr))."
        )
    if factor >= 1.0:
        raise ValueError("Factor should be < 1.0.")
    if mode not in ("min", "max"):
        raise ValueError(f"mode {mode} is unknown!")
    if threshold_mode not in ("rel", "abs"):
        raise ValueError(f"threshold mode {threshold_mode} is unknown!")
    numbers = (factor, patience, threshold, cooldown, min_lr, eps)
    if any(not isinstance(number, int | float | np.number) for number in numbers):
        raise TypeError(f"All arguments but lr must be fixed numbers; got {numbers}.")
    rule = _Rule(mode, factor, patience, threshold, threshold_mode, cooldown, min_lr, eps, per_epoch)
    return _Plateau(lr, rule)


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What is fixed: compiled into the program, and part of the structure of the state."""

    mode: str
    factor: float
    patience: int
    threshold: float
    threshold_mode: str
    cooldown: int
    min_lr: float
    eps: float
    per_epoch: bool

    def is_better(self, value: Any, best: Any) -> Any:
        sign = 1.0 if self.mode == "max" else -1.0
        relative = self.threshold_mode == "rel"
        goal = best * (1 + sign * self.threshold) if relative else best + sign * self.threshold
        return value > goal if self.mode == "max" else value < goal


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PlateauState:
    """The memory of :func:`reduce_lr_on_plateau`, in PyTorch's names.

    Attributes:
      lr: the rate now.
      best: the best value so far.
      num_bad_epochs: int32, values since then.
      cooldown_counter: int32, values for which counting pauses.
      last_epoch: int32, values received so far.
      rule: the constructor's arguments; no leaf of the tree.
    """

    lr: jax.Array
    best: jax.Array
    num_bad_epochs: jax.Array
    cooldown_counter: jax.Array
    last_epoch: jax.Array
    rule: _Rule = dataclasses.field(metadata={"static": True})

    def step(self, value: Any) -> PlateauState:
        """The state after one more value of the metric."""
        rule = self.rule
        value = _metric(value, self.best)
        better = rule.is_better(value, self.best)
        cooling = self.cooldown_counter > 0
        bad = jnp.where(better | cooling, 0, self.num_bad_epochs + 1)
        reduce = bad > rule.patience
        lr = jnp.maximum(self.lr * rule.factor, rule.min_lr)
        return PlateauState(
            lr=jnp.where(reduce & (self.lr - lr > rule.eps), lr, self.lr),
            best=jnp.where(better, value, self.best),
            num_bad_epochs=jnp.where(reduce, 0, bad),
            cooldown_counter=jnp.where(
                reduce, rule.cooldown, self.cooldown_counter - cooling.astype(jnp.int32)
            ),
            last_epoch=optax.safe_increment(self.last_epoch),
            rule=rule,
        )


@dataclasses.dataclass(frozen=True)
class _Plateau:
    lr: Any
    rule: _Rule

    def each_step(self) -> _Plateau:
        """The same with the metric handed over in every update."""
        return dataclasses.replace(self, rule=dataclasses.replace(self.rule, per_epoch=False))

    def init(self) -> PlateauState:
        dtype, zero = jnp.result_type(float), jnp.zeros([], jnp.int32)
        best = -math.inf if self.rule.mode == "max" else math.inf
        return PlateauState(
            jnp.asarray(self.lr, dtype), jnp.asarray(best, dtype), zero, zero, zero, self.rule
        )

    def update(self, state: PlateauState, *, value: Any = None, **extra: Any) -> PlateauState:
        del extra
        if self.rule.per_epoch:
            return state
        if value is None:
            raise ValueError(
                "reduce_lr_on_plateau received no value of its metric. Pass it to every update, "
                "tx.update(grads, state, params, value=loss); or construct it with per_epoch=True and call "
                "state = step_schedules(state, value) once an epoch."
            )
        return state.step(value)

    def __call__(self, state: PlateauState, **extra: Any) -> jax.Array:
        del extra
        return state.lr


def is_plateau(schedule: Any) -> bool:
    """Whether a schedule is a :func:`reduce_lr_on_plateau`."""
    return isinstance(schedule, _Plateau)


def step_schedules(opt_state: Any, value: Any) -> Any:
    """Hands a metric to every plateau in an optimizer's state: PyTorch's ``scheduler.step(value)``.

    It is pure, can be compiled, and finds :func:`reduce_lr_on_plateau` with ``per_epoch=True`` in any nesting
    of chains, masks and partitions. Schedules of the count need no such call: see ``per_epoch``.

    Args:
      opt_state: the state of an optimizer, or of a chain of some.
      value: the metric, a real scalar.

    Returns:
      The new state; ``read_hyperparams`` shows the rate that the next update will use.

    Raises:
      ValueError: nothing in the state waits for a metric.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> plateau = jo.schedulers.reduce_lr_on_plateau(0.5, patience=0, per_epoch=True)
      >>> state = jo.adam(lr=plateau).init(jnp.ones(2))
      >>> for loss in (1.0, 2.0):
      ...     state = jo.step_schedules(state, loss)
      >>> print(jo.read_hyperparams(state)["lr"])
      0.05
    """
    nodes, treedef = jax.tree.flatten(opt_state, is_leaf=_is_plateau)
    if not any(_is_plateau(node) and _memory(node).rule.per_epoch for node in nodes):
        raise ValueError(
            "No schedule in this state waits for a value. step_schedules advances "
            "reduce_lr_on_plateau(..., per_epoch=True); without per_epoch a plateau takes its value from "
            "tx.update(..., value=loss), and other schedules follow the count."
        )
    return jax.tree.unflatten(
        treedef, [_stepped(node, value) if _is_plateau(node) else node for node in nodes]
    )


def _is_plateau(node: Any) -> bool:
    return isinstance(node, PlateauState) or (isinstance(node, Scheduled) and _is_plateau(node.state))


def _memory(node: Any) -> PlateauState:
    return node.state if isinstance(node, Scheduled) else node


def _stepped(node: Any, value: Any) -> Any:
    if not _memory(node).rule.per_epoch:
        return node
    # flax.nnx wraps arrays, so this works on what is inside, and wraps it again.
    leaves, treedef = jax.tree.flatten(node)
    shown = leaves[: len(leaves) - len(_FIELDS)]
    arrays = dict(zip(_FIELDS, leaves[len(shown) :], strict=True))
    memory = PlateauState(**arrays, rule=_memory(node).rule).step(value)
    new = [memory.lr.astype(each.dtype) for each in shown]
    return jax.tree.unflatten(treedef, new + [getattr(memory, name) for name in _FIELDS])


_FIELDS = ("lr", "best", "num_bad_epochs", "cooldown_counter", "last_epoch")


def _metric(value: Any, best: jax.Array) -> jax.Array:
    if isinstance(value, str) or len(jax.tree.leaves(value)) != 1 or jnp.iscomplexobj(value):
        raise TypeError(f"The value of a plateau's metric must be a real scalar; got {value!r}.")
    value = jnp.asarray(value).astype(best.dtype)
    if value.shape == best.shape:  # one for each of a batch of states
        return value
    if value.size != 1:  # float(metric) is what PyTorch takes
        raise ValueError(f"The value of a plateau's metric must be a scalar; got shape {value.shape}.")
    return value.reshape(())
