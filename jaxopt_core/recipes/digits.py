"""Handwritten digits by a multilayer perceptron."""

from __future__ import annotations

import math
from typing import Any

import jax
from flax import nnx

from jaxopt_core.data.augment import random_crop
from jaxopt_core.data.batches import Arrays
from jaxopt_core.data.digits import load_digits
from jaxopt_core.data.mnist import load_mnist
from jaxopt_core.models import MLP, pure
from jaxopt_core.recipes.classification import classifier, examiner, whole_batch
from jaxopt_core.recipes.names import named
from jaxopt_core.recipes.recipe import Recipe

__all__ = ["build"]


def build(options: Any) -> Recipe:
    """See :func:`~jaxopt_core.recipes.build_recipe`; ``hidden`` are the widths of the hidden layers."""
    named("model", options.model, {"mlp": MLP})
    data = load_digits() if options.data is None else load_mnist(options.data)
    widths = (data.features, *options.hidden, data.classes)
    apply, params, rest = pure(MLP(widths, rngs=nnx.Rngs(options.seed)))
    loss_fn, measure = classifier(apply, _shifted)
    train = data.train._asdict()
    test = data.test._asdict()
    shape = "-".join(map(str, widths))
    return Recipe(
        title=f"{data.name}, MLP {shape}: {len(data.train.labels)} images to train on, "
        f"{len(data.test.labels)} to test",
        params=params,
        rest=rest,
        loss_fn=loss_fn,
        measure=measure,
        train=Arrays(train, options.batch_size, seed=options.seed, drop_last=True),
        test=Arrays(test, whole_batch(len(data.test.labels)), shuffle=False),
        per_step=options.batch_size,
        unit="images",
        headline="accuracy",
        best="max",
        examine=examiner(apply, test, data.classes),
    )


def _shifted(key: jax.Array, images: jax.Array) -> jax.Array:
    side = math.isqrt(images.shape[1])
    return random_crop(key, images.reshape(-1, side, side, 1), padding=1).reshape(images.shape)
