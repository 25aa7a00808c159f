"""One parameter: from what is stored to what a rule sees, and back.

A rule sees real arrays of ``h.compute_dtype`` only: float32 for half-precision parameters, whose state
is rounded to the parameter's dtype at the end (as PyTorch's fused kernels do), and pairs of reals, in a
new last axis, for complex ones.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse
from jax.experimental.shard_alike import shard_alike

from jaxopt_core.cpu import one_pass
from jaxopt_core.hyperparams import Values, is_zero
from jaxopt_core.rule import Rule
from jaxopt_core.tree import Slots

__all__ = ["compute_dtype", "dense_step", "filled_like", "rows_step", "zeros_like"]


def zeros_like(like: jax.Array) -> jax.Array:
    """A slot of zeros of the shape, dtype and sharding of ``like``."""
    return filled_like(like, 0)


def filled_like(like: jax.Array, value: Any) -> jax.Array:
    """:func:`zeros_like` with every element, of a complex one both parts, at ``value``."""
    if jnp.issubdtype(like.dtype, jnp.complexfloating):
        value = jax.lax.complex(*[jnp.asarray(value, compute_dtype(like.dtype))] * 2)
    slot = jnp.full_like(like, value)
    # Under jit a constant depends on nothing, and would be put on one device.
    return shard_alike(like, slot)[1] if isinstance(like, jax.core.Tracer) else slot


def dense_step(
    rule: Rule, grad: jax.Array, param: jax.Array, slots: Slots, h: Values, step: jax.Array
) -> tuple[jax.Array, Slots]:
    """The update of a parameter and its new slots, in their own dtypes."""
    decay = getattr(h, "weight_decay", 0) if rule.decay else 0
    decoupled = getattr(h, "decoupled_weight_decay", rule.decay == "decoupled")

    def whole(g: jax.Array, p: jax.Array, old: Slots) -> tuple[jax.Array, Slots]:
        if getattr(h, "maximize", False):
            g = -g
        if not decoupled and not is_zero(decay):
            g = g + decay * p
        change, new = rule.update(g, p, old, h, step.astype(h.compute_dtype))
        if decoupled and not is_zero(decay):
            change = change - h.lr * decay * p
        return change, new

    old = {name: _to_real(slot, h) for name, slot in slots.items()}
    compute = functools.partial(one_pass, whole, count=step) if rule.elementwise else whole
    change, new = compute(_to_real(grad, h, conjugate=True), _to_real(param, h), old)
    return _to_stored(change, param.dtype), {n: _to_stored(s, slots[n].dtype) for n, s in new.items()}


def rows_step(
    rule: Rule, grad: sparse.BCOO, param: jax.Array, slots: Slots, h: Values, step: jax.Array
) -> tuple[sparse.BCOO, Slots]:
    """The same rule on the rows that the gradient names, and on no others."""
    total = grad.sum_duplicates(nse=grad.nse, remove_zeros=False)  # padding points beyond the last row
    rows = total.indices[:, 0]
    old = {name: slot.at[rows].get(mode="fill", fill_value=0) for name, slot in slots.items()}
    row_params = param.at[rows].get(mode="fill", fill_value=0)
    change, new = dense_step(rule, total.data, row_params, old, h, step)
    put = {n: slots[n].at[rows].set(new[n], mode="drop", unique_indices=True) for n in new}
    return sparse.BCOO((change, total.indices), shape=param.shape), put


def compute_dtype(dtype: Any) -> np.dtype[Any]:
    """The real dtype that a rule computes in for a parameter of ``dtype``."""
    wide = np.dtype(dtype) in (np.dtype(np.float64), np.dtype(np.complex128))
    return np.dtype(np.float64 if wide else np.float32)


def _to_real(x: jax.Array, h: Values, conjugate: bool = False) -> jax.Array:
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        # JAX's gradient with respect to a complex parameter is the conjugate of PyTorch's.
        return jnp.stack([x.real, -x.imag if conjugate else x.imag], axis=-1)
    return x.astype(h.compute_dtype)


def _to_stored(x: jax.Array, dtype: Any) -> jax.Array:
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return jax.lax.complex(x[..., 0], x[..., 1])
    return x.astype(dtype)
