"""Muon: momentum orthogonalised by Newton-Schulz."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_core.checks import require, require_non_negative
from jaxopt_core.groups import ByPath
from jaxopt_core.hyperparams import Hyperparams, Values
from jaxopt_core.leaf import zeros_like
from jaxopt_core.leafwise import Leafwise, leafwise
from jaxopt_core.numerics import lerp
from jaxopt_core.optimizers._axes import torch_axes
from jaxopt_core.rule import Rule
from jaxopt_core.tree import Slots

__all__ = ["muon"]


def muon(
    lr: Any = 1e-3,
    weight_decay: Any = 0.1,
    momentum: Any = 0.95,
    nesterov: bool = True,
    ns_coefficients: Any = (3.4445, -4.775, 2.0315),
    eps: Any = 1e-7,
    ns_steps: Any = 5,
    adjust_lr_fn: Any = None,
    *,
    axes: Any = None,
) -> Leafwise:
    """Muon, as ``torch.optim.Muon``, for matrices only.

    With ``g`` the gradient of an ``A x B`` matrix::

        m <- momentum * m + (1 - momentum) * g
        u  = momentum * m + (1 - momentum) * g    with nesterov, m without
        X  = u / max(norm(u), eps), in bfloat16, transposed if A > B
        X <- a X + (b X X' + c (X X')**2) X       ns_steps times
        p <- p * (1 - lr * weight_decay) - lr * k * X
        k  = sqrt(max(1, A / B)), or 0.2 * sqrt(max(A, B)) with adjust_lr_fn="match_rms_adamw"

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024;
    ``match_rms_adamw``: Liu et al., "Muon is Scalable for LLM Training", 2025.

    Args:
      lr: learning rate. Default 1e-3.
      weight_decay: decay, times the learning rate, of the parameter. Default 0.1.
      momentum: decay rate of the average of gradients. Default 0.95.
      nesterov: Nesterov's momentum. Default True.
      ns_coefficients: ``(a, b, c)``. Default (3.4445, -4.775, 2.0315).
      eps: lower bound of the norm by which the average is divided. Default 1e-7.
      ns_steps: Newton-Schulz iterations, fewer than 100. Default 5.
      adjust_lr_fn: ``"original"`` (the same as None) or ``"match_rms_adamw"``. Default None.
      axes: ``(1, 0)`` where the matrix is the transpose of PyTorch's, as the kernel of a Flax ``Dense``
        is, since ``k`` depends on which side is which; :func:`by_path` for several. Default None.

    Returns:
      An Optax gradient transformation; slot ``momentum_buffer``. Other parameters than matrices belong to
      another optimizer: combine the two with ``optax.partition``.

    Raises:
      ValueError: a number out of range, in PyTorch's words, or a parameter that is not a real matrix.

    Differences from ``optax.contrib.muon``: that accumulates a sum instead of an average, corrects its
    bias, iterates in the parameter's dtype and has no weight decay by default; parameters are .46 apart
    after 50 steps.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> tx = jo.muon(lr=0.1, weight_decay=0)
      >>> params = jnp.zeros((2, 3))
      >>> updates, state = tx.update(jnp.ones((2, 3)), tx.init(params), params)
      >>> updates.shape
      (2, 3)
    """
    hyperparams = Hyperparams(
        lr=lr,
        weight_decay=weight_decay,
        momentum=momentum,
        ns_coefficients=ns_coefficients,
        eps=eps,
        lengths={"ns_coefficients": 3},
        structure={"nesterov": nesterov, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn, "axes": axes},
    )
    require_non_negative(lr, "Learning rate should be >= 0 but is: {}")
    require_non_negative(momentum, "momentum should be >= 0 but is: {}")
    require_non_negative(weight_decay, "weight decay should be >= 0 but is: {}")
    require(ns_steps, lambda n: n < 100, "Number of steps must be less than 100 for computational efficiency")
    choices = adjust_lr_fn.choices().values() if isinstance(adjust_lr_fn, ByPath) else (adjust_lr_fn,)
    for choice in choices:
        if choice not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Adjust learning rate function {choice} is not supported")
    return leafwise(
        Rule("Muon", _init, _update, decay="decoupled", complex=False, elementwise=False),
        hyperparams,
    )


def _init(param: jax.Array, h: Values) -> Slots:
    if param.ndim != 2:
        raise ValueError(
            f"Muon only supports 2D parameters whereas we found a parameter with size: {param.shape}"
        )
    torch_axes(param, h.axes)
    return {"momentum_buffer": zeros_like(param)}


def _update(
    grad: jax.Array, param: jax.Array, slots: Slots, h: Values, step: jax.Array
) -> tuple[jax.Array, Slots]:
    del step
    buffer = lerp(slots["momentum_buffer"], grad, 1 - h.momentum)
    # In PyTorch the average is rounded to the parameter's dtype before it is used.
    direction = lerp(grad, buffer, h.momentum) if h.nesterov else buffer
    orthogonal = _orthogonalize(direction, h).astype(param.dtype)
    rows, columns = (param.shape[axis] for axis in torch_axes(param, h.axes))
    if h.adjust_lr_fn == "match_rms_adamw":
        ratio = 0.2 * max(rows, columns) ** 0.5
    else:
        ratio = max(1, rows / columns) ** 0.5
    return -h.lr * ratio * orthogonal, {"momentum_buffer": buffer}


def _orthogonalize(matrix: jax.Array, h: Values) -> jax.Array:
    """Newton-Schulz in bfloat16: every product is summed in float32 and rounded once."""
    a, b, c = (jnp.asarray(coefficient, jnp.float32) for coefficient in h.ns_coefficients)
    eps = jnp.asarray(h.eps, jnp.float32)
    tall = matrix.shape[0] > matrix.shape[1]
    x = _rounded(matrix.T if tall else matrix)
    norm = _rounded(jnp.sqrt(jnp.sum(jnp.square(x))))
    x = _rounded(x / _rounded(jnp.maximum(norm, eps)))
    for _ in range(h.ns_steps):
        gram = _rounded(_matmul(x, x.T))
        gram_update = _rounded(b * gram + c * _matmul(gram, gram))
        x = _rounded(a * x + _matmul(gram_update, x))
    return x.T if tall else x


def _rounded(x: jax.Array) -> jax.Array:
    """bfloat16's precision in float32's clothes; a cast there and back may be optimised away."""
    return jax.lax.reduce_precision(x.astype(jnp.float32), exponent_bits=8, mantissa_bits=7)


def _matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    low = jnp.bfloat16
    return jnp.matmul(x.astype(low), y.astype(low), preferred_element_type=jnp.float32)
