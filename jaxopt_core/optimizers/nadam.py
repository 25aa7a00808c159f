"""Adam with Nesterov's momentum."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_core.checks import require_betas, require_non_negative
from jaxopt_core.hyperparams import Hyperparams, Values
from jaxopt_core.leaf import zeros_like
from jaxopt_core.leafwise import Leafwise, leafwise
from jaxopt_core.numerics import bias_correction, lerp, round_to_float32, sqrt
from jaxopt_core.rule import Rule
from jaxopt_core.tree import Slots

__all__ = ["nadam"]


def nadam(
    lr: Any = 2e-3,
    betas: Any = (0.9, 0.999),
    eps: Any = 1e-8,
    weight_decay: Any = 0,
    momentum_decay: Any = 4e-3,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> Leafwise:
    """Adam with Nesterov's momentum and a momentum schedule, as ``torch.optim.NAdam``.

    At step ``t``, with ``g`` the gradient and ``M`` the product of all ``mu`` so far::

        mu(t) = beta1 * (1 - 0.96**(t * momentum_decay) / 2)
        M <- M * mu(t)
        m <- beta1 * m + (1 - beta1) * g
        v <- beta2 * v + (1 - beta2) * g**2
        d  = sqrt(v / (1 - beta2**t)) + eps
        p <- p - lr * (1 - mu(t)) / (1 - M) * g / d - lr * mu(t+1) / (1 - M * mu(t+1)) * m / d

    Source: Dozat, "Incorporating Nesterov Momentum into Adam", 2016.

    Args:
      lr: learning rate. Default 2e-3.
      betas: decay rates of the running averages of gradient and square. Default (0.9, 0.999).
      eps: added to the denominator, outside of the root. Default 1e-8.
      weight_decay: L2 penalty, or decay with ``decoupled_weight_decay``. Default 0.
      momentum_decay: speed at which ``mu`` grows from ``beta1 / 2`` to ``beta1``. Default 4e-3.
      decoupled_weight_decay: shrink the parameter instead of penalising it. Default False.
      maximize: ascend instead of descend. Default False.

    Returns:
      An Optax gradient transformation; slots ``exp_avg``, ``exp_avg_sq`` and ``mu_product``, one float32
      scalar a parameter (float32 for float64 parameters too, as in PyTorch).

    Raises:
      ValueError: a number out of range, in PyTorch's words.

    Differences from ``optax.nadam``: that has no momentum schedule; parameters are .09 apart after 50
    steps of a problem of unit size.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> tx = jo.nadam()
      >>> params = jnp.ones(2)
      >>> updates, state = tx.update(jnp.ones(2), tx.init(params), params)
      >>> round(float(state.slots["mu_product"]), 4)
      0.4501
    """
    hyperparams = Hyperparams(
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        momentum_decay=momentum_decay,
        lengths={"betas": 2},
        structure={"maximize": maximize, "decoupled_weight_decay": decoupled_weight_decay},
    )
    require_non_negative(lr, "Invalid learning rate: {}")
    require_non_negative(eps, "Invalid epsilon value: {}")
    require_betas(betas)
    require_non_negative(weight_decay, "Invalid weight_decay value: {}")
    require_non_negative(momentum_decay, "Invalid momentum_decay value: {}")
    return leafwise(
        Rule("NAdam", _init, _update, elementwise=False),
        hyperparams,
    )


def _init(param: jax.Array, h: Values) -> Slots:
    del h
    return {
        "exp_avg": zeros_like(param),
        "exp_avg_sq": zeros_like(param),
        "mu_product": jnp.ones([], jnp.float32),
    }


def _update(
    grad: jax.Array, param: jax.Array, slots: Slots, h: Values, step: jax.Array
) -> tuple[jax.Array, Slots]:
    del param
    beta1, beta2 = h.betas

    def mu_at(t: jax.Array) -> jax.Array:
        return beta1 * (1 - 0.5 * jnp.power(jnp.asarray(0.96, t.dtype), t * h.momentum_decay))

    mu, mu_next = mu_at(step), mu_at(step + 1)
    mu_product = round_to_float32(slots["mu_product"] * round_to_float32(mu))
    exp_avg = lerp(slots["exp_avg"], grad, 1 - beta1)
    exp_avg_sq = beta2 * slots["exp_avg_sq"] + (1 - beta2) * grad * grad
    denominator = sqrt(exp_avg_sq / bias_correction(beta2, step)) + h.eps
    from_grad = -h.lr * (1 - mu) / (1 - mu_product) * (grad / denominator)
    from_average = -h.lr * mu_next / (1 - mu_product * mu_next) * (exp_avg / denominator)
    return from_grad + from_average, {
        "exp_avg": exp_avg,
        "exp_avg_sq": exp_avg_sq,
        "mu_product": mu_product,
    }
