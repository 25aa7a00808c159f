"""The command line's tasks as something to search."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_core import averaging
from jaxopt_core.recipes import build_optimizer, build_recipe
from jaxopt_core.recipes.optimizer import autocast_dtype
from jaxopt_core.training import TrainState, init_state, make_step
from jaxopt_core.tuning.space import Config
from jaxopt_core.tuning.trainable import Setup, Trainable, minibatch_trainable

__all__ = ["recipe_trainable"]


def recipe_trainable(task: str, options: Any, *, parts: int, every: int = 5) -> Trainable:
    """A task of ``jaxopt-core train``, scored on a part of its training data.

    The test data is not looked at: a configuration chosen on it would be judged too well.

    Args:
      task: its name.
      options: those of the task; a configuration replaces some of them.
      parts: after each of which a trial is scored.
      every: which of the training examples are held out for the score: every fifth, by default.

    Raises:
      ValueError: the task's data is streamed, and cannot be split.
    """
    recipe = build_recipe(task, options)
    arrays = getattr(recipe.train, "arrays", None)
    if arrays is None:
        raise ValueError(f"{task}: its data is streamed; tuning needs arrays in memory")
    held_out = np.arange(len(next(iter(arrays.values())))) % every == 0
    train = {name: np.asarray(array)[~held_out] for name, array in arrays.items()}
    valid = {name: np.asarray(array)[held_out] for name, array in arrays.items()}
    valid["mask"] = np.ones(int(held_out.sum()), bool)

    def setup(config: Config, updates: int) -> Setup:
        chosen = dataclasses.replace(options, **config)
        recipe = build_recipe(task, chosen)
        tx, loss_scale = build_optimizer(chosen, updates)
        state = init_state(recipe.params, recipe.rest, tx, seed=chosen.seed)
        dtype = autocast_dtype(chosen.precision)
        step_fn = make_step(recipe.loss_fn, tx, autocast_dtype=dtype, loss_scale=loss_scale)

        def score(state: TrainState, valid: Any) -> dict[str, jax.Array]:
            params = state.params if chosen.ema is None else averaging.averaged_params(state.opt_state)
            sums = recipe.measure(params, state.rest, valid)
            return {name: jnp.float32(total) / jnp.float32(count) for name, (total, count) in sums.items()}

        return Setup(state, step_fn, score)

    return minibatch_trainable(
        setup, train, valid, parts=parts, epochs=options.epochs, batch_size=options.batch_size
    )
