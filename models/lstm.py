"""Text with LSTMs: a classifier, and an encoder-decoder with attention."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxopt_core.models.layers import Dropout, Embedding, Linear
from jaxopt_core.models.recurrent import LSTM

__all__ = ["LSTMClassifier", "Seq2Seq"]


class LSTMClassifier(nnx.Module):
    """Classifies a sequence of tokens by the last state of an LSTM.

    Modules as PyTorch's tutorials name them: ``embedding``, ``lstm``, ``fc``. What ``fc`` reads is the last
    layer's final ``h``; with two directions, both side by side.

    Args:
        vocab_size: number of tokens.
        num_classes: number of classes.
        embedding_dim: features of a token. Default 128.
        hidden_size: features of the LSTM. Default 256.
        num_layers: layers of the LSTM. Default 1.
        bidirectional: whether it also runs from the end. Default False.
        dropout: on the embedded tokens, between layers and on the final state. Default 0.
        padding_idx: a token whose embedding stays zero. Default None.
        param_dtype: of the parameters. Default float32.
        rngs: where the starting values come from, and the dropout.

    Example:
        >>> model = LSTMClassifier(100, 2, 8, 16, rngs=nnx.Rngs(0))
        >>> model(jnp.ones((3, 7), int), jnp.array([7, 2, 5])).shape
        (3, 2)
    """

    def __init__(
        self,
        vocab_size: int,
        num_classes: int,
        embedding_dim: int = 128,
        hidden_size: int = 256,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        padding_idx: int | None = None,
        *,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        kinds = {"param_dtype": param_dtype, "rngs": rngs}
        self.embedding = Embedding(vocab_size, embedding_dim, padding_idx, **kinds)
        self.lstm = LSTM(
            embedding_dim,
            hidden_size,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,
            bidirectional=bidirectional,
            **kinds,
        )
        self.dropout = Dropout(dropout, rngs=rngs)
        self.fc = Linear(hidden_size * (2 if bidirectional else 1), num_classes, **kinds)
        self.directions = 2 if bidirectional else 1

    def __call__(self, tokens: jax.Array, lengths: Any = None) -> jax.Array:
        """Maps ``(N, T)`` tokens, of which ``lengths`` (``(N,)``, default all) count, to ``(N, classes)``."""
        with jax.named_scope("embedding"):
            embedded = self.dropout(self.embedding(tokens))
        with jax.named_scope("lstm"):
            _, (h, _) = self.lstm(embedded, None, lengths)
        with jax.named_scope("fc"):
            last = jnp.concatenate(list(h[-self.directions :]), axis=-1)
            return self.fc(self.dropout(last))


class Encoder(nnx.Module):
    """Tokens to the outputs and the final state of an LSTM."""

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        **kinds: Any,
    ) -> None:
        self.embedding = Embedding(vocab_size, embedding_dim, **kinds)
        self.lstm = LSTM(embedding_dim, hidden_size, num_layers, True, True, dropout, **kinds)
        self.dropout = Dropout(dropout, rngs=kinds["rngs"])

    def __call__(self, tokens: jax.Array, lengths: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Maps ``(N, S)`` to ``(N, S, H)`` and the state."""
        return self.lstm(self.dropout(self.embedding(tokens)), None, lengths)


class Decoder(nnx.Module):
    """Tokens to logits of the next ones, with attention to the encoder's outputs."""

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        **kinds: Any,
    ) -> None:
        self.embedding = Embedding(vocab_size, embedding_dim, **kinds)
        self.lstm = LSTM(embedding_dim, hidden_size, num_layers, True, True, dropout, **kinds)
        self.attention = Linear(hidden_size, hidden_size, bias=False, **kinds)
        self.combine = Linear(2 * hidden_size, hidden_size, bias=False, **kinds)
        self.out = Linear(hidden_size, vocab_size, **kinds)
        self.dropout = Dropout(dropout, rngs=kinds["rngs"])

    def __call__(
        self,
        tokens: jax.Array,
        memory: jax.Array,
        state: tuple[jax.Array, jax.Array],
        inside: jax.Array | None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Maps ``(N, T)`` tokens and ``(N, S, H)`` memory to ``(N, T, V)`` logits and the state."""
        h, state = self.lstm(self.dropout(self.embedding(tokens)), state)
        scores = jnp.einsum("nth,nsh->nts", h, self.attention(memory))
        if inside is not None:
            scores = jnp.where(inside[:, None], scores, -jnp.inf)
        context = jnp.einsum("nts,nsh->nth", jax.nn.softmax(scores, axis=-1), memory)
        combined = jnp.tanh(self.combine(jnp.concatenate([context, h], axis=-1)))
        return self.out(self.dropout(combined)), state


class Seq2Seq(nnx.Module):
    """An LSTM encoder and an LSTM decoder with global attention.

    The decoder starts in the encoder's final state. With ``h`` its output and ``m`` the encoder's::

        a = softmax(h @ (attention @ m))          the "general" score
        logits = out(tanh(combine([a @ m, h])))

    Source: Luong, Pham and Manning, "Effective Approaches to Attention-based Neural Machine Translation",
    2015, equations 5, 7 and 8, without input feeding: so that all target tokens are computed at once.

    Args:
        source_vocab: number of source tokens.
        target_vocab: number of target tokens.
        embedding_dim: features of a token. Default 256.
        hidden_size: features of both LSTMs. Default 512.
        num_layers: layers of each LSTM. Default 2.
        dropout: on embedded tokens, between layers, before ``out``. Default 0.
        param_dtype: of the parameters. Default float32.
        rngs: where the starting values come from, and the dropout.

    Example:
        >>> model = Seq2Seq(30, 40, 8, 16, rngs=nnx.Rngs(0))
        >>> source, target = jnp.ones((2, 5), int), jnp.ones((2, 7), int)
        >>> model(source, target, jnp.array([5, 3])).shape
        (2, 7, 40)
    """

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        embedding_dim: int = 256,
        hidden_size: int = 512,
        num_layers: int = 2,
        dropout: float = 0.0,
        *,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        sizes = (embedding_dim, hidden_size, num_layers, dropout)
        self.encoder = Encoder(source_vocab, *sizes, param_dtype=param_dtype, rngs=rngs)
        self.decoder = Decoder(target_vocab, *sizes, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, source: jax.Array, target: jax.Array, source_lengths: Any = None) -> jax.Array:
        """Logits of the tokens that follow each target token.

        Args:
            source: ``(N, S)`` tokens.
            target: ``(N, T)`` tokens, starting with the start token.
            source_lengths: ``(N,)`` source tokens that count. Default: all.

        Returns:
            ``(N, T, target_vocab)``.
        """
        memory, state = self.encoder(source, source_lengths)
        return self.decoder(target, memory, state, _inside(source, source_lengths))[0]

    def greedy(self, source: jax.Array, start: int, steps: int, source_lengths: Any = None) -> jax.Array:
        """The likeliest token at each of ``steps`` steps after ``start``: ``(N, steps)``."""
        memory, state = self.encoder(source, source_lengths)
        inside = _inside(source, source_lengths)
        graph, variables = nnx.split(self.decoder)

        def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
            token, state = carry
            logits, state = nnx.merge(graph, variables)(token[:, None], memory, state, inside)
            token = logits[:, 0].argmax(-1).astype(token.dtype)
            return (token, state), token

        first = jnp.full(source.shape[:1], start, source.dtype)
        _, tokens = jax.lax.scan(step, (first, state), None, length=steps)
        return tokens.T


def _inside(source: jax.Array, lengths: Any) -> jax.Array | None:
    if lengths is None:
        return None
    lengths = jnp.asarray(lengths)
    return jnp.arange(source.shape[1], dtype=lengths.dtype)[None] < lengths[:, None]
