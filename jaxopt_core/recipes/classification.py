"""Loss and metrics of a classifier of images, shared by the tasks that have one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxopt_core.losses import cross_entropy
from jaxopt_core.recipes.recipe import Measure
from jaxopt_core.training.step import LossFn

__all__ = ["classifier", "whole_batch"]


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


def whole_batch(count: int, most: int = 512) -> int:
    """A batch size for evaluation: all, up to ``most``."""
    return min(count, most)
