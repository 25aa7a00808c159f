"""Loss, metrics and examination of a classifier of images, shared by the tasks that have one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_core import evaluation
from jaxopt_core.data.batches import Arrays
from jaxopt_core.losses import cross_entropy
from jaxopt_core.recipes.recipe import Examine, Measure
from jaxopt_core.training.step import LossFn

__all__ = ["classifier", "examiner", "whole_batch"]

_EXPLAINED = 10  # images in the picture of attributions


def classifier(
    apply: Callable[..., Any], preprocess: Callable[[jax.Array, Any], Any] | None = None
) -> tuple[LossFn, Measure]:
    """Cross-entropy of ``batch["images"]`` and ``batch["labels"]``, and what share is right.

    Args:
      apply: from :func:`jaxopt_core.models.pure`.
      preprocess: ``(key, images) -> images``, in training only.
    """

    def loss_fn(params: Any, rest: Any, batch: Any, rng: jax.Array) -> Any:
        keys = jax.random.split(rng)
        images = batch["images"] if preprocess is None else preprocess(keys[0], batch["images"])
        logits, rest = apply(params, rest, images, train=True, rngs=keys[1])
        right = (logits.argmax(-1).astype(batch["labels"].dtype) == batch["labels"]).mean(dtype=jnp.float32)
        return cross_entropy(logits, batch["labels"]), (rest, {"accuracy": right})

    def measure(params: Any, rest: Any, batch: Any) -> Any:
        logits, _ = apply(params, rest, batch["images"], train=False)
        mask = batch["mask"]
        losses = cross_entropy(logits, batch["labels"], reduction="none")
        right = logits.argmax(-1).astype(batch["labels"].dtype) == batch["labels"]
        count = mask.sum(dtype=jnp.int32)
        return {
            "loss": (jnp.where(mask, losses, 0).sum(), count),
            "accuracy": (jnp.where(mask, right, False).sum(dtype=jnp.int32), count),
        }

    return loss_fn, measure


def examiner(apply: Callable[..., Any], test: Mapping[str, Any], classes: int) -> Examine:
    """Scores by class, how sure the accuracy is, and pictures of what went wrong and why.

    The pictures are ``confusion.png``, ``roc.png``, ``mistakes.png`` and ``attributions.png``; the last shows
    what the surest mistakes hang on, and after them right answers.

    Args:
      apply: from :func:`jaxopt_core.models.pure`.
      test: ``"images"`` and ``"labels"``.
      classes: number of classes.
    """

    def examine(params: Any, rest: Any, folder: Path) -> tuple[dict[str, float], list[str]]:
        @jax.jit
        def logits_of(images: jax.Array) -> jax.Array:
            return apply(params, rest, images, train=False)[0]

        batches = Arrays(test, whole_batch(len(test["labels"])), shuffle=False)
        found = evaluation.collect(
            lambda batch: jax.nn.softmax(logits_of(batch["images"])), batches, ["images", "labels"]
        )
        images, labels, probabilities = found["images"], found["labels"], found["output"]
        predicted = probabilities.argmax(axis=1)
        right = predicted == labels
        confusion = evaluation.Confusion(classes)
        confusion.add(labels, predicted)
        curves = evaluation.roc_curves(labels, probabilities)
        interval = evaluation.confidence_interval(np.mean, right)
        evaluation.plot_confusion(folder / "confusion.png", confusion)
        evaluation.plot_roc(folder / "roc.png", curves)
        evaluation.plot_mistakes(folder / "mistakes.png", _square(images), labels, probabilities)

        surest = np.lexsort((-probabilities.max(axis=1), right))[:_EXPLAINED]
        explained = jnp.asarray(images[surest], jnp.float32)
        # How complete the sum is goes into the row's name instead of being demanded.
        parts = evaluation.integrated_gradients(logits_of, explained, steps=256, tolerance=math.inf)
        gap = float(np.max(np.abs(parts.gap)) / np.mean(np.abs(parts.difference)))
        evaluation.plot_attributions(
            folder / "attributions.png",
            _square(explained),
            {
                "saliency": _square(evaluation.saliency(logits_of, explained)),
                f"integrated gradients,\nsum off by {gap:.1%}": _square(parts.attributions),
            },
            [f"{labels[i]}" if right[i] else f"{labels[i]}, not {predicted[i]}" for i in surest],
        )
        scores = {
            "accuracy_low": interval.low,
            "accuracy_high": interval.high,
            "precision": float(confusion.precision()),
            "recall": float(confusion.recall()),
            "f1": float(confusion.f1()),
            "roc_auc": float(np.mean([curve.auc for curve in curves])),
        }
        return scores, ["confusion.png", "roc.png", "mistakes.png", "attributions.png"]

    return examine


def whole_batch(count: int, most: int = 512) -> int:
    """A batch size for evaluation: all, up to ``most``."""
    return min(count, most)


def _square(images: Any) -> Any:
    if images.ndim > 2:
        return images
    side = math.isqrt(images.shape[1])
    return images.reshape(-1, side, side)
