"""What a task hands to the loop."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxopt_core.data import Batches
from jaxopt_core.training.step import LossFn

__all__ = ["Examine", "Measure", "Recipe", "build_recipe"]

Measure = Callable[[Any, Any, Any], dict[str, tuple[jax.Array, jax.Array]]]
Examine = Callable[[Any, Any, Path], tuple[dict[str, float], list[str]]]


class Recipe(NamedTuple):
    """Data, model, loss and metrics of a task.

    Attributes:
      title: one line for people.
      params: initial parameters.
      rest: what else the model changes.
      loss_fn: ``(params, rest, batch, rng) -> (loss, (rest, metrics))``.
      measure: ``(params, rest, batch) -> {name: (sum, count)}``, on the test data.
      train: batches to train on.
      test: batches that the parameters never see.
      per_step: images, tokens or the like in a batch.
      unit: what they are.
      headline: the metric of ``measure`` that the task is about.
      best: ``"min"`` or ``"max"``: which way the headline is better.
      examine: ``(params, rest, folder) -> (scores, names of the pictures drawn into the folder)``, what
        ``jaxopt-core evaluate`` adds to ``measure``.
    """

    title: str
    params: Any
    rest: Any
    loss_fn: LossFn
    measure: Measure
    train: Batches
    test: Batches
    per_step: int
    unit: str
    headline: str
    best: str
    examine: Examine


def build_recipe(task: str, options: Any) -> Recipe:
    """Reads the data and makes the model of a task.

    Args:
      task: ``"digits"``, ``"image"``, ``"text"``, ``"speech"`` or ``"recommend"``.
      options: has ``data``, ``model``, ``hidden``, ``batch_size`` and ``seed``, as the command line's.

    Raises:
      ValueError: the model is unknown, or the batch size does not fit the data.
      jaxopt_core.data.DataFileError: a file is missing or not what it should be.
      MissingExtraError: an extra is not installed.
    """
    module = importlib.import_module(f"jaxopt_core.recipes.{task}")
    recipe: Recipe = module.build(options)
    return recipe
