"""Binary cross-entropy of logits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_core.losses.reduction import Reduction, broadcast_to_input, check_reduction, reduce, widen

__all__ = ["bce_with_logits", "binary_cross_entropy_with_logits"]


def bce_with_logits(
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    reduction: Reduction = "mean",
    pos_weight: Any = None,
) -> jax.Array:
    """Binary cross-entropy, as ``torch.nn.functional.binary_cross_entropy_with_logits``.

    With ``p = sigmoid(input)``, and without ever forming ``p``::

        loss = -weight * (pos_weight * target * log(p) + (1 - target) * log(1 - p))

    Args:
      input: logits, any shape.
      target: probabilities of the positive class, between 0 and 1, of the same shape and dtype.
      weight: factor of each loss, broadcast to the input; the mean is not divided by its sum.
      reduction: ``"mean"`` (default), ``"sum"`` or ``"none"``.
      pos_weight: factor of the positive class, broadcast to the input; usually ``(classes,)``.

    Returns:
      Scalar, or the losses in the input's shape.

    Raises:
      ValueError: the target has another shape, a weight does not broadcast, or unknown reduction.

    Differences from ``optax.losses.sigmoid_binary_cross_entropy``: none in its numbers; it has neither
    weights nor reductions.

    Example:
      >>> import jax.numpy as jnp
      >>> losses = bce_with_logits(jnp.array([0.0, 1000.0]), jnp.array([1.0, 0.0]), reduction="none")
      >>> print(losses.round(4))
      [6.931e-01 1.000e+03]
    """
    check_reduction(reduction)
    input, target = jnp.asarray(input), jnp.asarray(target)
    if input.shape != target.shape:
        raise ValueError(f"Target size ({target.shape}) must be the same as input size ({input.shape})")
    if not jnp.issubdtype(target.dtype, jnp.floating):
        raise TypeError(f"target must be floating point, as the input is; got {target.dtype}. Cast it first.")
    dtype = jnp.promote_types(input.dtype, target.dtype)
    x, y = widen(input), widen(target)
    log_p = jax.nn.log_sigmoid(x)
    if pos_weight is not None:
        log_p = log_p * ((broadcast_to_input("pos_weight", pos_weight, x) - 1) * y + 1)
    losses = (1 - y) * x - log_p
    if weight is not None:
        losses = losses * broadcast_to_input("weight", weight, x)
    return reduce(losses, reduction).astype(dtype)


binary_cross_entropy_with_logits = bce_with_logits
