"""The encoder of a transformer, as PyTorch builds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from jaxopt_core.models.attention import MultiheadAttention, causal_mask
from jaxopt_core.models.layers import Dropout, LayerNorm, Linear

__all__ = ["TransformerEncoder", "TransformerEncoderLayer"]

Activation = Literal["relu", "gelu"] | Callable[[jax.Array], jax.Array]


def _gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=False)


_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"relu": jax.nn.relu, "gelu": _gelu}


class TransformerEncoderLayer(nnx.Module):
    """Self-attention and a feedforward network, as ``torch.nn.TransformerEncoderLayer``.

    ::

        x <- norm1(x + self_attn(x))
        x <- norm2(x + linear2(activation(linear1(x))))

    or, with ``norm_first``::

        x <- x + self_attn(norm1(x))
        x <- x + linear2(activation(linear1(norm2(x))))

    Source: Vaswani et al., "Attention Is All You Need", 2017, section 3; with ``norm_first`` Xiong et al.,
    "On Layer Normalization in the Transformer Architecture", 2020.

    Args:
        d_model: features of input and output.
        nhead: heads of the attention.
        dim_feedforward: features in between. Default 2048.
        dropout: on attention weights, between the linear layers, and on what is added. Default 0.1.
        activation: ``"relu"`` (default), ``"gelu"`` (exact) or a function.
        layer_norm_eps: default 1e-5.
        batch_first: ``(N, T, C)``. Default False, ``(T, N, C)``, as in PyTorch.
        norm_first: see above. Default False.
        bias: of all layers. Default True.
        param_dtype: of the parameters. Default float32.
        rngs: where the starting values come from, and the dropout.

    Raises:
        ValueError: ``nhead`` does not divide ``d_model``, or another activation.

    Example:
        >>> layer = TransformerEncoderLayer(8, 2, 16, batch_first=True, rngs=nnx.Rngs(0))
        >>> padding = jnp.array([[False, False, True]])
        >>> layer(jnp.ones((1, 3, 8)), None, padding).shape
        (1, 3, 8)
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if isinstance(activation, str) and activation not in _ACTIVATIONS:
            raise ValueError(f"activation should be relu/gelu, not {activation}")
        kinds = {"param_dtype": param_dtype, "rngs": rngs}
        self.activation = _ACTIVATIONS[activation] if isinstance(activation, str) else activation
        self.norm_first, self.batch_first = norm_first, batch_first
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first, **kinds)
        self.linear1 = Linear(d_model, dim_feedforward, bias, **kinds)
        self.dropout = Dropout(dropout, rngs=rngs)
        self.linear2 = Linear(dim_feedforward, d_model, bias, **kinds)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, **kinds)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, **kinds)
        self.dropout1 = Dropout(dropout, rngs=rngs)
        self.dropout2 = Dropout(dropout, rngs=rngs)

    def __call__(
        self, src: jax.Array, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False
    ) -> jax.Array:
        """Encodes ``(T, N, C)``, or ``(N, T, C)`` with ``batch_first``.

        Args:
            src: the sequence.
            src_mask: ``(T, T)`` or ``(N * heads, T, T)``; bool, True where attention is not allowed, or
                float, to add.
            src_key_padding_mask: ``(N, T)``; bool, True for what is padding, or float, to add.
            is_causal: attend to no later position. Default False. In PyTorch it is a hint about
                ``src_mask``; here it is the mask, and excludes ``src_mask``.
        """
        if is_causal:
            if src_mask is not None:
                raise ValueError("Explicit src_mask should not be set when is_causal=True")
            src_mask = causal_mask(src.shape[1 if self.batch_first else 0], src.dtype)
        masks = (src_key_padding_mask, src_mask)
        if self.norm_first:
            x = src + self._attended(self.norm1(src), *masks)
            return x + self._fed(self.norm2(x))
        x = self.norm1(src + self._attended(src, *masks))
        return self.norm2(x + self._fed(x))

    def _attended(self, x: jax.Array, padding: Any, mask: Any) -> jax.Array:
        return self.dropout1(self.self_attn(x, x, x, padding, mask))

    def _fed(self, x: jax.Array) -> jax.Array:
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))


class TransformerEncoder(nnx.Module):
    """A stack of encoder layers, as ``torch.nn.TransformerEncoder``: ``layers`` and perhaps ``norm``.

    Args:
        num_layers: number of layers.
        d_model: features of input and output.
        nhead: heads of the attention.
        norm: normalise the result, which a stack with ``norm_first`` needs. Default False.
        remat: compute each layer again in the backward pass instead of keeping what is inside it: less
            memory, about a third more time. Default False.
        layer_norm_eps: default 1e-5.
        param_dtype: of the parameters. Default float32.
        rngs: where the starting values come from, and the dropout.
        **arguments: of :class:`TransformerEncoderLayer`.

    Differences from PyTorch, which copies one layer: the layers start with different values.

    Example:
        >>> encoder = TransformerEncoder(2, 8, 2, dim_feedforward=16, norm=True, rngs=nnx.Rngs(0))
        >>> encoder(jnp.ones((5, 3, 8)), is_causal=True).shape
        (5, 3, 8)
    """

    def __init__(
        self,
        num_layers: int,
        d_model: int,
        nhead: int,
        *,
        norm: bool = False,
        remat: bool = False,
        layer_norm_eps: float = 1e-5,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
        **arguments: Any,
    ) -> None:
        kinds = {"param_dtype": param_dtype, "rngs": rngs}
        self.remat = remat
        self.layers = nnx.List(
            TransformerEncoderLayer(d_model, nhead, layer_norm_eps=layer_norm_eps, **arguments, **kinds)
            for _ in range(num_layers)
        )
        self.norm: Any = LayerNorm(d_model, layer_norm_eps, **kinds) if norm else nnx.data(None)

    def __call__(
        self, src: jax.Array, mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False
    ) -> jax.Array:
        """As :meth:`TransformerEncoderLayer.__call__`, layer after layer."""
        call = TransformerEncoderLayer.__call__
        if self.remat:
            call = nnx.remat(call, static_argnums=(4,))
        for layer in self.layers:
            src = call(layer, src, mask, src_key_padding_mask, is_causal)
        return src if self.norm is None else self.norm(src)
