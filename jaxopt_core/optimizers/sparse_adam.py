"""Adam for sparse gradients: only the rows that have a gradient are touched."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

from jaxopt_core.checks import require, require_betas
from jaxopt_core.hyperparams import Hyperparams, Values
from jaxopt_core.leaf import zeros_like
from jaxopt_core.leafwise import Leafwise, leafwise
from jaxopt_core.numerics import bias_correction, sqrt
from jaxopt_core.rule import Rule
from jaxopt_core.tree import Slots

__all__ = ["sparse_adam", "sparse_rows"]


def sparse_adam(
    lr: Any = 1e-3, betas: Any = (0.9, 0.999), eps: Any = 1e-8, *, maximize: bool = False
) -> Leafwise:
    """Adam on the rows of the gradient, as ``torch.optim.SparseAdam``.

    At step ``t``, for the rows that the gradient ``g`` names, and no others::

        m <- m + (1 - beta1) * (g - m)
        v <- v + (1 - beta2) * (g**2 - v)
        p <- p - lr * sqrt(1 - beta2**t) / (1 - beta1**t) * m / (sqrt(v) + eps)

    ``t`` counts the steps of the whole parameter, not of the row.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, end of section 2, masked.

    A gradient leaf is a ``jax.experimental.sparse.BCOO`` with one sparse dimension, the rows, as
    :func:`sparse_rows` makes. Rows that appear twice are summed. The update is such a ``BCOO`` too, and
    :func:`jaxopt_core.apply_updates` adds it to the rows it names. With the state and the parameters
    donated to ``jit``, a step reads and writes those rows only, however large the table.

    Args:
      lr: learning rate, above 0. Default 1e-3.
      betas: decay rates of the running averages of gradient and square. Default (0.9, 0.999).
      eps: added to the denominator before its bias correction; above 0. Default 1e-8.
      maximize: ascend instead of descend. Default False.

    Returns:
      An Optax gradient transformation; slots ``exp_avg`` and ``exp_avg_sq``.

    Raises:
      ValueError: a number out of range, in PyTorch's words, or a complex parameter.
      TypeError: a gradient that is not sparse.

    Differences from Optax: it has no such optimizer.

    Example:
      >>> import jax, jax.numpy as jnp, jaxopt_core as jo
      >>> tx = jo.sparse_adam(lr=0.1)
      >>> table = jnp.ones((1000, 2))
      >>> grad = jo.sparse_rows(jnp.array([7, 3]), jnp.ones((2, 2)), num_rows=1000)
      >>> updates, state = tx.update(grad, tx.init(table), table)
      >>> table = jo.apply_updates(table, updates)
      >>> print(table[7].round(4), table[0])
      [0.9 0.9] [1. 1.]
    """
    hyperparams = Hyperparams(
        lr=lr,
        betas=betas,
        eps=eps,
        lengths={"betas": 2},
        structure={"maximize": maximize},
    )
    require(lr, lambda number: number > 0.0, "Invalid learning rate: {}")
    require(eps, lambda number: number > 0.0, "Invalid epsilon value: {}")
    require_betas(betas)
    return leafwise(
        Rule("SparseAdam", _init, _update, decay=None, complex=False, elementwise=False, sparse=True),
        hyperparams,
    )


def sparse_rows(ids: jax.Array, rows: jax.Array, num_rows: int) -> sparse.BCOO:
    """The gradient of an embedding table out of the gradients of the rows that were looked up.

    Args:
      ids: integer array of any shape, the rows that were looked up, negative ones counted from the end as in
        indexing; repeated ones are summed later.
      rows: array of shape ``ids.shape + (dim,)``, the gradient of each looked-up row.
      num_rows: how many rows the table has.

    Returns:
      A ``BCOO`` of shape ``(num_rows, dim)`` with one sparse dimension.

    Raises:
      TypeError: the ids are no integers.
      ValueError: the shapes do not fit each other.

    Example:
      >>> import jax, jax.numpy as jnp, jaxopt_core as jo
      >>> table, ids = jnp.ones((1000, 2)), jnp.array([7, 3, 7])
      >>> loss = lambda looked_up: jnp.sum(looked_up**2)
      >>> grad = jo.sparse_rows(ids, jax.grad(loss)(table[ids]), num_rows=1000)
      >>> grad.shape, grad.nse
      ((1000, 2), 3)
    """
    ids, rows = jnp.asarray(ids), jnp.asarray(rows)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"sparse_rows: expected integer ids; got {ids.dtype}.")
    if rows.shape[:-1] != ids.shape or rows.ndim != ids.ndim + 1:
        raise ValueError(
            f"sparse_rows: expected rows of shape ids.shape + (dim,) = {(*ids.shape, 'dim')}; "
            f"got {rows.shape}."
        )
    if jnp.issubdtype(ids.dtype, jnp.signedinteger):
        # As in indexing; a row that goes by two names would not be summed.
        ids = ids.astype(np.promote_types(ids.dtype, np.int32))
        ids = jnp.where(ids < 0, ids + num_rows, ids)
    dim = rows.shape[-1]
    return sparse.BCOO((rows.reshape(-1, dim), ids.reshape(-1, 1)), shape=(num_rows, dim))


def _init(param: jax.Array, h: Values) -> Slots:
    del h
    return {"exp_avg": zeros_like(param), "exp_avg_sq": zeros_like(param)}


def _update(
    grad: jax.Array, param: jax.Array, slots: Slots, h: Values, step: jax.Array
) -> tuple[jax.Array, Slots]:
    del param
    beta1, beta2 = h.betas
    exp_avg = slots["exp_avg"] + (1 - beta1) * (grad - slots["exp_avg"])
    exp_avg_sq = slots["exp_avg_sq"] + (1 - beta2) * (grad * grad - slots["exp_avg_sq"])
    step_size = h.lr * jnp.sqrt(bias_correction(beta2, step)) / bias_correction(beta1, step)
    update = -step_size * (exp_avg / (sqrt(exp_avg_sq) + h.eps))
    return update, {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
