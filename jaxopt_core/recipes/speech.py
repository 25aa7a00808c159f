"""Transcription by a recurrent network with the CTC loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxopt_core import evaluation
from jaxopt_core.data.batches import Arrays
from jaxopt_core.data.recordings import load_recordings
from jaxopt_core.data.tones import make_spoken_digits
from jaxopt_core.losses import ctc_loss
from jaxopt_core.models import SpeechModel, pure
from jaxopt_core.recipes.names import named
from jaxopt_core.recipes.recipe import Recipe

__all__ = ["build", "edit_distances"]


def build(options: Any) -> Recipe:
    """See :func:`~jaxopt_core.recipes.build_recipe`; ``hidden`` is the size of the recurrent layer."""
    named("model", options.model, {"speech": SpeechModel})
    data = make_spoken_digits(seed=0) if options.data is None else load_recordings(options.data)
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

    test = Arrays(data.test, min(100, len(data.test["labels"])), shuffle=False)

    def examine(params: Any, rest: Any, folder: Path) -> tuple[dict[str, float], list[str]]:
        @jax.jit
        def listen(batch: Any) -> Any:
            (log_probs, lengths), _ = apply(
                params, rest, batch["features"], batch["feature_lengths"], train=False
            )
            return {"log_probs": log_probs.swapaxes(0, 1), "lengths": lengths}

        found = evaluation.collect(listen, test, ["labels", "label_lengths"])
        heard = evaluation.ctc_greedy(found["log_probs"].swapaxes(0, 1), found["lengths"])
        said = [row[:n].tolist() for row, n in zip(found["labels"], found["label_lengths"], strict=True)]
        return _transcribe(folder / "transcripts.txt", said, heard, data.alphabet), ["transcripts.txt"]

    return Recipe(
        title=f"{data.name}, {options.model} of {hidden}: {len(data.train['labels'])} to train on, "
        f"{len(data.test['labels'])} to test",
        params=params,
        rest=rest,
        loss_fn=loss_fn,
        measure=measure,
        train=Arrays(data.train, options.batch_size, seed=options.seed, drop_last=True),
        test=test,
        per_step=options.batch_size,
        unit="utterances",
        headline="cer",
        best="min",
        examine=examine,
    )


def _transcribe(
    path: Path, said: list[list[int]], heard: list[list[int]], alphabet: tuple[str, ...]
) -> dict[str, float]:
    """Writes what was said and heard, the worst first; returns scores of utterances and of words."""
    pairs = [("".join(alphabet[i - 1] for i in a), "".join(alphabet[i - 1] for i in b))
             for a, b in zip(said, heard, strict=True)]  # fmt: skip
    wrong = np.array([evaluation.edit_distance(a, b) for a, b in pairs])
    lengths = np.array([len(a) for a, _ in pairs])
    if len(pairs) > 1:
        interval = evaluation.confidence_interval(lambda w, n: w.sum() / n.sum(), wrong, lengths)
        bounds = {"cer_low": interval.low, "cer_high": interval.high}
    else:
        bounds = {}
    words = evaluation.ErrorRate()
    words.add([a.split() for a, _ in pairs], [b.split() for _, b in pairs])
    lines = [
        f"{wrong[i]} wrong of {lengths[i]}\n  said  {pairs[i][0]}\n  heard {pairs[i][1]}\n"
        for i in np.argsort(-wrong, kind="stable")
    ]
    path.write_text("".join(lines))
    return {
        **bounds,
        "wer": words.value,
        "utterances_right": float((wrong == 0).mean()),
    }


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
