"""Averages of parameters over a run: SWA and EMA, as ``torch.optim.swa_utils.AveragedModel``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxopt_core.checks import require
from jaxopt_core.gradients.norm import working_dtype
from jaxopt_core.tree import is_absent

__all__ = ["Averaged", "AvgFn", "average", "get_ema_avg_fn", "get_swa_avg_fn", "init_average"]

AvgFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class Averaged(NamedTuple):
    """An average, as ``AveragedModel`` holds it.

    Attributes:
      n_averaged: int32 scalar, how many sets of parameters are in it.
      params: the average, a pytree like the parameters.
      buffers: what else the model holds, such as running statistics.
    """

    n_averaged: jax.Array
    params: Any
    buffers: Any = None


def get_ema_avg_fn(decay: Any = 0.999) -> AvgFn:
    """``decay * average + (1 - decay) * param``, PyTorch's exponential moving average.

    Args:
      decay: a number in [0, 1], or a scalar array. Default 0.999.

    Raises:
      ValueError: a number out of range.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> print(jo.averaging.get_ema_avg_fn(0.75)(jnp.ones(1), jnp.full(1, 5.0), 3))
      [2.]
    """
    message = "Invalid decay value {} provided. Please provide a value in [0,1] range."
    require(decay, lambda number: 0.0 <= number <= 1.0, message)

    def ema(averaged: jax.Array, param: jax.Array, n_averaged: jax.Array) -> jax.Array:
        del n_averaged
        kept = decay if isinstance(decay, int | float) else decay.astype(averaged.real.dtype)
        return kept * averaged + (1 - kept) * param

    return ema


def get_swa_avg_fn() -> AvgFn:
    """``average + (param - average) / (n_averaged + 1)``, the mean of all sets of parameters.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> print(jo.averaging.get_swa_avg_fn()(jnp.ones(1), jnp.full(1, 5.0), jnp.asarray(3)))
      [2.]
    """

    def swa(averaged: jax.Array, param: jax.Array, n_averaged: jax.Array) -> jax.Array:
        number = (n_averaged + 1).astype(averaged.real.dtype)
        return averaged + (param - averaged) / number.astype(averaged.dtype)

    return swa


def init_average(params: Any, buffers: Any = None, *, dtype: Any = None) -> Averaged:
    """An average of nothing yet: a copy of the parameters, as ``AveragedModel(model)``.

    Args:
      params: pytree of parameters.
      buffers: pytree of what else the model holds; see :func:`average`.
      dtype: of the average of floating-point parameters. Default: as the parameters. An average of
        half-precision parameters stands still unless it is kept in float32.

    Returns:
      An :class:`Averaged`, which shares no array with the parameters.
    """

    def copied(x: Any) -> jax.Array:
        return jnp.array(x, dtype if _is_averaged(x) else None, copy=True)

    return Averaged(jnp.zeros([], jnp.int32), jax.tree.map(copied, params), jax.tree.map(jnp.array, buffers))


def average(
    averaged: Averaged,
    params: Any,
    buffers: Any = None,
    *,
    avg_fn: AvgFn | None = None,
    use_buffers: bool = False,
) -> Averaged:
    """Takes the current parameters into the average, as ``AveragedModel.update_parameters``.

    The first call copies them.

    Args:
      averaged: what :func:`init_average` or the call before returned.
      params: the parameters now.
      buffers: what else the model holds now.
      avg_fn: ``(average, param, n_averaged) -> average`` of one parameter, in float32 at least. Default:
        :func:`get_swa_avg_fn`.
      use_buffers: average the buffers too. Default False: they are copied. Integers and random keys are
        always copied, where PyTorch truncates averages of its counts of batches.

    Returns:
      The new average.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> averaged = jo.averaging.init_average(jnp.zeros(1))
      >>> for value in (1.0, 2.0, 6.0):
      ...     averaged = jo.averaging.average(averaged, jnp.full(1, value))
      >>> print(averaged.params, averaged.n_averaged)
      [3.] 3
    """
    fn = get_swa_avg_fn() if avg_fn is None else avg_fn
    is_first = averaged.n_averaged == 0

    def mixed(old: Any, now: Any) -> Any:
        if is_absent(old):
            return old
        if not _is_averaged(now):
            return now
        wide = working_dtype(old.dtype)
        start, end = old.astype(wide), jnp.asarray(now).astype(wide)
        return jnp.where(is_first, end, fn(start, end, averaged.n_averaged)).astype(old.dtype)

    def each(old: Any, now: Any) -> Any:
        return jax.tree.map(mixed, old, now, is_leaf=is_absent)

    return Averaged(
        averaged.n_averaged + 1,
        each(averaged.params, params),
        each(averaged.buffers, buffers) if use_buffers else buffers,
    )


def _is_averaged(x: Any) -> bool:
    return bool(jnp.issubdtype(jnp.asarray(x).dtype, jnp.inexact))
