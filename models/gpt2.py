"""GPT-2 with the structure and the tensor names of Hugging Face's ``GPT2LMHeadModel``."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype

from jaxopt_core.models.attention import attend, causal_mask
from jaxopt_core.models.initializers import normal
from jaxopt_core.models.layers import Dropout, Embedding, LayerNorm
from jaxopt_core.models.linear import linear

__all__ = ["GPT2LMHeadModel", "GPT2Model"]

SIZES: dict[str, dict[str, int]] = {
    "gpt2": {"n_embd": 768, "n_layer": 12, "n_head": 12},
    "gpt2-medium": {"n_embd": 1024, "n_layer": 24, "n_head": 16},
    "gpt2-large": {"n_embd": 1280, "n_layer": 36, "n_head": 20},
    "gpt2-xl": {"n_embd": 1600, "n_layer": 48, "n_head": 25},
}
"""Arguments of the published checkpoints; those not named have their defaults."""


class Conv1D(nnx.Module):
    """``x @ weight + bias``, as Hugging Face's ``Conv1D``, which is a linear layer.

    ``weight`` is ``(in, out)`` there as it is here, unlike ``torch.nn.Linear``'s: it is not transposed.
    That is why the leaf has the tensor's own name, and not Flax's ``kernel``, which stands for a
    transposed weight.

    Args:
        out_features: length of the output's last axis.
        in_features: length of the input's last axis; the order is Hugging Face's.
        std: of the starting weight, which is normal; the bias starts at zero.
        param_dtype: of the parameters.
        rngs: where the starting values come from.

    Example:
        >>> Conv1D(3, 4, rngs=nnx.Rngs(0))(jnp.ones((2, 4))).shape
        (2, 3)
    """

    def __init__(
        self,
        out_features: int,
        in_features: int,
        std: float = 0.02,
        *,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.weight = nnx.Param(normal(std)(rngs.params(), (in_features, out_features), param_dtype))
        self.bias = nnx.Param(jnp.zeros(out_features, param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``(..., in)`` to ``(..., out)``."""
        return linear(*promote_dtype((x, self.weight[...], self.bias[...])))


class Attention(nnx.Module):
    """Self-attention; ``c_attn`` holds query, key and value side by side."""

    def __init__(
        self, n_embd: int, n_head: int, attn_pdrop: float, resid_pdrop: float, std: float, **kinds: Any
    ):
        if n_embd % n_head:
            raise ValueError(f"n_embd must be divisible by n_head, got {n_embd} and {n_head}")
        self.n_head = n_head
        self.c_attn = Conv1D(3 * n_embd, n_embd, **kinds)
        self.c_proj = Conv1D(n_embd, n_embd, std, **kinds)
        self.attn_dropout = Dropout(attn_pdrop, rngs=kinds["rngs"])
        self.resid_dropout = Dropout(resid_pdrop, rngs=kinds["rngs"])

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Maps ``(N, T, C)`` to ``(N, T, C)``."""
        heads = (*x.shape[:2], self.n_head, -1)
        query, key, value = (each.reshape(heads) for each in jnp.split(self.c_attn(x), 3, axis=-1))
        attended = attend(query, key, value, mask, self.attn_dropout)
        return self.resid_dropout(self.c_proj(attended.reshape(x.shape)))


class MLP(nnx.Module):
    """Two linear layers with the tanh form of GELU between them."""

    def __init__(self, n_embd: int, n_inner: int, resid_pdrop: float, std: float, **kinds: Any):
        self.c_fc = Conv1D(n_inner, n_embd, **kinds)
        self.c_proj = Conv1D(n_embd, n_inner, std, **kinds)
        self.dropout = Dropout(resid_pdrop, rngs=kinds["rngs"])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``(N, T, C)`` to ``(N, T, C)``."""
        return self.dropout(self.c_proj(jax.nn.gelu(self.c_fc(x), approximate=True)))


class Block(nnx.Module):
    """Attention and MLP, each normalised before and added."""

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        n_inner: int,
        attn_pdrop: float,
        resid_pdrop: float,
        eps: float,
        std: float,
        **kinds: Any,
    ):
        self.ln_1 = LayerNorm(n_embd, eps, **kinds)
        self.attn = Attention(n_embd, n_head, attn_pdrop, resid_pdrop, std, **kinds)
        self.ln_2 = LayerNorm(n_embd, eps, **kinds)
        self.mlp = MLP(n_embd, n_inner, resid_pdrop, std, **kinds)

    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Maps ``(N, T, C)`` to ``(N, T, C)``."""
        with jax.named_scope("attn"):
            x = x + self.attn(self.ln_1(x), mask)
        with jax.named_scope("mlp"):
            return x + self.mlp(self.ln_2(x))


class GPT2Model(nnx.Module):
    """GPT-2 without its head: ``wte``, ``wpe``, ``h``, ``ln_f``; arguments as :class:`GPT2LMHeadModel`.

    Example:
        >>> model = nnx.eval_shape(lambda: GPT2Model(n_layer=2, rngs=nnx.Rngs(0)))
        >>> model.h[1].attn.c_attn.weight.shape
        (768, 2304)
    """

    def __init__(
        self,
        vocab_size: int = 50257,
        n_positions: int = 1024,
        n_embd: int = 768,
        n_layer: int = 12,
        n_head: int = 12,
        n_inner: int | None = None,
        *,
        resid_pdrop: float = 0.1,
        embd_pdrop: float = 0.1,
        attn_pdrop: float = 0.1,
        layer_norm_epsilon: float = 1e-5,
        remat: bool = False,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        kinds = {"param_dtype": param_dtype, "rngs": rngs}
        table = {"embedding_init": normal(0.02), **kinds}
        self.remat = remat
        self.wte = Embedding(vocab_size, n_embd, **table)
        self.wpe = Embedding(n_positions, n_embd, **table)
        self.drop = Dropout(embd_pdrop, rngs=rngs)
        # Two additions in each block: their variance grows with depth unless they start smaller.
        std = 0.02 / math.sqrt(2 * n_layer)
        sizes = (n_embd, n_head, n_inner or 4 * n_embd, attn_pdrop, resid_pdrop, layer_norm_epsilon, std)
        self.h = nnx.List(Block(*sizes, **kinds) for _ in range(n_layer))
        self.ln_f = LayerNorm(n_embd, layer_norm_epsilon, **kinds)

    def __call__(
        self, input_ids: jax.Array, attention_mask: Any = None, position_ids: Any = None
    ) -> jax.Array:
        """Hidden states ``(N, T, n_embd)``; arguments as :meth:`GPT2LMHeadModel.__call__`."""
        length = input_ids.shape[1]
        if length > self.wpe.num_embeddings:
            raise ValueError(
                f"input_ids has {length} tokens, more than the model's n_positions={self.wpe.num_embeddings}"
            )
        if position_ids is None:
            position_ids = jnp.arange(length)[None]
        tokens, positions = self.wte(input_ids), self.wpe(position_ids)
        x = self.drop(tokens + jnp.broadcast_to(positions, tokens.shape))
        mask = causal_mask(length, x.dtype)[None, None]
        if attention_mask is not None:
            ignored = jnp.asarray(attention_mask)[:, None, None] == 0
            mask = jnp.where(ignored, -jnp.inf, mask)
        call = nnx.remat(Block.__call__) if self.remat else Block.__call__
        for i, block in enumerate(self.h):
            with jax.named_scope(f"h.{i}"):
                x = call(block, x, mask)
        return self.ln_f(x)


class GPT2LMHeadModel(nnx.Module):
    """GPT-2 as a language model.

    Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019. Structure, names and
    starting values are those of Hugging Face's ``transformers``, whose checkpoints' names are the paths here
    (``transformer.h.0.attn.c_attn.weight``). Its ``lm_head.weight`` is the same tensor as
    ``transformer.wte.weight``, and has no leaf of its own.

    Args:
        vocab_size: number of tokens. Default 50257.
        n_positions: longest sequence. Default 1024.
        n_embd: features. Default 768.
        n_layer: blocks. Default 12.
        n_head: heads of each attention. Default 12.
        n_inner: features inside each MLP. Default ``4 * n_embd``.
        resid_pdrop: dropout on what each block adds. Default 0.1.
        embd_pdrop: dropout on the embeddings. Default 0.1.
        attn_pdrop: dropout on the attention weights. Default 0.1.
        layer_norm_epsilon: default 1e-5.
        remat: compute each block again in the backward pass instead of keeping what is inside it: less
            memory, about a third more time. Default False.
        param_dtype: of the parameters. Default float32.
        rngs: where the starting values come from, and the dropout.

    Raises:
        ValueError: ``n_head`` does not divide ``n_embd``; a sequence longer than ``n_positions``.

    Example:
        >>> model = GPT2LMHeadModel(50, 16, 8, n_layer=1, n_head=2, rngs=nnx.Rngs(0))
        >>> model.eval()
        >>> logits = jax.jit(model)(jnp.ones((3, 5), int))
        >>> logits.shape
        (3, 5, 50)
        >>> from jaxopt_core.models import gpt2
        >>> sorted(gpt2.SIZES)  # GPT2LMHeadModel(**gpt2.SIZES["gpt2"], rngs=...)
        ['gpt2', 'gpt2-large', 'gpt2-medium', 'gpt2-xl']
    """

    def __init__(
        self,
        vocab_size: int = 50257,
        n_positions: int = 1024,
        n_embd: int = 768,
        n_layer: int = 12,
        n_head: int = 12,
        n_inner: int | None = None,
        *,
        resid_pdrop: float = 0.1,
        embd_pdrop: float = 0.1,
        attn_pdrop: float = 0.1,
        layer_norm_epsilon: float = 1e-5,
        remat: bool = False,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.transformer = GPT2Model(
            vocab_size,
            n_positions,
            n_embd,
            n_layer,
            n_head,
            n_inner,
            resid_pdrop=resid_pdrop,
            embd_pdrop=embd_pdrop,
            attn_pdrop=attn_pdrop,
            layer_norm_epsilon=layer_norm_epsilon,
            remat=remat,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def __call__(
        self, input_ids: jax.Array, attention_mask: Any = None, position_ids: Any = None
    ) -> jax.Array:
        """Logits of the token that follows each token.

        Args:
            input_ids: ``(N, T)`` tokens.
            attention_mask: ``(N, T)``, 1 for tokens and 0 for padding. Default: no padding.
            position_ids: ``(N, T)`` or ``(1, T)``. Default ``0 .. T - 1``, whatever the padding.

        Returns:
            ``(N, T, vocab_size)``. What stands at padding means nothing.
        """
        x = self.transformer(input_ids, attention_mask, position_ids)
        table = self.transformer.wte.embedding[...]
        with jax.named_scope("lm_head"):
            return linear(x, table.T.astype(x.dtype))
