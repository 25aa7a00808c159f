"""Losses of real-valued predictions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxopt_core.checks import require
from jaxopt_core.losses.reduction import Reduction, broadcast_with_warning, check_reduction, reduce

__all__ = ["huber_loss", "l1_loss", "mse_loss", "smooth_l1_loss"]


def mse_loss(input: Any, target: Any, *, reduction: Reduction = "mean", weight: Any = None) -> jax.Array:
    """Squared error, as ``torch.nn.functional.mse_loss``: ``(input - target)**2``.

    Args:
      input: predictions, any shape.
      target: of the same shape; another is broadcast, with PyTorch's warning that this is likely wrong.
      reduction: ``"mean"`` (default), ``"sum"`` or ``"none"``.
      weight: of the input's shape; the mean is then weighted, divided by the sum of the weights.

    Returns:
      Scalar, or the losses at the common shape.

    Raises:
      ValueError: unknown reduction, shapes that do not broadcast, or a weight of another shape.

    Example:
      >>> import jax.numpy as jnp
      >>> print(mse_loss(jnp.array([1.0, 2.0]), jnp.array([0.0, 4.0])))
      2.5
    """
    input, target = broadcast_with_warning(input, target)
    return _weighted(optax.losses.squared_error(input, target), weight, reduction)


def l1_loss(input: Any, target: Any, *, reduction: Reduction = "mean", weight: Any = None) -> jax.Array:
    """Absolute error, as ``torch.nn.functional.l1_loss``: ``abs(input - target)``.

    The derivative at 0 is 0. Arguments, result and errors are :func:`mse_loss`'s.

    Example:
      >>> import jax.numpy as jnp
      >>> print(l1_loss(jnp.array([1.0, 2.0]), jnp.array([0.0, 4.0])))
      1.5
    """
    input, target = broadcast_with_warning(input, target)
    return _weighted(_absolute(input - target), weight, reduction)


def huber_loss(
    input: Any, target: Any, *, reduction: Reduction = "mean", delta: Any = 1.0, weight: Any = None
) -> jax.Array:
    """Huber's loss, as ``torch.nn.functional.huber_loss``.

    With ``e = abs(input - target)``: ``e**2 / 2`` up to ``delta``, ``delta * (e - delta / 2)`` beyond.

    Source: Huber, "Robust Estimation of a Location Parameter", 1964; computed by
    ``optax.losses.huber_loss``.

    Args:
      input: predictions, any shape.
      target: of the same shape, or broadcast with a warning.
      reduction: ``"mean"`` (default), ``"sum"`` or ``"none"``.
      delta: where the loss turns linear, positive. Default 1.
      weight: of the input's shape. The mean is over the number of elements and not, as in
        :func:`mse_loss`, over the sum of the weights: PyTorch's own difference.

    Returns:
      Scalar, or the losses at the common shape.

    Raises:
      ValueError: ``delta`` is not positive, unknown reduction, or shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> print(huber_loss(jnp.array([0.5, 3.0]), jnp.zeros(2), reduction="none"))
      [0.125 2.5  ]
    """
    require(delta, lambda x: x > 0, "huber_loss does not support non-positive values for delta: {}")
    input, target = broadcast_with_warning(input, target)
    losses = optax.losses.huber_loss(input, target, delta=delta)
    return reduce(losses if weight is None else losses * _checked(weight, input), reduction)


def smooth_l1_loss(input: Any, target: Any, *, reduction: Reduction = "mean", beta: Any = 1.0) -> jax.Array:
    """Smooth L1, as ``torch.nn.functional.smooth_l1_loss``: :func:`huber_loss` divided by its threshold.

    With ``e = abs(input - target)``: ``e**2 / (2 * beta)`` below ``beta``, ``e - beta / 2`` beyond.

    Source: Girshick, "Fast R-CNN", 2015.

    Args:
      input: predictions, any shape.
      target: of the same shape, or broadcast with a warning.
      reduction: ``"mean"`` (default), ``"sum"`` or ``"none"``.
      beta: where the loss turns linear, not negative. Default 1; 0 is :func:`l1_loss`.

    Returns:
      Scalar, or the losses at the common shape.

    Raises:
      ValueError: ``beta`` is negative, unknown reduction, or shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> print(smooth_l1_loss(jnp.array([1.0, 3.0]), jnp.zeros(2), beta=2.0, reduction="none"))
      [0.25 2.  ]
    """
    require(beta, lambda x: x >= 0, "smooth_l1_loss does not support negative values for beta: {}")
    input, target = broadcast_with_warning(input, target)
    if isinstance(beta, int | float) and beta == 0:
        return reduce(_absolute(input - target), reduction)
    return reduce(optax.losses.huber_loss(input, target, delta=beta) / beta, reduction)


def _absolute(error: jax.Array) -> jax.Array:
    # PyTorch's derivative is 0 at 0 and of NaN; that of jnp.abs is 1 and NaN.
    sign = jnp.where(jnp.isnan(error), 0, jnp.sign(error))
    return error * jax.lax.stop_gradient(sign)


def _weighted(losses: jax.Array, weight: Any, reduction: Reduction) -> jax.Array:
    check_reduction(reduction)
    if weight is None:
        return reduce(losses, reduction)
    weight = _checked(weight, losses)
    losses = losses * weight
    return losses.sum() / weight.sum() if reduction == "mean" else reduce(losses, reduction)


def _checked(weight: Any, input: jax.Array) -> jax.Array:
    weight = jnp.asarray(weight)
    if weight.shape != input.shape:
        raise ValueError(
            f"Weights and input must have the same size: weight is {weight.shape}, input {input.shape}."
        )
    return weight
