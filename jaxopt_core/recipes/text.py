"""The next character by a recurrent network or a transformer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxopt_core import evaluation
from jaxopt_core.data.batches import Arrays
from jaxopt_core.data.text import load_pydoc, load_text, windows
from jaxopt_core.losses import cross_entropy
from jaxopt_core.models import LSTM, GPT2LMHeadModel, pure
from jaxopt_core.models.layers import Embedding, Linear
from jaxopt_core.recipes.names import named
from jaxopt_core.recipes.recipe import Recipe

__all__ = ["LSTMLanguageModel", "build"]

_LENGTH = 128  # bytes of a sequence


class LSTMLanguageModel(nnx.Module):
    """Logits of the token that follows each token: embedding, LSTM, linear layer.

    Args:
      vocab_size: number of tokens.
      embedding_dim: features of a token.
      hidden_size: of the LSTM.
      rngs: where the starting values come from.

    Example:
      >>> model = LSTMLanguageModel(50, 8, 16, rngs=nnx.Rngs(0))
      >>> model(jnp.ones((3, 7), int)).shape
      (3, 7, 50)
    """

    def __init__(self, vocab_size: int, embedding_dim: int, hidden_size: int, *, rngs: nnx.Rngs) -> None:
        self.embedding = Embedding(vocab_size, embedding_dim, rngs=rngs)
        self.lstm = LSTM(embedding_dim, hidden_size, batch_first=True, rngs=rngs)
        self.fc = Linear(hidden_size, vocab_size, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps ``(N, T)`` tokens to ``(N, T, vocab_size)`` logits."""
        hidden, _ = self.lstm(self.embedding(tokens))
        return self.fc(hidden)


def build(options: Any) -> Recipe:
    """See :func:`~jaxopt_core.recipes.build_recipe`; ``hidden`` is the width of the network."""
    make = named("model", options.model, {"lstm": _lstm, "gpt2": _gpt2})
    data = load_pydoc() if options.data is None else load_text(options.data)
    for name, part in (("to train on", data.train), ("to test", data.test)):
        if len(part) <= _LENGTH:
            raise ValueError(
                f"--data: {data.name}: expected more than {_LENGTH} bytes {name}, found {len(part)}"
            )
    train, test = windows(data.train, _LENGTH), windows(data.test, _LENGTH)
    apply, params, rest = pure(make(data.tokenizer.vocab_size, options))

    def loss_fn(params: Any, rest: Any, batch: Any, rng: jax.Array) -> Any:
        logits, rest = apply(params, rest, batch["tokens"], train=True, rngs=rng)
        loss = cross_entropy(logits, batch["targets"])
        return loss, (rest, {"bits": loss / math.log(2)})

    def measure(params: Any, rest: Any, batch: Any) -> Any:
        logits, _ = apply(params, rest, batch["tokens"], train=False)
        losses = cross_entropy(logits, batch["targets"], reduction="none")
        total = jnp.where(batch["mask"][:, None], losses, 0).sum()
        count = batch["mask"].sum(dtype=jnp.int32) * _LENGTH
        return {"loss": (total, count), "bits": (total / math.log(2), count)}

    held_out = Arrays(test, min(128, len(test["tokens"])), shuffle=False)

    def examine(params: Any, rest: Any, folder: Path) -> tuple[dict[str, float], list[str]]:
        @jax.jit
        def losses_of(batch: Any) -> jax.Array:
            logits, _ = apply(params, rest, batch["tokens"], train=False)
            return cross_entropy(logits, batch["targets"], reduction="none")

        losses = evaluation.collect(losses_of, held_out)["output"]
        score = evaluation.Perplexity()
        score.add(losses)
        bits = losses / math.log(2)
        interval = evaluation.confidence_interval(np.mean, bits.mean(axis=1))
        evaluation.plot_positions(folder / "positions.png", bits.mean(axis=0), "bits")
        scores = {"perplexity": score.perplexity, "bits_low": interval.low, "bits_high": interval.high}
        return scores, ["positions.png"]

    return Recipe(
        title=f"{data.name}, {options.model}: {len(data.train)} bytes to train on, {len(data.test)} held out",
        params=params,
        rest=rest,
        loss_fn=loss_fn,
        measure=measure,
        train=Arrays(train, options.batch_size, seed=options.seed, drop_last=True),
        test=held_out,
        per_step=options.batch_size * _LENGTH,
        unit="characters",
        headline="bits",
        best="min",
        examine=examine,
    )


def _lstm(vocab: int, options: Any) -> nnx.Module:
    hidden = options.hidden[0] if options.hidden else 256
    return LSTMLanguageModel(vocab, 64, hidden, rngs=nnx.Rngs(options.seed))


def _gpt2(vocab: int, options: Any) -> nnx.Module:
    width = options.hidden[0] if options.hidden else 128
    return GPT2LMHeadModel(vocab, _LENGTH, width, n_layer=3, n_head=4, rngs=nnx.Rngs(options.seed))
