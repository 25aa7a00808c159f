"""Adam in the infinity norm."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_core.checks import require_betas, require_non_negative
from jaxopt_core.hyperparams import Hyperparams, Values
from jaxopt_core.leaf import zeros_like
from jaxopt_core.leafwise import Leafwise, leafwise
from jaxopt_core.numerics import bias_correction, lerp
from jaxopt_core.rule import Rule
from jaxopt_core.tree import Slots

__all__ = ["adamax"]


def adamax(
    lr: Any = 2e-3,
    betas: Any = (0.9, 0.999),
    eps: Any = 1e-8,
    weight_decay: Any = 0,
    *,
    maximize: bool = False,
) -> Leafwise:
    """Adam in the infinity norm, as ``torch.optim.Adamax``.

    At step ``t``, with ``g`` the gradient::

        m <- beta1 * m + (1 - beta1) * g
        u <- max(beta2 * u, abs(g) + eps)
        p <- p - lr / (1 - beta1**t) * m / u

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 2.

    Args:
      lr: learning rate. Default 2e-3.
      betas: decay rates of the running average and of the infinity norm. Default (0.9, 0.999).
      eps: added to the gradient's magnitude. Default 1e-8.
      weight_decay: L2 penalty, added to the gradient. Default 0.
      maximize: ascend instead of descend. Default False.

    Returns:
      An Optax gradient transformation; slots ``exp_avg`` and ``exp_inf``.

    Raises:
      ValueError: a number out of range, in PyTorch's words.

    Differences from ``optax.adamax``: none beyond rounding; Optax has no L2 penalty.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> tx = jo.adamax(lr=0.1)
      >>> params = jnp.ones(2)
      >>> updates, state = tx.update(jnp.ones(2), tx.init(params), params)
      >>> print(f"{updates[0]:.4f}")
      -0.1000
    """
    hyperparams = Hyperparams(
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        lengths={"betas": 2},
        structure={"maximize": maximize},
    )
    require_non_negative(lr, "Invalid learning rate: {}")
    require_non_negative(eps, "Invalid epsilon value: {}")
    require_betas(betas)
    require_non_negative(weight_decay, "Invalid weight_decay value: {}")
    return leafwise(
        Rule("Adamax", _init, _update),
        hyperparams,
    )


def _init(param: jax.Array, h: Values) -> Slots:
    del h
    return {"exp_avg": zeros_like(param), "exp_inf": zeros_like(param)}


def _update(
    grad: jax.Array, param: jax.Array, slots: Slots, h: Values, step: jax.Array
) -> tuple[jax.Array, Slots]:
    del param
    beta1, beta2 = h.betas
    exp_avg = lerp(slots["exp_avg"], grad, 1 - beta1)
    exp_inf = jnp.maximum(beta2 * slots["exp_inf"], jnp.abs(grad) + h.eps)
    step_size = h.lr / bias_correction(beta1, step)
    return -step_size * (exp_avg / exp_inf), {"exp_avg": exp_avg, "exp_inf": exp_inf}
