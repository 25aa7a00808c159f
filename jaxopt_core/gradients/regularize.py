"""Penalties on the parameters, added to the gradients before any optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.experimental import sparse

from jaxopt_core.checks import require_non_negative
from jaxopt_core.gradients.norm import common_dtype, present_gradients, working_dtype
from jaxopt_core.hyperparams import Hyperparams, is_zero
from jaxopt_core.leaf import compute_dtype
from jaxopt_core.tree import flatten, is_absent

__all__ = ["RegularizationState", "l1_regularization", "l2_regularization"]


class RegularizationState(NamedTuple):
    """The state of a penalty: updates made so far, and its strength if that can change."""

    count: jax.Array  # type: ignore[assignment]  # not tuple.count
    hyperparams: dict[str, Any]


def l1_regularization(strength: Any) -> optax.GradientTransformationExtraArgs:
    """Adds the gradient of ``strength * sum(abs(p))`` to the gradients.

    That is ``strength * sign(p)``, 0 where the parameter is 0: what backpropagation through
    ``loss + strength * p.abs().sum()`` gives in PyTorch. A parameter without a gradient gets none.

    Args:
      strength: a number, an array, a schedule, a stateful schedule or :func:`~jaxopt_core.by_path` of
        these. Known to :func:`~jaxopt_core.read_hyperparams` as ``l1``.

    Returns:
      A transformation to chain before any optimizer.

    Raises:
      ValueError: a negative strength.
      TypeError: a gradient is sparse: the penalty is not.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo, optax
      >>> tx = optax.chain(jo.gradients.l1_regularization(0.5), jo.sgd(lr=1.0))
      >>> params = jnp.asarray([2.0, 4.0, -1.0])
      >>> tx.update(jnp.zeros(3), tx.init(params), params)[0].tolist()
      [-0.5, -0.5, 0.5]
    """
    # JAX's gradients are the conjugates of PyTorch's.
    return _penalty("l1", strength, lambda param: jnp.conj(jnp.sign(param)))


def l2_regularization(strength: Any) -> optax.GradientTransformationExtraArgs:
    """Adds the gradient of ``strength / 2 * sum(abs(p)**2)`` to the gradients.

    That is ``strength * p``: PyTorch's ``weight_decay`` of the optimizers that do not decouple it, before
    any optimizer, including those that do.

    Args:
      strength: as for :func:`l1_regularization`; known to ``read_hyperparams`` as ``l2``.

    Returns:
      A transformation to chain before any optimizer.

    Raises:
      ValueError: a negative strength.
      TypeError: a gradient is sparse: the penalty is not.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo, optax
      >>> no_bias = jo.by_path({"bias$": 0.0}, default=0.5)
      >>> tx = optax.chain(jo.gradients.l2_regularization(no_bias), jo.sgd(lr=1.0))
      >>> params = {"kernel": jnp.ones(1), "bias": jnp.ones(1)}
      >>> updates, _ = tx.update({"kernel": jnp.zeros(1), "bias": jnp.zeros(1)}, tx.init(params), params)
      >>> float(updates["kernel"][0]), float(updates["bias"][0])
      (-0.5, -0.0)
    """
    return _penalty("l2", strength, jnp.conj)


def _penalty(
    name: str, strength: Any, slope: Callable[[jax.Array], jax.Array]
) -> optax.GradientTransformationExtraArgs:
    require_non_negative(strength, f"Invalid {name} strength: {{}}")
    hyperparams = Hyperparams(**{name: strength})

    def init(params: optax.Params) -> RegularizationState:
        leaves = flatten(params)
        dtype = common_dtype(present_gradients(params)[1])
        return RegularizationState(jnp.zeros([], jnp.int32), hyperparams.init(leaves.paths, dtype))

    def update(
        grads: optax.Updates, state: RegularizationState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, RegularizationState]:
        if params is None:
            raise ValueError(
                f"{name}_regularization needs the parameters: call tx.update(grads, state, params)."
            )
        now, after = hyperparams.advance(state.hyperparams, state.count, extra)

        def penalized(path: str, grad: Any, param: Any) -> Any:
            if is_absent(grad) or is_absent(param):
                return grad
            wide = compute_dtype(grad.dtype)
            factor = getattr(hyperparams.resolve(now, path, grad.dtype, wide), name)
            if is_zero(factor):
                return grad
            if isinstance(grad, sparse.BCOO):
                raise TypeError(f"Gradient of {path!r} is sparse, and {name}_regularization is not.")
            working = working_dtype(grad.dtype)
            return (grad.astype(working) + factor * slope(param.astype(working))).astype(grad.dtype)

        leaves = flatten(params)
        both = zip(leaves.paths, leaves.match(grads), leaves.values, strict=True)
        return leaves.unflatten([penalized(*each) for each in both]), RegularizationState(
            optax.safe_increment(state.count), after
        )

    return optax.GradientTransformationExtraArgs(init, update)
