"""What a search trains: the start of one trial, and how it goes on for a while."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_core.hyperparams import Scheduled
from jaxopt_core.leafwise import OptimizerState
from jaxopt_core.training.state import TrainState
from jaxopt_core.training.step import StepFn
from jaxopt_core.tuning.space import Config

__all__ = ["Setup", "Trainable", "minibatch_trainable", "with_hyperparams"]


class Trainable(NamedTuple):
    """One trial in equal parts, after each of which it may be given up, or copied.

    Both functions are pure and are compiled. Of a configuration, real numbers (and ``seed``) are tracers;
    everything else is a Python value and may decide what is computed.

    Attributes:
      init: ``(config, *args) -> state``, any pytree of arrays.
      advance: ``(config, state, *args) -> (state, metrics)``: trains one part; metrics are a dict of scalars.
      parts: how many there are.
      args: the same for every trial: the data.
    """

    init: Callable[..., Any]
    advance: Callable[..., tuple[Any, Mapping[str, jax.Array]]]
    parts: int = 1
    args: tuple[Any, ...] = ()


class Setup(NamedTuple):
    """What a configuration means: the parts that :func:`~jaxopt_core.training.fit` is given too.

    Attributes:
      state: before the first update, from :func:`~jaxopt_core.training.init_state`.
      step_fn: one update, from :func:`~jaxopt_core.training.make_step`.
      score_fn: ``(state, valid) -> metrics``, a dict of scalars.
    """

    state: TrainState
    step_fn: StepFn
    score_fn: Callable[[TrainState, Any], Mapping[str, jax.Array]]


def in_one_part(train_fn: Callable[..., Any], args: tuple[Any, ...] = ()) -> Trainable:
    """A function that trains to the end, as a :class:`Trainable` of one part without a state."""
    return Trainable(lambda *_: (), lambda config, _, *args: ((), train_fn(config, *args)), 1, args)


def minibatch_trainable(
    setup: Callable[[Config, int], Setup],
    train: Mapping[str, Any],
    valid: Any,
    *,
    parts: int = 1,
    epochs: int = 10,
    batch_size: int = 64,
) -> Trainable:
    """Training on shuffled batches of arrays that fit on the device.

    A configuration's ``epochs`` and ``batch_size`` come before the arguments of the same name; its ``seed``
    decides the order of the examples, and whatever ``setup`` makes of it. Incomplete batches are left out.
    Without a seed all trials go through the examples in the same orders, one for each of ``epochs`` and then
    again from the first; that compiles faster, because the orders are made by NumPy.

    Args:
      setup: ``(config, updates in all) -> Setup``, pure.
      train: name -> array, examples along the first axis.
      valid: what the score is computed on.
      parts: after each of which the trial is scored. Default 1.
      epochs: passes over ``train`` in all. Default 10.
      batch_size: examples in an update. Default 64.

    Raises:
      ValueError: when it is traced: there are fewer updates than parts.

    Example:
      >>> import numpy as np, jaxopt_core as jo
      >>> from jaxopt_core.training import init_state, make_step
      >>> x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
      >>> data = {"x": x, "y": x @ np.float32([1, 2])}
      >>> def loss_fn(params, rest, batch, rng):
      ...     return jnp.mean((batch["x"] @ params - batch["y"]) ** 2), (rest, {})
      >>> def setup(config, updates):
      ...     tx = jo.sgd(lr=config["lr"])
      ...     score_fn = lambda state, valid: {"loss": loss_fn(state.params, {}, valid, None)[0]}
      ...     return Setup(init_state(jnp.zeros(2), {}, tx), make_step(loss_fn, tx), score_fn)
      >>> from jaxopt_core.tuning import sweep
      >>> trainable = minibatch_trainable(setup, data, data, batch_size=16)
      >>> sweep(trainable, [{"lr": 0.001}, {"lr": 0.1}]).best("loss").config
      {'lr': 0.1}
    """
    examples = len(next(iter(train.values())))

    def plan(config: Config) -> tuple[int, int, int]:
        size = min(config.get("batch_size", batch_size), examples)
        per_epoch = examples // max(size, 1)
        updates = per_epoch * config.get("epochs", epochs)
        if size < 1 or updates < parts:
            raise ValueError(
                f"expected at least one update in each of {parts} parts, found {updates} updates in all "
                f"with batch_size={size}, epochs={config.get('epochs', epochs)}"
            )
        return size, per_epoch, updates

    def init(config: Config, *data: Any) -> TrainState:
        del data
        return setup(config, plan(config)[2]).state

    def advance(
        config: Config, state: TrainState, train: Any, valid: Any, orders: jax.Array
    ) -> tuple[TrainState, Any]:
        size, per_epoch, updates = plan(config)
        fresh, step_fn, score_fn = setup(config, updates)
        # A configuration may have changed since the last part, as populations' do.
        state = state._replace(opt_state=with_hyperparams(state.opt_state, fresh.opt_state))
        first = state.step

        def update(carry: tuple[TrainState, Any]) -> tuple[TrainState, Any]:
            state, order = carry
            epoch = jax.lax.div(state.step, per_epoch)
            start = (state.step - epoch * per_epoch) * size
            if "seed" in config:
                key = jax.random.fold_in(jax.random.key(config["seed"]), epoch)
                new = (state.step == first) | (start == 0)
                order = jax.lax.cond(new, lambda: jax.random.permutation(key, examples), lambda: order)
                rows = jax.lax.dynamic_slice_in_dim(order, start, size)
            else:
                which = epoch if updates <= epochs * per_epoch else jax.lax.rem(epoch, epochs)
                rows = jax.lax.dynamic_slice(orders, (which, start), (1, size))[0]
            return step_fn(state, jax.tree.map(lambda x: x[rows], train))[0], order

        # The last part has what the division leaves over.
        each = updates // parts
        end = jnp.where(first // each >= parts - 1, updates, first + each)
        begin = state, (jnp.arange(examples) if "seed" in config else ())
        state, _ = jax.lax.while_loop(lambda carry: carry[0].step < end, update, begin)
        return state, dict(score_fn(state, valid))

    rng = np.random.default_rng(0)
    every_order = np.stack([rng.permutation(examples) for _ in range(epochs)]).astype(np.int32)
    return Trainable(init, advance, parts, (dict(train), valid, every_order))


def with_hyperparams(opt_state: Any, fresh: Any) -> Any:
    """An optimizer's state with the hyperparameters of another, freshly made one.

    What follows a schedule keeps its memory; numbers and arrays come from ``fresh``.
    """

    def is_state(node: Any) -> bool:
        return isinstance(node, OptimizerState)

    def is_scheduled(node: Any) -> bool:
        return isinstance(node, Scheduled)

    def take(old: Any, new: Any) -> Any:
        if not is_state(old):
            return old
        numbers = jax.tree.map(
            lambda o, n: o if is_scheduled(o) else n, old.hyperparams, new.hyperparams, is_leaf=is_scheduled
        )
        return old._replace(hyperparams=numbers)

    return jax.tree.map(take, opt_state, fresh, is_leaf=is_state)
