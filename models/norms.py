"""Layer and group normalisation as PyTorch computes them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

__all__ = ["GroupNorm", "LayerNorm", "widened"]


def widened(x: jax.Array) -> jax.Array:
    """``x`` in at least float32, in which sums over many elements are still exact enough."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


class LayerNorm(nnx.Module):
    """Normalises over the last axes, as ``torch.nn.LayerNorm``.

    ``(x - mean) / sqrt(var + eps) * scale + bias``, with the biased variance. Statistics are computed in
    float32 where ``x`` is narrower; the result has the dtype of ``x``.

    Source: Ba, Kiros and Hinton, "Layer Normalization", 2016, equation 4.

    Args:
        normalized_shape: length of the last axis, or lengths of the last axes.
        eps: added to the variance. Default 1e-5; Flax's is 1e-6.
        elementwise_affine: learn ``scale`` and, with ``bias``, ``bias``. Default True.
        bias: see ``elementwise_affine``. Default True.
        param_dtype: of the parameters. Default float32.
        rngs: as every layer takes it; nothing is drawn.

    Raises:
        ValueError: the input does not end in ``normalized_shape``.

    Differences from ``flax.nnx.LayerNorm``: ``eps``; the variance is taken about the mean, where Flax's
    default, the mean of squares less the square of the mean, cancels.

    Example:
        >>> print(LayerNorm(2)(jnp.array([1.0, 3.0])).round(2))
        [-1.  1.]
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        del rngs
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape = shape
        self.eps = eps
        has_bias = elementwise_affine and bias
        self.scale: Any = nnx.Param(jnp.ones(shape, param_dtype)) if elementwise_affine else nnx.data(None)
        self.bias: Any = nnx.Param(jnp.zeros(shape, param_dtype)) if has_bias else nnx.data(None)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises ``(..., *normalized_shape)``."""
        rank = len(self.normalized_shape)
        if x.shape[x.ndim - rank :] != self.normalized_shape:
            raise ValueError(
                f"Given normalized_shape={self.normalized_shape}, expected input with shape "
                f"(*, {', '.join(map(str, self.normalized_shape))}), but got input of size {x.shape}"
            )
        y = _normalised(widened(x), tuple(range(-rank, 0)), self.eps)
        return _affine(y, self.scale, self.bias).astype(x.dtype)


class GroupNorm(nnx.Module):
    """Normalises groups of channels over all positions, as ``torch.nn.GroupNorm``.

    Source: Wu and He, "Group Normalization", 2018, equations 1, 2 and 7.

    Args:
        num_groups: groups, each of ``num_channels / num_groups`` neighbouring channels.
        num_channels: length of the last axis.
        eps: added to the variance. Default 1e-5; Flax's is 1e-6.
        affine: learn ``scale`` and ``bias``, one for each channel. Default True.
        param_dtype: of the parameters. Default float32.
        rngs: as every layer takes it; nothing is drawn.

    Raises:
        ValueError: ``num_groups`` does not divide ``num_channels``; the input has other channels.

    Differences from ``flax.nnx.GroupNorm``: as :class:`LayerNorm`'s.

    Example:
        >>> GroupNorm(2, 4)(jnp.ones((1, 3, 3, 4))).shape
        (1, 3, 3, 4)
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        del rngs
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(
                f"num_channels must be divisible by num_groups, found {num_channels} and {num_groups}"
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        shape = (num_channels,)
        self.scale: Any = nnx.Param(jnp.ones(shape, param_dtype)) if affine else nnx.data(None)
        self.bias: Any = nnx.Param(jnp.zeros(shape, param_dtype)) if affine else nnx.data(None)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises ``(N, ..., num_channels)``."""
        if x.ndim < 2 or x.shape[-1] != self.num_channels:
            raise ValueError(
                f"expected (N, ..., {self.num_channels}), got input size {x.shape}: channels come last here"
            )
        groups = widened(x).reshape(*x.shape[:-1], self.num_groups, -1)
        y = _normalised(groups, (*range(1, x.ndim - 1), x.ndim), self.eps)
        return _affine(y.reshape(x.shape), self.scale, self.bias).astype(x.dtype)


def _normalised(x: jax.Array, axes: tuple[int, ...], eps: float) -> jax.Array:
    centred = x - x.mean(axes, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + eps)


def _affine(x: jax.Array, scale: Any, bias: Any) -> jax.Array:
    """``x * scale + bias``; both belong to the last axes, and either may be None."""
    for variable, operation in ((scale, jax.lax.mul), (bias, jax.lax.add)):
        if variable is not None:
            value = variable[...].astype(x.dtype)
            value = value.reshape((1,) * (x.ndim - value.ndim) + value.shape)
            x = operation(x, jnp.broadcast_to(value, x.shape))
    return x
