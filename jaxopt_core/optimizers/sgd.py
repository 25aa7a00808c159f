"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_core.checks import require_non_negative
from jaxopt_core.groups import ByPath
from jaxopt_core.hyperparams import Hyperparams, Values, is_zero
from jaxopt_core.leaf import zeros_like
from jaxopt_core.leafwise import Leafwise, leafwise
from jaxopt_core.rule import Rule
from jaxopt_core.tree import Slots

__all__ = ["sgd"]


def sgd(
    lr: Any = 1e-3,
    momentum: Any = 0,
    dampening: Any = 0,
    weight_decay: Any = 0,
    nesterov: bool = False,
    *,
    maximize: bool = False,
) -> Leafwise:
    r"""Stochastic gradient descent, as ``torch.optim.SGD``.

    With momentum :math:`\mu` and dampening :math:`\tau`::

        g   <- g + weight_decay * p
        buf <- g                             the first time
        buf <- momentum * buf + (1 - dampening) * g      from then on
        g   <- g + momentum * buf            with nesterov
        g   <- buf                           without
        p   <- p - lr * g

    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML
    2013, in PyTorch's form: the learning rate multiplies the buffer rather than enters it.

    Args:
      lr: learning rate. Default 1e-3.
      momentum: factor of the momentum buffer; 0, as a number, keeps no buffer. Default 0.
      dampening: how much of a gradient does not enter the buffer. The first never is dampened. Default 0.
      weight_decay: L2 penalty, added to the gradient. Default 0.
      nesterov: Nesterov's momentum. Default False.
      maximize: ascend instead of descend. Default False.

    Returns:
      An Optax gradient transformation; slot ``momentum_buffer`` unless ``momentum`` is the number 0. With
      a momentum that can change and a dampening, also ``momentum_buffer_set``, whether there has been a
      momentum yet: PyTorch makes the buffer the first time there is.

    Raises:
      ValueError: a number out of range, or Nesterov without momentum or with dampening.

    Differences from ``optax.sgd``: none without dampening and decay, which Optax does not offer.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> tx = jo.sgd(lr=0.1, momentum=0.9)
      >>> params = jnp.ones(2)
      >>> updates, state = tx.update(jnp.ones(2), tx.init(params), params)
      >>> print(jo.apply_updates(params, updates))
      [0.9 0.9]
    """
    hyperparams = Hyperparams(
        lr=lr,
        momentum=momentum,
        dampening=dampening,
        weight_decay=weight_decay,
        structure={"nesterov": nesterov, "maximize": maximize},
    )
    require_non_negative(lr, "Invalid learning rate: {}")
    require_non_negative(momentum, "Invalid momentum value: {}")
    require_non_negative(weight_decay, "Invalid weight_decay value: {}")
    # As PyTorch does not check its groups: one without momentum is plain SGD.
    if not any(isinstance(value, ByPath) for value in (momentum, dampening, nesterov)):
        _check_nesterov(nesterov, momentum, dampening)
    may_start_late = not isinstance(momentum, int | float) and not is_zero(dampening)
    return leafwise(
        Rule("SGD", _init, _update, elementwise=not may_start_late),
        hyperparams,
    )


def _check_nesterov(nesterov: bool, momentum: Any, dampening: Any) -> None:
    damped = isinstance(dampening, int | float) and dampening != 0
    if nesterov and (is_zero(momentum) or damped):
        raise ValueError("Nesterov momentum requires a momentum and zero dampening")


def _init(param: jax.Array, h: Values) -> Slots:
    if is_zero(h.momentum):
        return {}
    slots = {"momentum_buffer": zeros_like(param)}
    if _may_start_late(h):
        slots["momentum_buffer_set"] = jnp.zeros([], bool)
    return slots


def _may_start_late(h: Values) -> bool:
    # Without dampening a buffer of zeros and no buffer are the same.
    return isinstance(h.momentum, jax.Array) and not is_zero(h.dampening)


def _update(
    grad: jax.Array, param: jax.Array, slots: Slots, h: Values, step: jax.Array
) -> tuple[jax.Array, Slots]:
    del param
    if is_zero(h.momentum):
        return -h.lr * grad, {}
    buffer = slots["momentum_buffer"]
    new = {}
    kept = h.momentum * buffer + (1 - h.dampening) * grad
    if _may_start_late(h):
        moving = h.momentum != 0
        was_set = slots["momentum_buffer_set"] != 0
        new["momentum_buffer_set"] = was_set | moving
        buffer = jnp.where(moving, jnp.where(was_set, kept, grad), buffer)
    elif isinstance(h.momentum, jax.Array):
        moving = h.momentum != 0
        buffer = jnp.where(moving, kept, buffer)
    else:
        moving = True
        buffer = kept if is_zero(h.dampening) else jnp.where(step == 1, grad, kept)
    new["momentum_buffer"] = buffer
    direction = grad + h.momentum * buffer if h.nesterov else buffer
    return -h.lr * jnp.where(moving, direction, grad), new
