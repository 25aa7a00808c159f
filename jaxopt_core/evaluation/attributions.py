"""Which inputs a prediction hangs on: gradients, and gradients along the way from nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["IntegratedGradients", "integrated_gradients", "saliency"]

Predict = Callable[[jax.Array], jax.Array]


def saliency(predict: Predict, inputs: Any, classes: Any = None) -> jax.Array:
    """How much each input would change the score of a class: the absolute gradient.

    Source: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks", 2014, section 3.

    Args:
        predict: from inputs ``(N, ...)`` to scores ``(N, classes)``, each row of its own input alone (batch
            normalisation must be in evaluation mode). Logits, not probabilities, which are flat where the
            model is sure.
        inputs: float, of shape ``(N, ...)``.
        classes: int of shape ``(N,)``, the class to explain. Default: the highest score's.

    Returns:
        Of the inputs' shape, at least 0.

    Example:
        >>> weights = jnp.array([[1.0, -2.0], [0.0, 3.0]])
        >>> saliency(lambda x: x @ weights, jnp.array([[1.0, 2.0]])).tolist()
        [[2.0, 3.0]]
    """
    inputs = jnp.asarray(inputs)
    classes = _classes(predict, inputs, classes)
    return jnp.abs(jax.grad(_total)(inputs, predict, classes))


class IntegratedGradients(NamedTuple):
    """What each input adds to the score of a class.

    Attributes:
        attributions: of the inputs' shape; they sum to the difference of the scores.
        difference: ``(N,)``: score of the input minus score of the baseline.
        gap: ``(N,)``: what is missing from the sum, by too few steps.
    """

    attributions: jax.Array
    difference: jax.Array
    gap: jax.Array


def integrated_gradients(
    predict: Predict,
    inputs: Any,
    classes: Any = None,
    *,
    baseline: Any = 0.0,
    steps: int = 64,
    tolerance: float = 0.05,
) -> IntegratedGradients:
    """The mean gradient on the straight way from a baseline to the input, times that way.

    The attributions of an input add up to what its score has over the baseline's (completeness). That is
    checked, because too few steps break it silently.

    Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", 2017, section 3; the
    integral by the midpoints of ``steps`` equal pieces.

    Args:
        predict: see :func:`saliency`.
        inputs: likewise.
        classes: likewise.
        baseline: what stands for no input, of a shape that broadcasts to one of the inputs. Default 0.
        steps: gradients for each input, computed one after another. Default 64.
        tolerance: the largest gap allowed, as a share of the difference. Default 0.05.

    Raises:
        ValueError: completeness is violated by more: take more steps.

    Example:
        >>> found = integrated_gradients(lambda x: x**2, jnp.array([[3.0, 1.0]]))
        >>> print(found.attributions.round(3), found.difference)
        [[9. 0.]] [9.]
    """
    if steps < 1:
        raise ValueError(f"expected at least one step, got {steps}")
    inputs = jnp.asarray(inputs)
    start = jnp.broadcast_to(jnp.asarray(baseline, inputs.dtype), inputs.shape)
    classes = _classes(predict, inputs, classes)
    way = inputs - start
    fractions = (jnp.arange(steps, dtype=inputs.dtype) + 0.5) / steps

    def add(total: jax.Array, fraction: jax.Array) -> tuple[jax.Array, None]:
        return total + jax.grad(_total)(start + fraction * way, predict, classes), None

    @jax.jit
    def run() -> IntegratedGradients:
        gradients, _ = jax.lax.scan(add, jnp.zeros_like(inputs), fractions)
        attributions = way * gradients / steps
        difference = _pick(predict(inputs), classes) - _pick(predict(start), classes)
        gap = difference - attributions.reshape(len(inputs), -1).sum(axis=1)
        return IntegratedGradients(attributions, difference, gap)

    found = run()
    gaps, differences = np.abs(found.gap), np.abs(found.difference)
    # A difference of nothing has no share; compare with the typical one.
    allowed = tolerance * np.maximum(differences, differences.mean())
    if not np.all(gaps <= allowed):
        worst = int(np.argmax(np.where(np.isnan(gaps), np.inf, gaps - allowed)))
        total = found.difference - found.gap
        raise ValueError(
            f"attributions of input {worst} sum to {total[worst]:.4g}, "
            f"but its score differs from the baseline's by {found.difference[worst]:.4g}: "
            f"take more than {steps} steps"
        )
    return found


def _classes(predict: Predict, inputs: jax.Array, classes: Any) -> jax.Array:
    return jnp.argmax(predict(inputs), axis=-1) if classes is None else jnp.asarray(classes)


def _pick(scores: jax.Array, classes: jax.Array) -> jax.Array:
    return jnp.take_along_axis(scores, classes[:, None], axis=-1)[:, 0]


def _total(inputs: jax.Array, predict: Predict, classes: jax.Array) -> jax.Array:
    return _pick(predict(inputs), classes).sum()
