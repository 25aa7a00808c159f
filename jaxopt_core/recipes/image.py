"""Images by a residual network."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxopt_core.data.augment import random_crop
from jaxopt_core.data.batches import Arrays
from jaxopt_core.data.cifar import load_cifar10
from jaxopt_core.data.dataset import Dataset
from jaxopt_core.data.digits import load_digits
from jaxopt_core.data.mnist import load_mnist
from jaxopt_core.models import DenseNet, ResNet, pure, resnet18
from jaxopt_core.models.resnet import BasicBlock
from jaxopt_core.recipes.classification import classifier, examiner, whole_batch
from jaxopt_core.recipes.names import named
from jaxopt_core.recipes.recipe import Recipe

__all__ = ["build"]


def build(options: Any) -> Recipe:
    """See :func:`~jaxopt_core.recipes.build_recipe`; ``hidden`` is the width of ``resnet``."""
    make = named("model", options.model, {"resnet": _resnet, "resnet18": _resnet18, "densenet": _densenet})
    data = _load(options.data)
    train, test = (
        {"images": _square(part.images), "labels": part.labels} for part in (data.train, data.test)
    )
    model = make(data.classes, train["images"].shape[-1], options)
    apply, params, rest = pure(model)
    loss_fn, measure = classifier(
        apply, functools.partial(random_crop, padding=1 if options.data is None else 4)
    )
    count = sum(x.size for x in jax.tree.leaves(params))
    return Recipe(
        title=f"{data.name}, {options.model} of {count} parameters: "
        f"{len(train['labels'])} images to train on, {len(test['labels'])} to test",
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


def _load(folder: Path | None) -> Dataset:
    if folder is None:
        return load_digits()
    is_cifar = any(folder.glob("*batch*"))
    return load_cifar10(folder) if is_cifar else load_mnist(folder)


def _square(images: Any) -> np.ndarray[Any, Any]:
    """Float32 of shape ``(N, H, W, C)``, in [0, 1]."""
    if images.ndim == 2:
        side = round(images.shape[1] ** 0.5)
        return np.reshape(images, (-1, side, side, 1))
    return images.astype(np.float32) / np.float32(255)


def _resnet(classes: int, channels: int, options: Any) -> nnx.Module:
    width = options.hidden[0] if options.hidden else 8
    layers = (1, 1, 1, 1)
    rngs = nnx.Rngs(options.seed)
    return ResNet(BasicBlock, layers, classes, cifar_stem=True, in_channels=channels, width=width, rngs=rngs)


def _resnet18(classes: int, channels: int, options: Any) -> nnx.Module:
    return resnet18(classes, cifar_stem=True, in_channels=channels, rngs=nnx.Rngs(options.seed))


def _densenet(classes: int, channels: int, options: Any) -> nnx.Module:
    return DenseNet(8, (2, 2), 16, num_classes=classes, in_channels=channels, rngs=nnx.Rngs(options.seed))
