"""The average of the parameters kept beside the optimizer, as a gradient transformation."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_core.averaging.average import (
    Averaged,
    AvgFn,
    average,
    get_ema_avg_fn,
    get_swa_avg_fn,
    init_average,
)
from jaxopt_core.leafwise import apply_updates
from jaxopt_core.tree import is_absent

__all__ = ["AverageState", "averaged_params", "ema", "keep_average", "swa", "swap"]


class AverageState(NamedTuple):
    """The state of :func:`keep_average`.

    Attributes:
      count: int32 scalar, updates seen so far.
      n_averaged: int32 scalar, how many sets of parameters are in the average.
      average: a pytree like the parameters; the initial ones until the first is in it.
    """

    count: jax.Array  # type: ignore[assignment]  # not tuple.count
    n_averaged: jax.Array
    average: Any


def keep_average(
    avg_fn: AvgFn | None = None, *, start: int = 0, every: int = 1, dtype: Any = None
) -> optax.GradientTransformationExtraArgs:
    """Keeps an average of the parameters after each step; the last link of a chain.

    The updates pass through unchanged. This is ``averaged_model.update_parameters(model)`` after
    ``optimizer.step()``, so a wrapper that leaves steps out or puts them together belongs inside or
    outside as it does in the loop: ``accumulate(chain(adamw(), ema()), 4)`` averages once every four
    updates, ``chain(accumulate(adamw(), 4), ema())`` after each.

    Args:
      avg_fn: ``(average, param, n_averaged) -> average`` of one parameter, as in PyTorch. Default:
        :func:`~jaxopt_core.averaging.get_swa_avg_fn`.
      start: updates at the start that are not averaged. Default 0.
      every: updates from one that is averaged to the next, such as those of an epoch. Default 1.
      dtype: as for :func:`~jaxopt_core.averaging.init_average`.

    Returns:
      A transformation with an :class:`AverageState`; see :func:`averaged_params` and :func:`swap`.

    Raises:
      ValueError: a negative ``start``, or an ``every`` that is not positive.
    """
    if start < 0 or every < 1:
        raise ValueError(f"start must be at least 0 and every at least 1; got {start!r} and {every!r}.")

    def init(params: optax.Params) -> AverageState:
        first = init_average(params, dtype=dtype)
        return AverageState(jnp.zeros([], jnp.int32), first.n_averaged, first.params)

    def update(
        updates: optax.Updates, state: AverageState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, AverageState]:
        del extra
        if params is None:
            raise ValueError("An average needs the parameters: call tx.update(grads, state, params).")
        old = Averaged(state.n_averaged, state.average)
        new = average(old, apply_updates(params, updates), avg_fn=avg_fn)
        count = optax.safe_increment(state.count)
        if start > 0 or every > 1:
            is_time = (state.count >= start) & ((state.count - start + 1) % every == 0)
            new = jax.tree.map(lambda n, o: jnp.where(is_time, n, o), new, old)
        return updates, AverageState(count, new.n_averaged, new.params)

    return optax.GradientTransformationExtraArgs(init, update)


def ema(decay: Any = 0.999, *, dtype: Any = None) -> optax.GradientTransformationExtraArgs:
    """Keeps an exponential moving average of the parameters beside the optimizer.

    As PyTorch's ``AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))``, updated after every
    step: the first one copies, so there is no bias to correct.

    Args:
      decay: a number in [0, 1] or a scalar array. Default 0.999.
      dtype: as for :func:`~jaxopt_core.averaging.init_average`.

    Returns:
      :func:`keep_average` of it.

    Raises:
      ValueError: a decay out of range.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo, optax
      >>> tx = optax.chain(jo.sgd(lr=1.0), jo.averaging.ema(decay=0.5))
      >>> params = jnp.zeros(1)
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...     updates, state = tx.update(-jnp.ones(1), state, params)
      ...     params = jo.apply_updates(params, updates)
      >>> print(params, jo.averaging.averaged_params(state))
      [2.] [1.5]
    """
    return keep_average(get_ema_avg_fn(decay), dtype=dtype)


def swa(*, start: int = 0, every: int = 1, dtype: Any = None) -> optax.GradientTransformationExtraArgs:
    """Keeps the mean of the parameters over the later part of a run: stochastic weight averaging.

    As PyTorch's ``AveragedModel(model)``. Source: Izmailov et al., "Averaging Weights Leads to Wider Optima
    and Better Generalization", 2018. Afterwards refresh batch statistics with
    :func:`~jaxopt_core.averaging.update_bn`.

    Args:
      start: updates at the start that are not averaged. Default 0.
      every: updates from one that is averaged to the next, usually those of an epoch. Default 1.
      dtype: as for :func:`~jaxopt_core.averaging.init_average`.

    Returns:
      :func:`keep_average` of it.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo, optax
      >>> tx = optax.chain(jo.sgd(lr=1.0), jo.averaging.swa(start=2, every=2))
      >>> params = jnp.zeros(1)
      >>> state = tx.init(params)
      >>> for _ in range(6):
      ...     updates, state = tx.update(-jnp.ones(1), state, params)
      ...     params = jo.apply_updates(params, updates)
      >>> print(params, jo.averaging.averaged_params(state))
      [6.] [5.]
    """
    return keep_average(get_swa_avg_fn(), start=start, every=every, dtype=dtype)


def averaged_params(opt_state: Any) -> Any:
    """The average out of an optimizer's state, however deeply it is nested.

    Raises:
      ValueError: there is not exactly one average in it.

    Example:
      See :func:`ema`.
    """
    return _find(opt_state).average


def swap(params: Any, opt_state: Any) -> tuple[Any, Any]:
    """Puts the average in the place of the parameters, and the parameters in the place of the average.

    Calling it again swaps them back: evaluate in between, and do not update. An average that is kept in a
    wider dtype is rounded to that of the parameters by being swapped; to evaluate without that,
    use :func:`averaged_params`.

    Args:
      params: the parameters.
      opt_state: the state of an optimizer with an average in it.

    Returns:
      The average as parameters, and the state.

    Raises:
      ValueError: there is not exactly one average in the state.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> params, tx = jnp.zeros(1), jo.averaging.ema()
      >>> _, state = tx.update(jnp.ones(1), tx.init(params), params)
      >>> params, state = jo.averaging.swap(params, state)
      >>> print(params, jo.averaging.averaged_params(state))
      [1.] [0.]
    """
    old = _find(opt_state).average

    def like(x: Any, to: Any) -> Any:
        return x if is_absent(x) else x.astype(to.dtype)

    def casts(tree: Any, to: Any) -> Any:
        return jax.tree.map(like, tree, to, is_leaf=is_absent)

    def replaced(node: Any) -> Any:
        return node._replace(average=casts(params, old)) if isinstance(node, AverageState) else node

    return casts(old, params), jax.tree.map(replaced, opt_state, is_leaf=_is_state)


def _is_state(node: Any) -> bool:
    return isinstance(node, AverageState)


def _find(opt_state: Any) -> AverageState:
    nodes = jax.tree.leaves(opt_state, is_leaf=_is_state)
    found = [node for node in nodes if isinstance(node, AverageState)]
    if len(found) != 1:
        raise ValueError(f"Expected an optimizer's state with one average in it; found {len(found)}.")
    return found[0]
