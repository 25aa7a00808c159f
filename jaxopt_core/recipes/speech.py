"""Transcription by a recurrent network with the CTC loss."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxopt_core.data.batches import Arrays
from jaxopt_core.data.tones import make_spoken_digits
from jaxopt_core.losses import ctc_loss
from jaxopt_core.models import SpeechModel, pure
from jaxopt_core.recipes.names import named
from jaxopt_core.recipes.recipe import Recipe

__all__ = ["build", "edit_distances"]


def build(options: Any) -> Recipe:
    """See :func:`~jaxopt_core.recipes.build_recipe`; ``hidden`` is the size of the recurrent layer."""
    named("model", options.model, {"speech": SpeechModel})
    if options.data is not None:
        raise ValueError("--data: the speech task has no reader for recordings; leave --data out")
    data = make_spoken_digits(seed=0)
    hidden = options.hidden[0] if options.hidden else 64
    bands = data.train["features"].shape[-1]
    classes = len(data.alphabet) + 1
    rngs = nnx.Rngs(options.seed)
    apply, params, rest = pure(SpeechModel(classes, bands, 8, hidden, 1, rngs=rngs))

    def losses_of(params: Any, rest: Any, batch: Any, **how: Any) -> Any:
        (log_probs, lengths), rest = apply(params, rest, batch["features"], batch["feature_lengths"], **how)
        target = batch["labels"], lengths, batch["label_lengths"]
        return ctc_loss(log_probs, *target, reduction="none", zero_infinity=True), log_probs, lengths, rest

    def loss_fn(params: Any, rest: Any, batch: Any, rng: jax.Array) -> Any:
        losses, _, _, rest = losses_of(params, rest, batch, train=True, rngs=rng)
        return losses.mean(), (rest, {})

    def measure(params: Any, rest: Any, batch: Any) -> Any:
        losses, log_probs, lengths, _ = losses_of(params, rest, batch, train=False)
        wrong = edit_distances(log_probs, lengths, batch["labels"], batch["label_lengths"])
        mask = batch["mask"]
        return {
            "loss": (jnp.where(mask, losses, 0).sum(), mask.sum(dtype=jnp.int32)),
            "cer": (jnp.where(mask, wrong, 0).sum(), jnp.where(mask, batch["label_lengths"], 0).sum()),
        }

    return Recipe(
        title=f"{data.name}, {options.model} of {hidden}: {len(data.train['labels'])} to train on, "
        f"{len(data.test['labels'])} to test",
        params=params,
        rest=rest,
        loss_fn=loss_fn,
        measure=measure,
        train=Arrays(data.train, options.batch_size, seed=options.seed, drop_last=True),
        test=Arrays(data.test, min(100, len(data.test["labels"])), shuffle=False),
        per_step=options.batch_size,
        unit="utterances",
        headline="cer",
        best="min",
    )


def edit_distances(
    log_probs: jax.Array, lengths: jax.Array, labels: jax.Array, label_lengths: jax.Array
) -> jax.Array:
    """Levenshtein's distance of the likeliest classes of each frame, collapsed as CTC does, to the labels.

    Args:
      log_probs: ``(T, N, C)``, class 0 the blank.
      lengths: ``(N,)`` frames that count.
      labels: ``(N, S)``.
      label_lengths: ``(N,)``.

    Returns:
      ``(N,)`` int32.

    Example:
      >>> heard = jnp.asarray([1, 1, 0, 1, 2, 0])  # 1 1 2
      >>> log_probs = jax.nn.one_hot(heard, 3)[:, None]
      >>> size = jnp.asarray([3])
      >>> edit_distances(log_probs, jnp.asarray([6]), jnp.asarray([[1, 2, 2]]), size).tolist()
      [1]
    """
    classes = log_probs.argmax(-1).astype(jnp.int32)  # (T, N)
    before = jnp.concatenate([jnp.zeros_like(classes[:1]), classes[:-1]])
    inside = jnp.arange(len(classes), dtype=lengths.dtype)[:, None] < lengths[None]
    heard = (classes != 0) & (classes != before) & inside
    columns = jnp.arange(labels.shape[1] + 1, dtype=jnp.int32)
    start = jnp.broadcast_to(columns, (len(labels), len(columns)))

    def frame(row: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        symbol, counts = at
        differs = (labels != symbol[:, None]).astype(jnp.int32)
        least = jnp.minimum(row[:, 1:] + 1, row[:, :-1] + differs)
        least = jnp.concatenate([row[:, :1] + 1, least], axis=1)
        # Deletions chain along the row: least[j] - j is a running minimum.
        new = jax.lax.cummin(least - columns[None], axis=1) + columns[None]
        return jnp.where(counts[:, None], new, row), None

    row, _ = jax.lax.scan(frame, start, (classes, heard))
    return jnp.take_along_axis(row, label_lengths.astype(jnp.int32)[:, None], axis=1)[:, 0]
