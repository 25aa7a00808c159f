"""Losses of one class out of several."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_core.checks import require
from jaxopt_core.losses.reduction import Reduction, check_reduction, reduce, widen

__all__ = ["cross_entropy", "nll_loss"]


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: Any = 0.0,
    axis: int = -1,
) -> jax.Array:
    """Cross-entropy of logits, as ``torch.nn.functional.cross_entropy``.

    For class ``y`` and ``C`` classes, with ``s = label_smoothing``::

        loss = -(1 - s) * weight[y] * log_softmax(input)[y] - s / C * sum_c(weight[c] * log_softmax(input)[c])

    For probabilities ``q``, smoothed to ``(1 - s) * q + s / C``::

        loss = -sum_c(weight[c] * q[c] * log_softmax(input)[c])

    Args:
      input: logits, ``(..., C)``; with ``axis=1`` PyTorch's ``(N, C, ...)``.
      target: classes, integers in the input's shape without the axis of the classes; or probabilities,
        floats in the input's shape.
      weight: ``(C,)``, factor of each class.
      ignore_index: a class that contributes neither loss nor gradient, nor counts in the mean.
        Default -100. Not for probabilities.
      reduction: ``"mean"`` (default), ``"sum"`` or ``"none"``. The mean of classes is weighted: it
        divides by the sum of ``weight[y]`` over the targets that are not ignored, and is NaN when all are.
        The mean of probabilities divides by the number of targets.
      label_smoothing: from 0 (default) to 1.
      axis: where the classes are. Default -1, the last. PyTorch's is 1.

    Returns:
      Scalar, or the losses in the shape of the classes.

    Raises:
      ValueError: shapes that do not fit, an argument out of range.
      TypeError: a target that is neither integer nor float.
      IndexError: a class outside of ``0 <= y < C``. Inside ``jit`` the classes cannot be read, and the
        loss is NaN instead.

    Differences from ``optax.losses.softmax_cross_entropy_with_integer_labels``: weights, ignored classes,
    smoothing and reductions; the numbers are otherwise the same. Float16 and bfloat16 logits are computed
    in float32, and the result is rounded back.

    Example:
      >>> import jax.numpy as jnp
      >>> logits = jnp.array([[2.0, 0.0], [0.0, 0.0]])
      >>> print(f"{cross_entropy(logits, jnp.array([0, 1]), label_smoothing=0.1):.4f}")
      0.4600
    """
    check_reduction(reduction)
    message = "label_smoothing must be between 0.0 and 1.0. Got: {}"
    require(label_smoothing, lambda s: 0 <= s <= 1, message)
    logits, target, axis = _classes_last(input, target, axis)
    dtype, logits = logits.dtype, widen(logits)
    shifted = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    log_sum = jnp.log(jnp.exp(shifted).sum(-1, keepdims=True))
    log_p = shifted - log_sum
    weight = _class_weight(weight, log_p)
    smooth = not (isinstance(label_smoothing, int | float) and label_smoothing == 0)

    if logits.shape == target.shape:
        if not jnp.issubdtype(target.dtype, jnp.floating):
            raise TypeError(
                f"Expected floating point type for target with class probabilities, got {target.dtype}"
            )
        if ignore_index >= 0:
            raise ValueError(f"ignore_index is not supported for floating point target: got {ignore_index}")
        q = widen(target)
        if smooth:
            q = q * (1 - label_smoothing) + label_smoothing / logits.shape[-1]
        losses = -(log_p * q if weight is None else log_p * q * weight).sum(-1)
        return reduce(losses, reduction).astype(dtype)

    # Of the class first and normalized then, so that the gradient sums nothing over the classes.
    losses, counts = _nll(shifted, log_sum[..., 0], target, weight, ignore_index, axis)
    if smooth:
        uniform = -(log_p if weight is None else log_p * weight).sum(-1)
        uniform = jnp.where(target == ignore_index, 0, uniform)
        losses = (1 - label_smoothing) * losses + label_smoothing / logits.shape[-1] * uniform
    return _class_mean(losses, counts, reduction).astype(dtype)


def nll_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    axis: int = -1,
) -> jax.Array:
    """Negative log-likelihood, as ``torch.nn.functional.nll_loss``: ``-weight[y] * input[y]``.

    Args:
      input: log-probabilities, ``(..., C)``; with ``axis=1`` PyTorch's ``(N, C, ...)``.
      target: classes, integers in the input's shape without the axis of the classes.
      weight: ``(C,)``, factor of each class.
      ignore_index: a class that contributes nothing. Default -100.
      reduction: as in :func:`cross_entropy`.
      axis: where the classes are. Default -1; PyTorch's is 1.

    Returns:
      Scalar, or the losses in the target's shape.

    Raises:
      IndexError, TypeError, ValueError: as :func:`cross_entropy`.

    Example:
      >>> import jax.numpy as jnp
      >>> print(nll_loss(jnp.array([[-1.0, -2.0], [-3.0, -4.0]]), jnp.array([0, 1])))
      2.5
    """
    check_reduction(reduction)
    log_p, target, axis = _classes_last(input, target, axis)
    losses, counts = _nll(log_p, None, target, _class_weight(weight, log_p), ignore_index, axis)
    return _class_mean(losses, counts, reduction)


def _classes_last(input: Any, target: Any, axis: int) -> tuple[jax.Array, jax.Array, int]:
    input, target = jnp.asarray(input), jnp.asarray(target)
    if not jnp.issubdtype(input.dtype, jnp.floating):
        raise TypeError(f"input must be floating point, got {input.dtype}")
    if input.ndim == 1 and axis == 1:
        axis = 0  # PyTorch's (C,), a single sample
    if not -input.ndim <= axis < input.ndim:
        raise ValueError(f"axis {axis} is out of range for an input of shape {input.shape}")
    if target.shape == input.shape:
        target = jnp.moveaxis(target, axis, -1)
    return jnp.moveaxis(input, axis, -1), target, axis


def _class_weight(weight: Any, log_p: jax.Array) -> jax.Array | None:
    if weight is None:
        return None
    weight, classes = jnp.asarray(weight), log_p.shape[-1]
    if weight.shape != (classes,):
        raise ValueError(
            f"weight tensor should be defined either for all {classes} classes or no classes "
            f"but got weight tensor of shape: {list(weight.shape)}"
        )
    return jnp.broadcast_to(weight.astype(log_p.dtype), log_p.shape)


def _nll(
    scores: jax.Array,
    log_sum: jax.Array | None,
    target: jax.Array,
    weight: jax.Array | None,
    ignore_index: int,
    axis: int,
) -> tuple[jax.Array, jax.Array]:
    """Losses, and what each counts in the mean; both 0 where the target is ignored.

    Log-probabilities are ``scores - log_sum``.
    """
    *outer, classes = scores.shape
    if target.shape == (1,) and not outer:
        target = target[0]  # PyTorch takes a class of shape (1,) for logits of shape (C,)
    _check_target(target, tuple(outer), classes, ignore_index, axis)
    ignored = target == ignore_index
    known = (target >= 0) & (target < classes)
    index = jnp.where(known, target, 0)[..., None]
    counts = jnp.ones_like(scores[..., 0]) if weight is None else _of_class(weight, index)
    counts = jnp.where(ignored, 0, jnp.where(known, counts, jnp.nan))
    log_p = _of_class(scores, index)
    if log_sum is not None:
        log_p = log_p - log_sum
    return jnp.where(ignored, 0, -log_p * counts), counts


@jax.custom_jvp
def _of_class(x: jax.Array, index: jax.Array) -> jax.Array:
    """``x[..., index]``: a gather, whose gradient is a select, which fuses with others, and no scatter."""
    return jnp.take_along_axis(x, index, axis=-1, mode="clip")[..., 0]


@_of_class.defjvp
def _of_class_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    x, index = primals
    chosen = index == jax.lax.broadcasted_iota(index.dtype, x.shape, x.ndim - 1)
    return _of_class(x, index), jnp.where(chosen, tangents[0], 0).sum(-1)


def _class_mean(losses: jax.Array, counts: jax.Array, reduction: str) -> jax.Array:
    return losses.sum() / counts.sum() if reduction == "mean" else reduce(losses, reduction)


def _check_target(
    target: jax.Array, shape: tuple[int, ...], classes: int, ignore_index: int, axis: int
) -> None:
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise TypeError(f"expected target dtype to be an integer, but got {target.dtype}")
    if target.shape != shape:
        if target.ndim == len(shape) == 1:
            raise ValueError(
                f"Expected input batch_size ({shape[0]}) to match target batch_size ({target.shape[0]})."
            )
        raise ValueError(
            f"size mismatch (got input: {shape} with {classes} classes on axis {axis}, "
            f"target: {target.shape}). "
            "Classes are expected on the last axis; pass axis=1 if they are where PyTorch has them."
        )
    if isinstance(target, jax.core.Tracer):
        return
    values = np.asarray(target)
    wrong = values[((values < 0) | (values >= classes)) & (values != ignore_index)]
    if wrong.size:
        raise IndexError(f"Target {wrong.flat[0]} is out of bounds.")
