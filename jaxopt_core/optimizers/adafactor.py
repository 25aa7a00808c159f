"""Adafactor."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_core.checks import element, require, require_non_negative
from jaxopt_core.hyperparams import Hyperparams, Values
from jaxopt_core.leaf import zeros_like
from jaxopt_core.leafwise import Leafwise, leafwise
from jaxopt_core.numerics import lerp, sqrt
from jaxopt_core.optimizers._axes import torch_axes
from jaxopt_core.rule import Rule
from jaxopt_core.tree import Slots

__all__ = ["adafactor"]


def adafactor(
    lr: Any = 1e-2,
    beta2_decay: Any = -0.8,
    eps: Any = (None, 1e-3),
    d: Any = 1.0,
    weight_decay: Any = 0.0,
    *,
    maximize: bool = False,
    axes: Any = None,
) -> Leafwise:
    """Adafactor, as ``torch.optim.Adafactor``.

    At step ``t``, with ``g`` the gradient of an array of two or more dimensions, and means over rows and
    columns of its last two::

        w      = t**beta2_decay
        alpha  = max(eps[1], RMS(p)) * min(lr, 1 / sqrt(t))
        p     <- p - lr * weight_decay * p
        r     <- (1 - w) * r + w * mean over columns of g**2
        c     <- (1 - w) * c + w * mean over rows of g**2
        v      = r c / max(mean of r over rows, eps[0])
        u      = g / sqrt(max(v, eps[0]**2))
        p     <- p - alpha * u / max(1, RMS(u) / d)

    A vector or scalar keeps ``v <- (1 - w) * v + w * g**2`` itself.

    Source: Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018,
    algorithm 6, with PyTorch's relative step size and its eps.

    Args:
      lr: bound of the relative step size, and factor of the weight decay. Default 1e-2.
      beta2_decay: power by which the weight of a new square decays; at most 0. Default -0.8.
      eps: lower bounds of the second moment (None: the machine epsilon of each parameter's dtype) and of
        the parameter's root mean square. Default (None, 1e-3).
      d: clipping threshold of the update's root mean square. Default 1.0.
      weight_decay: decay, times the learning rate, of the parameter. Default 0.0.
      maximize: ascend instead of descend. Default False.
      axes: the permutation of a parameter's axes for which ``param.transpose(axes)`` is PyTorch's tensor,
        since the last two of PyTorch's axes are factored. ``(1, 0)`` for the kernel of a Flax ``Dense``,
        ``(3, 2, 0, 1)`` for that of a 2-D ``Conv``; :func:`by_path` for several. A permutation of another
        rank than the parameter's is an error, ``None`` is no permutation. Default None.

    Returns:
      An Optax gradient transformation; slots ``row_var`` and ``col_var`` with the averaged axis at length
      1, in the parameter's own layout, for arrays of two or more dimensions; ``variance`` for others.

    Raises:
      ValueError: a number out of range, in PyTorch's words, or a complex parameter.

    Differences from ``optax.adafactor``: that factors the two largest axes, and only if both have 128
    elements, does not scale the weight decay by the learning rate, and has other defaults: 0.06 apart after
    50 steps of random gradients, 0.03 if its step sizes and bounds are set to PyTorch's. Where
    parameters differ in dtype, PyTorch takes the epsilon of the first for all; here each has its own.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> tx = jo.adafactor(axes=jo.by_path({"kernel$": (1, 0)}, default=None))
      >>> state = tx.init({"kernel": jnp.ones((3, 5)), "bias": jnp.ones(5)})
      >>> state.slots["row_var"]["kernel"].shape, state.slots["col_var"]["kernel"].shape
      ((1, 5), (3, 1))
    """
    hyperparams = Hyperparams(
        lr=lr,
        beta2_decay=beta2_decay,
        eps=eps,
        d=d,
        weight_decay=weight_decay,
        lengths={"eps": 2},
        optional=("eps",),
        structure={"maximize": maximize, "axes": axes},
    )
    require_non_negative(lr, "Learning rate should be >= 0 but is: {}")
    require(beta2_decay, lambda number: number <= 0.0, "beta2_decay should be <= 0 but is: {}")
    require_non_negative(element(eps, 0), "epsilon1 should be >= 0 but is: {}")
    require_non_negative(element(eps, 1), "epsilon2 should be >= 0 but is: {}")
    require(d, lambda number: number >= 1.0, "Clipping threshold d should be >= 1 but is: {}")
    require_non_negative(weight_decay, "weight_decay should be >= 0 but is: {}")
    return leafwise(
        Rule("Adafactor", _init, _update, decay="decoupled", complex=False, elementwise=False),
        hyperparams,
    )


def _init(param: jax.Array, h: Values) -> Slots:
    axes = torch_axes(param, h.axes)
    if param.ndim < 2:
        return {"variance": zeros_like(param)}
    rows, columns = axes[-2], axes[-1]
    return {
        "row_var": zeros_like(jnp.sum(param, axis=columns, keepdims=True)),
        "col_var": zeros_like(jnp.sum(param, axis=rows, keepdims=True)),
    }


def _update(
    grad: jax.Array, param: jax.Array, slots: Slots, h: Values, step: jax.Array
) -> tuple[jax.Array, Slots]:
    eps1 = jnp.finfo(h.dtype).eps.item() if h.eps[0] is None else h.eps[0]
    weight = step**h.beta2_decay
    alpha = jnp.maximum(h.eps[1], _rms(param)) * jnp.minimum(h.lr, 1 / jnp.sqrt(step))
    if grad.ndim < 2:
        estimate = lerp(slots["variance"], grad * grad, weight)
        new = {"variance": estimate}
    else:
        *_, rows, columns = torch_axes(param, h.axes)
        row_var = lerp(slots["row_var"], jnp.mean(grad * grad, axis=columns, keepdims=True), weight)
        col_var = lerp(slots["col_var"], jnp.mean(grad * grad, axis=rows, keepdims=True), weight)
        new = {"row_var": row_var, "col_var": col_var}
        estimate = row_var * col_var / jnp.maximum(row_var.mean(axis=rows, keepdims=True), eps1)
    update = grad * jax.lax.rsqrt(jnp.maximum(estimate, eps1 * eps1))
    return -alpha / jnp.maximum(1.0, _rms(update) / h.d) * update, new


def _rms(x: jax.Array) -> jax.Array:
    return sqrt(jnp.sum(x * x)) / max(x.size, 1) ** 0.5
