"""Many updates in one call of a compiled program, so that a small model's step is not bound by Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxopt_core.training.state import TrainState
from jaxopt_core.training.step import Metrics, StepFn

__all__ = ["OWN_WAIT", "compile_steps", "stack_batches"]

OWN_WAIT = "jaxopt_core waits"
"""What a wait for results is marked as in a recording where it is part of the loop and not of user's code."""

RunSteps = Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]


def compile_steps(step_fn: StepFn, *, donate: bool = False) -> RunSteps:
    """Compiles a step into a program that makes several.

    The number of steps is an argument of the program and not part of it. So one program serves the full
    dispatches and the short ones at the end of an epoch, and a step gives the same bits wherever the
    dispatches begin and end: that is what lets a resumed run repeat an uninterrupted one.

    Args:
      step_fn: ``(state, batch) -> (state, metrics)``.
      donate: let the program overwrite the state that it is given. Default False.

    Returns:
      ``run(state, batches, count) -> (state, metrics)``: the first ``count`` of the stacked ``batches``,
      whose leaves have a leading axis. The metrics have that axis too; behind ``count`` they are 0.

    Example:
      >>> import jax.numpy as jnp
      >>> run = compile_steps(lambda state, batch: (state + batch["x"], {"before": state}))
      >>> state, metrics = run(jnp.float32(1), {"x": jnp.asarray([1.0, 2.0, 4.0])}, 2)
      >>> print(state, metrics["before"])
      4.0 [1. 2. 0.]
    """
    compiled = _donating if donate else _keeping
    return lambda state, batches, count: compiled(step_fn, state, batches, np.int32(count))


def _run(step_fn: StepFn, state: TrainState, batches: Any, count: jax.Array) -> tuple[TrainState, Metrics]:
    length = len(jax.tree.leaves(batches)[0])

    def pick(i: Any) -> Any:
        return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, keepdims=False), batches)

    def body(i: jax.Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, kept = carry
        state, metrics = step_fn(state, pick(i))
        put = lax.dynamic_update_index_in_dim
        return state, jax.tree.map(lambda all_, one: put(all_, one, i, 0), kept, metrics)

    shapes = jax.eval_shape(lambda: step_fn(state, pick(0)))[1]
    kept = jax.tree.map(lambda s: jnp.zeros((length, *s.shape), s.dtype), shapes)
    return lax.fori_loop(0, count, body, (state, kept))


# The step is an argument, so that a second run with the same step finds the program compiled.
_keeping = jax.jit(_run, static_argnums=0)
_donating = jax.jit(_run, static_argnums=0, donate_argnums=1)


def stack_batches(batches: Sequence[Any], length: int) -> Any:
    """Batches on a new leading axis of a given length; behind the last one lies whatever memory held.

    Raises:
      ValueError: a batch differs in shape or dtype from the first, which would compile anew for each.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(batches[0])
    for other in batches[1:]:
        structure: Any = jax.tree.structure(other)
        if structure != treedef:
            raise ValueError(f"expected batches like the first, {treedef}, got {structure}.")
        for (path, like), leaf in zip(leaves, jax.tree.leaves(other), strict=True):
            if (leaf.shape, leaf.dtype) != (like.shape, like.dtype):
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise ValueError(
                    f"batch[{name!r}]: expected {like.dtype} of shape {like.shape} as in the first batch, "
                    f"got {leaf.dtype} of shape {leaf.shape}: drop the last batch, or pad it with a mask."
                )

    def stacked(*leaves: Any) -> Any:
        if isinstance(leaves[0], jax.Array):
            return jnp.stack([*leaves, *[leaves[0]] * (length - len(leaves))])
        array = np.empty((length, *leaves[0].shape), leaves[0].dtype)
        for i, leaf in enumerate(leaves):
            array[i] = leaf
        return array

    return jax.tree.map(stacked, *batches)
