"""RMSprop, plain and centered."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_core.checks import require_non_negative
from jaxopt_core.hyperparams import Hyperparams, Values, is_zero
from jaxopt_core.leaf import zeros_like
from jaxopt_core.leafwise import Leafwise, leafwise
from jaxopt_core.numerics import lerp, sqrt
from jaxopt_core.rule import Rule
from jaxopt_core.tree import Slots

__all__ = ["rmsprop"]


def rmsprop(
    lr: Any = 1e-2,
    alpha: Any = 0.99,
    eps: Any = 1e-8,
    weight_decay: Any = 0,
    momentum: Any = 0,
    centered: bool = False,
    *,
    maximize: bool = False,
) -> Leafwise:
    """RMSprop, as ``torch.optim.RMSprop``.

    With ``g`` the gradient::

        v <- alpha * v + (1 - alpha) * g**2
        a <- alpha * a + (1 - alpha) * g              with centered
        d  = sqrt(v) + eps,  or  sqrt(v - a**2) + eps with centered
        b <- momentum * b + g / d                     with momentum
        p <- p - lr * b,  or  p - lr * g / d          without

    Source: Hinton, "Neural Networks for Machine Learning", lecture 6e; centered: Graves, "Generating
    Sequences With Recurrent Neural Networks", 2013, equations 38 to 45.

    Args:
      lr: learning rate. Default 1e-2.
      alpha: decay rate of the averages. Default 0.99.
      eps: added to the denominator, outside of the root. Default 1e-8.
      weight_decay: L2 penalty, added to the gradient. Default 0.
      momentum: factor of the momentum buffer; 0, as a number, keeps no buffer. Default 0.
      centered: divide by an estimate of the standard deviation instead of the root mean square.
        Default False.
      maximize: ascend instead of descend. Default False.

    Returns:
      An Optax gradient transformation; slots ``square_avg`` (``v``), ``grad_avg`` (``a``) with
      ``centered``, ``momentum_buffer`` (``b``) unless ``momentum`` is the number 0.

    Raises:
      ValueError: a number out of range, in PyTorch's words.

    Differences from ``optax.rmsprop``: that decays by 0.9 and has eps inside the root by default, which is
    0.44 after 50 steps of random gradients, 0.03 with the same decay; and it multiplies the momentum buffer
    by the rates of its own steps, which is nothing at a constant rate, and 2 where the rate falls by a
    tenth at every step.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> tx = jo.rmsprop(lr=0.1)
      >>> params = jnp.ones(2)
      >>> updates, state = tx.update(jnp.ones(2), tx.init(params), params)
      >>> print(updates.round(4))
      [-1. -1.]
    """
    hyperparams = Hyperparams(
        lr=lr,
        alpha=alpha,
        eps=eps,
        weight_decay=weight_decay,
        momentum=momentum,
        structure={"centered": centered, "maximize": maximize},
    )
    require_non_negative(lr, "Invalid learning rate: {}")
    require_non_negative(eps, "Invalid epsilon value: {}")
    require_non_negative(momentum, "Invalid momentum value: {}")
    require_non_negative(weight_decay, "Invalid weight_decay value: {}")
    require_non_negative(alpha, "Invalid alpha value: {}")
    return leafwise(
        Rule("RMSprop", _init, _update),
        hyperparams,
    )


def _init(param: jax.Array, h: Values) -> Slots:
    names = ["square_avg"]
    if h.centered:
        names.append("grad_avg")
    if not is_zero(h.momentum):
        names.append("momentum_buffer")
    return {name: zeros_like(param) for name in names}


def _update(
    grad: jax.Array, param: jax.Array, slots: Slots, h: Values, step: jax.Array
) -> tuple[jax.Array, Slots]:
    del param, step
    square_avg = h.alpha * slots["square_avg"] + (1 - h.alpha) * grad * grad
    new = {"square_avg": square_avg}
    variance = square_avg
    if h.centered:
        grad_avg = new["grad_avg"] = lerp(slots["grad_avg"], grad, 1 - h.alpha)
        variance = square_avg - grad_avg * grad_avg
    direction = grad / (sqrt(variance) + h.eps)
    if is_zero(h.momentum):
        return -h.lr * direction, new
    buffer = h.momentum * slots["momentum_buffer"] + direction
    # PyTorch leaves the buffer alone while the momentum is 0.
    new["momentum_buffer"] = jnp.where(h.momentum > 0, buffer, slots["momentum_buffer"])
    return -h.lr * buffer, new
