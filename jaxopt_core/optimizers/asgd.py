"""Averaged stochastic gradient descent."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_core.checks import require_non_negative
from jaxopt_core.hyperparams import Hyperparams, Values
from jaxopt_core.leaf import zeros_like
from jaxopt_core.leafwise import Leafwise, leafwise
from jaxopt_core.numerics import round_to_float32
from jaxopt_core.rule import Rule
from jaxopt_core.tree import Slots

__all__ = ["asgd"]


def asgd(
    lr: Any = 1e-2,
    lambd: Any = 1e-4,
    alpha: Any = 0.75,
    t0: Any = 1e6,
    weight_decay: Any = 0,
    *,
    maximize: bool = False,
) -> Leafwise:
    """Averaged stochastic gradient descent, as ``torch.optim.ASGD``.

    At step ``t``, with ``g`` the gradient::

        p  <- p * (1 - lambd * eta) - eta * g
        ax <- ax + mu * (p - ax)
        eta <- lr / (1 + lambd * lr * t)**alpha
        mu  <- 1 / max(1, t - t0)

    ``eta`` starts at ``lr`` and ``mu`` at 1, so a changed learning rate acts one step late.

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM J. Control
    Optim. 1992; Bottou, "Stochastic Gradient Tricks", 2012.

    Args:
      lr: learning rate. Default 1e-2.
      lambd: decay of parameter and rate. Default 1e-4.
      alpha: power of the decay of the rate. Default 0.75.
      t0: step at which the averaging starts. Default 1e6.
      weight_decay: L2 penalty, added to the gradient. Default 0.
      maximize: ascend instead of descend. Default False.

    Returns:
      An Optax gradient transformation; slots ``ax``, the averaged parameters, and ``eta`` and ``mu``, one
      float32 scalar a parameter (float32 for float64 parameters too, as in PyTorch).

    Raises:
      ValueError: a number out of range, in PyTorch's words.

    Differences from Optax: it has no such optimizer.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> tx = jo.asgd(lr=0.1, t0=0)
      >>> params = jnp.ones(2)
      >>> updates, state = tx.update(jnp.ones(2), tx.init(params), params)
      >>> print(state.slots["ax"])
      [0.89999 0.89999]
    """
    hyperparams = Hyperparams(
        lr=lr,
        lambd=lambd,
        alpha=alpha,
        t0=t0,
        weight_decay=weight_decay,
        structure={"maximize": maximize},
    )
    require_non_negative(lr, "Invalid learning rate: {}")
    require_non_negative(weight_decay, "Invalid weight_decay value: {}")
    return leafwise(
        Rule("ASGD", _init, _update, elementwise=False),
        hyperparams,
    )


def _init(param: jax.Array, h: Values) -> Slots:
    return {
        "eta": jnp.array(h.lr, jnp.float32, copy=True),  # lest it be donated twice
        "mu": jnp.ones([], jnp.float32),
        "ax": zeros_like(param),
    }


def _update(
    grad: jax.Array, param: jax.Array, slots: Slots, h: Values, step: jax.Array
) -> tuple[jax.Array, Slots]:
    # PyTorch makes the state at the first step, from the learning rate of that moment.
    eta = jnp.where(step == 1, round_to_float32(h.lr), slots["eta"])
    update = -(h.lambd * eta) * param - eta * grad
    moved = param + update
    average = jnp.where(slots["mu"] == 1, moved, slots["ax"] + (moved - slots["ax"]) * slots["mu"])
    return update, {
        "eta": h.lr / (1 + h.lambd * h.lr * step) ** h.alpha,
        "mu": 1 / jnp.maximum(1, step - h.t0),
        "ax": average,
    }
