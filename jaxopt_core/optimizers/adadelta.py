"""Adadelta."""

from __future__ import annotations

from typing import Any

import jax

from jaxopt_core.checks import require, require_non_negative
from jaxopt_core.hyperparams import Hyperparams, Values
from jaxopt_core.leaf import zeros_like
from jaxopt_core.leafwise import Leafwise, leafwise
from jaxopt_core.numerics import sqrt
from jaxopt_core.rule import Rule
from jaxopt_core.tree import Slots

__all__ = ["adadelta"]


def adadelta(
    lr: Any = 1.0, rho: Any = 0.9, eps: Any = 1e-6, weight_decay: Any = 0, *, maximize: bool = False
) -> Leafwise:
    """Adadelta, as ``torch.optim.Adadelta``.

    With ``g`` the gradient::

        v <- rho * v + (1 - rho) * g**2
        d  = sqrt(a + eps) / sqrt(v + eps) * g
        a <- rho * a + (1 - rho) * d**2
        p <- p - lr * d

    Source: Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, algorithm 1.

    Args:
      lr: factor of the step. Default 1.0.
      rho: decay rate of both averages. Default 0.9.
      eps: added inside both roots. Default 1e-6.
      weight_decay: L2 penalty, added to the gradient. Default 0.
      maximize: ascend instead of descend. Default False.

    Returns:
      An Optax gradient transformation; slots ``square_avg`` (``v``) and ``acc_delta`` (``a``).

    Raises:
      ValueError: a number out of range, in PyTorch's words.

    Differences from ``optax.adadelta``: none beyond rounding.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> tx = jo.adadelta()
      >>> params = jnp.ones(2)
      >>> updates, state = tx.update(jnp.ones(2), tx.init(params), params)
      >>> print(updates)
      [-0.00316226 -0.00316226]
    """
    hyperparams = Hyperparams(
        lr=lr,
        rho=rho,
        eps=eps,
        weight_decay=weight_decay,
        structure={"maximize": maximize},
    )
    require_non_negative(lr, "Invalid learning rate: {}")
    require(rho, lambda number: 0.0 <= number <= 1.0, "Invalid rho value: {}")
    require_non_negative(eps, "Invalid epsilon value: {}")
    require_non_negative(weight_decay, "Invalid weight_decay value: {}")
    return leafwise(
        Rule("Adadelta", _init, _update),
        hyperparams,
    )


def _init(param: jax.Array, h: Values) -> Slots:
    del h
    return {"square_avg": zeros_like(param), "acc_delta": zeros_like(param)}


def _update(
    grad: jax.Array, param: jax.Array, slots: Slots, h: Values, step: jax.Array
) -> tuple[jax.Array, Slots]:
    del param, step
    square_avg = h.rho * slots["square_avg"] + (1 - h.rho) * grad * grad
    delta = sqrt(slots["acc_delta"] + h.eps) / sqrt(square_avg + h.eps) * grad
    acc_delta = h.rho * slots["acc_delta"] + (1 - h.rho) * delta * delta
    return -h.lr * delta, {"square_avg": square_avg, "acc_delta": acc_delta}
