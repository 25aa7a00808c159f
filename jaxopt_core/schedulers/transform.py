"""Schedules as gradient transformations, for chains that are put together by hand."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_core.hyperparams import Hyperparams
from jaxopt_core.leaf import compute_dtype
from jaxopt_core.leafwise import OptimizerState
from jaxopt_core.tree import flatten, is_absent

__all__ = ["scale_by_learning_rate", "scale_by_schedule"]


def scale_by_schedule(schedule: Any) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by the value of a schedule.

    Args:
      schedule: whatever an optimizer takes as its learning rate: a schedule of the count, a stateful one, a
        number, ``by_path`` of these.

    Returns:
      An Optax gradient transformation. ``read_hyperparams`` shows the value as ``"scale"``.

    Differences from ``optax.scale_by_schedule``: it takes stateful schedules and ``by_path`` too, and
    the value can be read.

    Example:
      A plateau after a warm-up, which PyTorch's ``SequentialLR`` cannot do:

      >>> import jax.numpy as jnp, optax, jaxopt_core as jo
      >>> s = jo.schedulers
      >>> plateau = s.reduce_lr_on_plateau(0.1, patience=0)
      >>> tx = optax.chain(jo.adam(lr=plateau), s.scale_by_schedule(s.linear_lr(1.0, 0.5, total_iters=2)))
      >>> params, state = jnp.ones(2), tx.init(jnp.ones(2))
      >>> for loss in (1.0, 1.0, 1.0):
      ...     updates, state = tx.update(params, state, params, value=loss)
      ...     print([f"{value:.3f}" for value in jo.read_hyperparams(state).values()])
      ['0.100', '0.500']
      ['0.100', '0.750']
      ['0.010', '1.000']
    """
    return _scaling("scale", schedule, 1.0)


def scale_by_learning_rate(lr: Any, *, flip_sign: bool = True) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by minus a learning rate: the end of a chain that began with gradients.

    Args:
      lr: as for :func:`scale_by_schedule`.
      flip_sign: go down rather than up. Default True.

    Returns:
      An Optax gradient transformation. ``read_hyperparams`` shows the rate as ``"lr"``.

    Example:
      >>> import jax.numpy as jnp, optax, jaxopt_core as jo
      >>> schedule = jo.schedulers.step_lr(0.5, 1)
      >>> tx = optax.chain(optax.trace(0.9), jo.schedulers.scale_by_learning_rate(schedule))
      >>> params = jnp.ones(2)
      >>> updates, state = tx.update(params, tx.init(params), params)
      >>> print(updates, jo.read_hyperparams(state)["lr"])
      [-0.5 -0.5] 0.5
    """
    return _scaling("lr", lr, -1.0 if flip_sign else 1.0)


def _scaling(name: str, value: Any, sign: float) -> optax.GradientTransformationExtraArgs:
    hyperparams = Hyperparams(**{name: value}, changeable=(name,))

    def init(params: optax.Params) -> OptimizerState:
        leaves = flatten(params)
        wide = any(compute_dtype(leaf.dtype) == np.float64 for _, leaf in leaves.present())
        states = hyperparams.init(leaves.paths, np.float64 if wide else np.float32)
        return OptimizerState(jnp.zeros([], jnp.int32), states, {})

    def update(
        updates: optax.Updates, state: OptimizerState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, OptimizerState]:
        del params
        leaves = flatten(updates)
        now, after = hyperparams.advance(state.hyperparams, state.count, extra)
        scaled = [
            leaf if is_absent(leaf) else _scaled(leaf, sign, getattr(_values(now, path, leaf), name))
            for path, leaf in zip(leaves.paths, leaves.values, strict=True)
        ]
        return leaves.unflatten(scaled), OptimizerState(optax.safe_increment(state.count), after, {})

    def _values(now: Any, path: str, leaf: jax.Array) -> Any:
        return hyperparams.resolve(now, path, leaf.dtype, compute_dtype(leaf.dtype))

    return optax.GradientTransformationExtraArgs(init, update)


def _scaled(update: jax.Array, sign: float, factor: jax.Array) -> jax.Array:
    if jnp.issubdtype(update.dtype, jnp.complexfloating):
        return update * (sign * factor).astype(update.dtype)
    return (update.astype(factor.dtype) * (sign * factor)).astype(update.dtype)
