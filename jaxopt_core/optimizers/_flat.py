"""A tree of parameters as one vector of reals, for methods whose memory spans all parameters.

The order is the tree's leaf order, each leaf in row-major order; a complex element is its real part
followed by its imaginary part. ``None`` and ``MaskedNode`` in place of a parameter are left out.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import sparse

from jaxopt_core.tree import flatten, is_absent

__all__ = ["Flat"]


class Flat:
    """The layout of one tree of parameters as a vector.

    Attributes:
      size: N, number of reals.
      dtype: of the vector: float64 if any parameter is float64 or complex128, else float32.
        PyTorch's ``cat`` promotes to the widest too, but keeps half precision if all have it.
    """

    def __init__(self, params: Any):
        self._leaves = flatten(params)
        for path, leaf in self._leaves.present():
            _check_parameter(path, leaf)
        reals = {_real_dtype(leaf.dtype) for _, leaf in self._leaves.present()}
        self.dtype = np.dtype(np.float64 if np.dtype(np.float64) in reals else np.float32)
        self.size = sum(_real_size(leaf) for _, leaf in self._leaves.present())

    def params(self) -> list[jax.Array]:
        """The parameters that are there, each in its own dtype and shape."""
        return [leaf for _, leaf in self._leaves.present()]

    def tree(self, values: list[jax.Array]) -> Any:
        """A tree like the parameters', from one value for each that is there."""
        rest = iter(values)
        return self._leaves.unflatten([v if is_absent(v) else next(rest) for v in self._leaves.values])

    def gradient(self, grads: Any) -> jax.Array:
        """PyTorch's flat gradient (N,) from a tree of JAX's; a missing one counts as zero."""
        matched = zip(self._leaves.paths, self._leaves.values, self._leaves.match(grads), strict=True)
        parts = [self._part(path, p, g) for path, p, g in matched if not is_absent(p)]
        return jnp.concatenate(parts) if parts else jnp.zeros([0], self.dtype)

    def moved(self, values: list[jax.Array], t: jax.Array, d: jax.Array) -> list[jax.Array]:
        """``values + t d``, rounded to each parameter's dtype."""
        end, out = 0, []
        for value in values:
            real = _as_reals(value)
            start, end = end, end + real.size
            wide = real.astype(self.dtype) + t * d[start:end].reshape(real.shape)
            out.append(_from_reals(_rounded(wide, real.dtype), value.dtype))
        return out

    def _part(self, path: str, param: jax.Array, grad: Any) -> jax.Array:
        if is_absent(grad):
            return jnp.zeros([_real_size(param)], self.dtype)
        if isinstance(grad, sparse.BCOO):
            grad = grad.todense()
        if grad.shape != param.shape or grad.dtype != param.dtype:
            raise ValueError(
                f"Gradient of {path!r}: expected {param.dtype} of shape {param.shape}, as the "
                f"parameter is; got {grad.dtype} of shape {grad.shape}."
            )
        # JAX's gradient with respect to a complex parameter is the conjugate of PyTorch's.
        return _replicated(_as_reals(jnp.conj(grad)).astype(self.dtype)).ravel()


def _check_parameter(path: str, leaf: Any) -> None:
    if isinstance(leaf, sparse.BCOO) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
        raise TypeError(
            f"Parameter {path!r} is {leaf.dtype}; only dense floating-point and complex arrays can be "
            f"optimized. Put None in its place."
        )


def _replicated(x: jax.Array) -> jax.Array:
    """Under a mesh of explicit axes, leaves that are sharded differently cannot be concatenated."""
    mesh = jax.typeof(x).sharding.mesh
    if jax.sharding.AxisType.Explicit not in mesh.axis_types:
        return x
    return jax.sharding.reshard(x, jax.NamedSharding(mesh, jax.P()))


def _real_dtype(dtype: Any) -> np.dtype:
    return np.dtype(jnp.finfo(dtype).dtype)


def _real_size(x: jax.Array) -> int:
    return math.prod(x.shape) * (2 if jnp.issubdtype(x.dtype, jnp.complexfloating) else 1)


def _as_reals(x: jax.Array) -> jax.Array:
    pair = jnp.issubdtype(x.dtype, jnp.complexfloating)
    return jnp.stack([x.real, x.imag], axis=-1) if pair else x


def _from_reals(x: jax.Array, dtype: Any) -> jax.Array:
    pair = jnp.issubdtype(dtype, jnp.complexfloating)
    return lax.complex(x[..., 0], x[..., 1]) if pair else x


def _rounded(x: jax.Array, dtype: Any) -> jax.Array:
    if x.dtype == dtype:
        return x
    # XLA may leave a cast out where the objective casts back to float32, and evaluate it at
    # parameters that are never reached.
    info = jnp.finfo(dtype)
    return lax.reduce_precision(x, exponent_bits=info.nexp, mantissa_bits=info.nmant).astype(dtype)
