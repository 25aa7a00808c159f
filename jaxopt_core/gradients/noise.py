"""Stochastic gradient descent with a noise term."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.experimental import sparse

from jaxopt_core.checks import require_non_negative
from jaxopt_core.gradients.norm import common_dtype, present_gradients
from jaxopt_core.gradients.shards import AxisName, axes_of
from jaxopt_core.hyperparams import Hyperparams, is_zero
from jaxopt_core.leaf import compute_dtype
from jaxopt_core.tree import flatten, is_absent

__all__ = ["GradientNoiseState", "gradient_noise"]


class GradientNoiseState(NamedTuple):
    """The state of :func:`gradient_noise`.

    Attributes:
      count: int32 scalar, updates made so far.
      hyperparams: ``std``, if it can change.
      key: the random key that the run started with; the noise of a step depends on it and on ``count``.
    """

    count: jax.Array  # type: ignore[assignment]  # not tuple.count
    hyperparams: dict[str, Any]
    key: jax.Array


def gradient_noise(
    std: Any, key: int | jax.Array, *, axis_name: AxisName = None
) -> optax.GradientTransformationExtraArgs:
    """Adds independent Gaussian noise of standard deviation ``std`` to every element of the gradients.

    Before ``sgd`` this is stochastic gradient descent with a noise term, and with
    ``std = sqrt(2 * T / lr)`` Langevin dynamics at temperature ``T``. The annealed noise of Neelakantan et
    al., "Adding Gradient Noise Improves Learning for Very Deep Networks", 2015, is a schedule:
    ``std=lambda t: jnp.sqrt(0.01 / (1 + t) ** 0.55)``.

    Args:
      std: standard deviation of each real number (of a complex element, of both parts); a number, an
        array, a schedule, a stateful schedule or :func:`~jaxopt_core.by_path` of these.
      key: a seed or a key of ``jax.random``.
      axis_name: inside ``shard_map``, the mesh axes over which leaves are sharded: every shard then draws
        its own noise. Leaves that are whole on every device get the same noise everywhere.

    Returns:
      A transformation to chain before any optimizer. The same key, step and place in the tree give the
      same noise, so a run resumed from its state goes on as it would have.

    Raises:
      ValueError: a negative number.
      TypeError: a gradient is sparse: the noise is not.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo, optax
      >>> tx = optax.chain(jo.gradients.gradient_noise(0.5, key=0), jo.sgd(lr=1.0))
      >>> params = jnp.zeros(10_000)
      >>> updates, _ = tx.update(jnp.zeros(10_000), tx.init(params), params)
      >>> print(f"{updates.std():.1f}")
      0.5
    """
    require_non_negative(std, "Invalid std value: {}")
    hyperparams = Hyperparams(std=std)

    def init(params: optax.Params) -> GradientNoiseState:
        leaves = flatten(params)
        dtype = common_dtype(present_gradients(params)[1])
        # A copy, lest donating the state deletes a key of the user's.
        start = jax.random.key(key) if isinstance(key, int) else jnp.copy(key)
        return GradientNoiseState(jnp.zeros([], jnp.int32), hyperparams.init(leaves.paths, dtype), start)

    def update(
        grads: optax.Updates, state: GradientNoiseState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, GradientNoiseState]:
        del params
        now, after = hyperparams.advance(state.hyperparams, state.count, extra)
        step_key = jax.random.fold_in(state.key, state.count)

        def noisy(index: int, path: str, grad: Any) -> Any:
            if is_absent(grad):
                return grad
            wide = compute_dtype(grad.dtype)
            scale = hyperparams.resolve(now, path, grad.dtype, wide).std
            if is_zero(scale):
                return grad
            if isinstance(grad, sparse.BCOO):
                raise TypeError(f"Gradient of {path!r} is sparse, and gradient_noise is not.")
            leaf_key = jax.random.fold_in(step_key, index)
            for axis in axes_of(axis_name, path):
                leaf_key = jax.random.fold_in(leaf_key, jax.lax.axis_index(axis))
            if jnp.issubdtype(grad.dtype, jnp.complexfloating):
                parts = jax.random.normal(leaf_key, (2, *grad.shape), wide) * scale
                return grad + jax.lax.complex(parts[0], parts[1])
            return (grad.astype(wide) + scale * jax.random.normal(leaf_key, grad.shape, wide)).astype(
                grad.dtype
            )

        leaves = flatten(grads)
        noised = [noisy(i, *each) for i, each in enumerate(zip(leaves.paths, leaves.values, strict=True))]
        return leaves.unflatten(noised), GradientNoiseState(
            optax.safe_increment(state.count), after, state.key
        )

    return optax.GradientTransformationExtraArgs(init, update)
