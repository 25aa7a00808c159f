"""Attention with PyTorch's masks and tensors."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype

from jaxopt_core.models.initializers import uniform_within
from jaxopt_core.models.layers import Dropout, Linear
from jaxopt_core.models.linear import linear

__all__ = ["MultiheadAttention", "additive", "attend", "causal_mask"]


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: Any = None, dropout: Any = None
) -> jax.Array:
    """``softmax(query @ key.T / sqrt(D) + mask) @ value``.

    Source: Vaswani et al., "Attention Is All You Need", 2017, equation 1. The softmax is computed in
    float32 where the inputs are narrower.

    Args:
      query: ``(N, T, heads, D)``.
      key: ``(N, S, heads, D)``.
      value: ``(N, S, heads, D)``.
      mask: added to the scores, broadcast to ``(N, heads, T, S)``; ``-inf`` where attention is not
        allowed. A query that may attend nowhere gives 0, as in ``torch.nn.functional
        .scaled_dot_product_attention``. Default None.
      dropout: called on the weights ``(N, heads, T, S)``. Default None.

    Returns:
      ``(N, T, heads, D)``.

    Example:
      >>> x = jnp.arange(3.0).reshape(1, 3, 1, 1)
      >>> print(attend(x, jnp.zeros_like(x), x, causal_mask(3)).ravel())
      [0.  0.5 1. ]
    """
    scores = jnp.einsum("nthd,nshd->nhts", query / math.sqrt(query.shape[-1]), key)
    if jnp.finfo(scores.dtype).bits < 32:
        scores = scores.astype(jnp.float32)
    if mask is not None:
        scores = scores + jnp.broadcast_to(mask.astype(scores.dtype), scores.shape)
    largest = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
    weights = jnp.exp(scores - jnp.where(jnp.isneginf(largest), 0, largest))
    total = weights.sum(-1, keepdims=True)
    weights = weights / jnp.where(total == 0, 1, total)  # 0 where a query may attend nowhere
    weights = weights.astype(value.dtype)
    if dropout is not None:
        weights = dropout(weights)
    return jnp.einsum("nhts,nshd->nthd", weights, value)


def causal_mask(length: int, dtype: Any = jnp.float32) -> jax.Array:
    """``(length, length)``: 0 up to a query's own position and ``-inf`` beyond.

    Example:
      >>> print(causal_mask(2))
      [[  0. -inf]
       [  0.   0.]]
    """
    return jnp.triu(jnp.full((length, length), -jnp.inf, dtype), 1)


def additive(mask: Any, dtype: Any) -> jax.Array:
    """PyTorch's masks as numbers to add: a bool mask is True where attention is not allowed."""
    mask = jnp.asarray(mask)
    if mask.dtype != bool:
        return mask.astype(dtype)
    return jnp.where(mask, -jnp.inf, 0).astype(dtype)


class MultiheadAttention(nnx.Module):
    """Attention with several heads, as ``torch.nn.MultiheadAttention``.

    Its own parameters are PyTorch's tensors: ``in_proj_weight`` (3 * embed_dim, embed_dim) holds the
    projections of query, key and value, one below the other, and ``in_proj_bias`` (3 * embed_dim,)
    theirs; ``out_proj`` is a Linear.

    Args:
        embed_dim: features of input and output.
        num_heads: must divide ``embed_dim``.
        dropout: probability with which an attention weight is dropped. Default 0.
        bias: of all projections. Default True.
        batch_first: ``(N, T, C)``. Default False, ``(T, N, C)``, as in PyTorch.
        param_dtype: of the parameters. Default float32.
        rngs: where the starting values come from (Xavier-uniform projections, zero biases, ``out_proj``
            as a Linear) and the dropout.

    Raises:
        ValueError: ``num_heads`` does not divide ``embed_dim``.

    Differences from PyTorch: returns the output alone, without the weights; no ``kdim``, ``vdim``,
    ``add_bias_kv`` or ``add_zero_attn``.

    Example:
        >>> attention = MultiheadAttention(8, 2, batch_first=True, rngs=nnx.Rngs(0))
        >>> x = jnp.ones((3, 5, 8))
        >>> attention(x, x, x).shape
        (3, 5, 8)
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        batch_first: bool = False,
        *,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if embed_dim < 1 or num_heads < 1:
            raise ValueError(
                f"embed_dim and num_heads must be greater than 0, got embed_dim={embed_dim} and "
                f"num_heads={num_heads} instead"
            )
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim must be divisible by num_heads, got {embed_dim} and {num_heads}")
        self.num_heads, self.batch_first = num_heads, batch_first
        shape = (3 * embed_dim, embed_dim)
        xavier = uniform_within(math.sqrt(6 / sum(shape)))
        self.in_proj_weight = nnx.Param(xavier(rngs.params(), shape, param_dtype))
        self.in_proj_bias: Any = nnx.Param(jnp.zeros(shape[:1], param_dtype)) if bias else nnx.data(None)
        self.out_proj = Linear(
            embed_dim,
            embed_dim,
            bias,
            bias_init=jax.nn.initializers.zeros,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.dropout = Dropout(dropout, rngs=rngs)

    def __call__(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        key_padding_mask: Any = None,
        attn_mask: Any = None,
    ) -> jax.Array:
        """Attends from each query.

        Args:
            query: ``(T, N, C)``, or ``(N, T, C)`` with ``batch_first``.
            key: ``(S, N, C)``.
            value: ``(S, N, C)``.
            key_padding_mask: ``(N, S)``; bool, True for keys to ignore, or float, to add.
            attn_mask: ``(T, S)`` or ``(N * heads, T, S)``; likewise.

        Returns:
            In the query's shape.
        """
        inputs = [query, key, value]
        if not self.batch_first:
            inputs = [x.swapaxes(0, 1) for x in inputs]
        q, k, v = (self._project(x, i) for i, x in enumerate(inputs))
        batch, length, heads, _ = q.shape
        mask = None
        if attn_mask is not None:
            mask = additive(attn_mask, q.dtype)
            if mask.ndim == 3:
                mask = mask.reshape(batch, heads, length, k.shape[1])
            elif mask.ndim == 2:
                mask = mask[None, None]
            if mask.ndim != 4 or mask.shape[2:] != (length, k.shape[1]):
                raise ValueError(
                    f"The shape of attn_mask is {jnp.shape(attn_mask)}, but should be {(length, k.shape[1])} "
                    f"or {(batch * heads, length, k.shape[1])}."
                )
        if key_padding_mask is not None:
            padding = additive(key_padding_mask, q.dtype)
            if padding.shape != k.shape[:2]:
                raise ValueError(
                    f"expecting key_padding_mask shape of {k.shape[:2]}, but got {padding.shape}"
                )
            padding = padding[:, None, None]
            mask = padding if mask is None else mask + padding
        output = self.out_proj(attend(q, k, v, mask, self.dropout).reshape(batch, length, -1))
        return output if self.batch_first else output.swapaxes(0, 1)

    def _project(self, x: jax.Array, index: int) -> jax.Array:
        weight = jnp.split(self.in_proj_weight[...], 3)[index]
        bias = None if self.in_proj_bias is None else jnp.split(self.in_proj_bias[...], 3)[index]
        x, weight, bias = promote_dtype((x, weight, bias))
        y = linear(x, weight.T, bias)
        return y.reshape(*y.shape[:2], self.num_heads, -1)
