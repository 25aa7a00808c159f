"""The Kullback-Leibler divergence."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from jaxopt_core.losses.reduction import broadcast, check_reduction, reduce

__all__ = ["kl_div"]


def kl_div(
    input: Any,
    target: Any,
    *,
    reduction: Literal["none", "mean", "sum", "batchmean"] = "mean",
    log_target: bool = False,
) -> jax.Array:
    """Terms of the Kullback-Leibler divergence, as ``torch.nn.functional.kl_div``.

    Elementwise ``target * (log(target) - input)``, where a target of 0 contributes 0.

    Args:
      input: log-probabilities, any shape.
      target: probabilities, or log-probabilities with ``log_target``; broadcast against the input.
      reduction: ``"batchmean"`` divides the sum by ``input.shape[0]``, which is the divergence's definition.
        ``"mean"`` (default, as in PyTorch) divides by the number of elements, for which PyTorch warns;
        here it does not. ``"sum"``, ``"none"``.
      log_target: whether the target is given as logarithms. Default False.

    Returns:
      Scalar, or the terms at the common shape.

    Raises:
      ValueError: unknown reduction, or shapes that do not broadcast.

    Differences from ``optax.losses.kl_divergence``: that one sums over an axis and has no reductions.

    Example:
      >>> import jax.numpy as jnp
      >>> p, q = jnp.array([[0.5, 0.5]]), jnp.array([[0.25, 0.75]])
      >>> print(f"{kl_div(jnp.log(q), p, reduction='batchmean'):.4f}")
      0.1438
    """
    check_reduction(reduction, also=("batchmean",))
    batch = jnp.shape(input)[:1]
    input, target = broadcast(input, target)
    terms = jnp.exp(target) * (target - input) if log_target else xlogy(target, target) - target * input
    if reduction != "batchmean":
        return reduce(terms, reduction)
    return terms.sum() / (batch[0] if batch else 1)
