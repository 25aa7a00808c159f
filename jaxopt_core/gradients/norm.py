"""The norm of all gradients together, as PyTorch computes it."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

from jaxopt_core.gradients.shards import AxisName, across_shards, axes_of
from jaxopt_core.leaf import compute_dtype
from jaxopt_core.numerics import sqrt
from jaxopt_core.tree import flatten, is_absent

__all__ = ["common_dtype", "global_norm", "present_gradients", "times", "working_dtype"]


def global_norm(grads: Any, norm_type: float = 2.0, *, axis_name: AxisName = None) -> jax.Array:
    r"""The p-norm of all gradients as one vector, as ``torch.nn.utils.get_total_norm``.

    It is the norm of the norms of the leaves: for ``p`` finite and not 0 :math:`(\sum |g|^p)^{1/p}`, for
    ``inf`` the largest and for ``-inf`` the smallest modulus, and for 0, as in PyTorch, the number of
    *leaves* that are not zero everywhere.

    Args:
      grads: pytree of real or complex floating-point arrays of any shapes and dtypes. ``None`` and what
        Optax masks are left out. Of a sparse gradient (``BCOO``), whose repeated rows are first added up,
        the missing elements count as the zeros they are.
      norm_type: p; any number, ``math.inf``, or a string that ``float`` reads. Default 2.
      axis_name: inside ``shard_map`` or ``pmap``, the mesh axis or axes over which leaves are sharded, or
        :func:`~jaxopt_core.by_path` of these where leaves differ. Every device then gets the norm of the
        whole arrays. Default: leaves are whole, as they are under ``jit``, however their arrays are placed.

    Returns:
      Scalar; float32, or float64 where a leaf is that wide. PyTorch rounds the norm of half-precision
      gradients to half precision; here it stays float32. Of no gradients at all the norm is 0.

    Raises:
      TypeError: a leaf is not a floating-point array.
      ValueError: the smallest modulus, or a negative power, of a sparse gradient; an unknown axis.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> grads = {"w": jnp.asarray([[2.0, 1.0], [2.0, 4.0]]), "b": None}
      >>> float(jo.gradients.global_norm(grads)), float(jo.gradients.global_norm(grads, norm_type="inf"))
      (5.0, 4.0)
    """
    p = float(norm_type)
    paths, leaves = present_gradients(grads)
    dtype = common_dtype(leaves)
    data = [_stored(path, g, p) for path, g in zip(paths, leaves, strict=True)]
    axes = [axes_of(axis_name, path) for path in paths]
    full = [i for i, leaf in enumerate(data) if leaf.size > 0]
    data, axes = [data[i] for i in full], [axes[i] for i in full]
    if not data:
        return jnp.zeros([], dtype)
    parts = [_part(leaf, p).astype(dtype) for leaf in data]
    parts = across_shards(
        parts, data, axes, {math.inf: jax.lax.pmax, -math.inf: jax.lax.pmin}.get(p, jax.lax.psum)
    )
    every = jnp.stack(parts)
    if math.isinf(p):
        return every.max() if p > 0 else every.min()
    if p == 0:
        return jnp.sum(every != 0).astype(dtype)
    total = sum(parts[1:], start=parts[0])
    return total if p == 1 else sqrt(total) if p == 2 else total ** (1 / p)


def present_gradients(grads: Any) -> tuple[list[str], list[Any]]:
    """The paths and values of the gradients that are there.

    Raises:
      TypeError: one is not a floating-point array.
    """
    flat = flatten(grads)
    pairs = [(path, g) for path, g in zip(flat.paths, flat.values, strict=True) if not is_absent(g)]
    for path, g in pairs:
        if not jnp.issubdtype(g.dtype, jnp.inexact):
            raise TypeError(f"Gradient of {path!r}: expected a floating-point array, got {g.dtype}.")
    return [path for path, _ in pairs], [g for _, g in pairs]


def common_dtype(leaves: list[Any]) -> np.dtype[Any]:
    """float32, or float64 if one of the leaves is that wide."""
    return max(
        (compute_dtype(leaf.dtype) for leaf in leaves), key=lambda d: d.itemsize, default=np.dtype(np.float32)
    )


def working_dtype(dtype: Any) -> Any:
    """What elements of ``dtype`` are computed in: float32 for half precision, else as they are."""
    return dtype if jnp.issubdtype(dtype, jnp.complexfloating) else compute_dtype(dtype)


def times(grad: Any, factor: jax.Array) -> Any:
    """A gradient of any kind, or none, multiplied by a real scalar, in its own dtype."""
    if is_absent(grad):
        return grad
    if isinstance(grad, sparse.BCOO):
        flags = {"indices_sorted": grad.indices_sorted, "unique_indices": grad.unique_indices}
        return sparse.BCOO((times(grad.data, factor), grad.indices), shape=grad.shape, **flags)
    factor = factor.astype(compute_dtype(grad.dtype))
    if jnp.issubdtype(grad.dtype, jnp.complexfloating):
        return jax.lax.complex(grad.real * factor, grad.imag * factor)
    return (grad.astype(factor.dtype) * factor).astype(grad.dtype)


def _stored(path: str, grad: Any, p: float) -> jax.Array:
    if not isinstance(grad, sparse.BCOO):
        return grad
    if p < 0:
        raise ValueError(
            f"Gradient of {path!r}: a norm of type {p} of a sparse gradient is not defined here."
        )
    return grad.sum_duplicates(nse=grad.nse, remove_zeros=False).data


def _part(grad: jax.Array, p: float) -> jax.Array:
    """What a leaf adds to the norm: a sum of powers, an extremum, or how many are not 0."""
    if p == 0:
        return jnp.sum(grad != 0)
    wide = compute_dtype(grad.dtype)
    if jnp.issubdtype(grad.dtype, jnp.complexfloating):
        if p == 2:
            return jnp.sum(grad.real**2 + grad.imag**2)
        size = jnp.abs(grad)
    else:
        size = jnp.abs(grad.astype(wide))
    if math.isinf(p):
        return size.max() if p > 0 else size.min()
    return jnp.sum(size if p == 1 else size * size if p == 2 else size**p)
