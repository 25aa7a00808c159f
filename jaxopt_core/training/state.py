"""What a run carries from one update to the next."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

__all__ = ["TrainState", "init_state"]


class TrainState(NamedTuple):
    """All that a step reads and writes; a pytree of arrays.

    Attributes:
      step: int32 scalar, updates made so far.
      params: pytree of the trainable arrays.
      rest: pytree of what else the model changes: running statistics, random streams.
      opt_state: the optimizer's state.
      rng: a key; the randomness of update ``n`` is ``jax.random.fold_in(rng, n)``.
    """

    step: jax.Array
    params: Any
    rest: Any
    opt_state: Any
    rng: jax.Array


def init_state(params: Any, rest: Any, tx: optax.GradientTransformation, *, seed: int = 0) -> TrainState:
    """The state before the first update.

    Args:
      params: initial parameters; copied, so that a step may overwrite its input.
      rest: initial value of what else the model changes; copied.
      tx: the optimizer.
      seed: of the randomness of all steps. Default 0.

    Returns:
      A :class:`TrainState` at step 0.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> state = init_state({"w": jnp.ones(3)}, {}, jo.adamw())
      >>> int(state.step), list(state.opt_state.slots)
      (0, ['exp_avg', 'exp_avg_sq'])
    """
    params, rest = jax.tree.map(jnp.copy, (params, rest))
    return TrainState(jnp.zeros([], jnp.int32), params, rest, tx.init(params), jax.random.key(seed))
