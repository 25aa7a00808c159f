"""Connectionist temporal classification."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_core.losses.reduction import Reduction, check_reduction, reduce, widen

__all__ = ["ctc_loss"]

# Logarithm of "impossible". Finite, lest differences of infinities make the gradient NaN; far below any sum
# of log-probabilities, yet far from overflow after a million frames.
_IMPOSSIBLE = -1e30


def ctc_loss(
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    *,
    reduction: Reduction = "mean",
    zero_infinity: bool = False,
) -> jax.Array:
    """Connectionist temporal classification, as ``torch.nn.functional.ctc_loss``.

    The negative logarithm of the total probability of all alignments: sequences of one class or the blank
    per frame that become the target once repetitions are merged and blanks dropped.

    Source: Graves, Fernandez, Gomez and Schmidhuber, "Connectionist Temporal Classification", 2006,
    equations 5 to 8, in logarithms.

    Args:
      log_probs: ``(T, N, C)`` or, for one sequence, ``(T, C)``: log-probabilities, as ``log_softmax`` gives.
      targets: classes, ``(N, S)`` padded with anything, ``(sum(target_lengths),)`` joined end to end, or,
        for one sequence, ``(S,)``.
      input_lengths: ``(N,)`` frames of each sequence, at most ``T``; a scalar or ``(1,)`` for one.
      target_lengths: ``(N,)`` classes of each target, at most ``S``.
      blank: class of the blank. Default 0.
      reduction: ``"mean"`` (default) divides each loss by its target's length (at least 1), then
        averages; ``"sum"``; ``"none"``.
      zero_infinity: a target that does not fit into its frames has an infinite loss and a gradient that is
        not finite; if True, both are 0. Default False.

    Returns:
      Scalar, or ``(N,)`` losses in nats.

    Raises:
      TypeError: targets or lengths that are not integers.
      ValueError: shapes or lengths that do not fit, or a blank that is no class. Inside ``jit`` lengths
        cannot be read: the caller keeps them in range.

    The gradient with respect to ``log_probs`` is PyTorch's: it adds ``exp(log_probs)``, so that it is the
    gradient with respect to the logits before ``log_softmax``. Through ``log_softmax`` nothing changes.

    Differences from ``optax.losses.ctc_loss``: that one takes logits and paddings, and stands in -1e5 for
    log 0, which confident wrong predictions pass; it makes NaN of log-probabilities of ``-inf``, and a large
    finite loss of a target that does not fit. Hence this has its own recursion.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> log_probs = jax.nn.log_softmax(jnp.zeros((4, 1, 3)))
      >>> print(f"{ctc_loss(log_probs, jnp.array([[1, 2]]), (4,), (2,), reduction='sum'):.4f}")
      1.6864
    """
    check_reduction(reduction)
    log_probs, targets = jnp.asarray(log_probs), jnp.asarray(targets)
    lengths, sizes = _lengths("input_lengths", input_lengths), _lengths("target_lengths", target_lengths)
    one = log_probs.ndim == 2
    if one:
        log_probs, targets = log_probs[:, None], targets[None] if targets.ndim == 1 else targets
        lengths, sizes = lengths.reshape(-1), sizes.reshape(-1)
    _check(log_probs, targets, lengths, sizes, blank)
    targets = targets.astype(jnp.int32)
    if targets.ndim == 1:
        targets = _padded(targets, sizes)

    dtype = log_probs.dtype
    inside = jnp.arange(len(log_probs), dtype=jnp.int32)[:, None] < lengths[None]  # (T, N)
    log_probs = jnp.where(inside[..., None], widen(log_probs), 0)
    losses = -_log_likelihood(jnp.maximum(log_probs, _IMPOSSIBLE), targets, inside, sizes, blank)

    # Adds exp(log_probs) to the gradient, and nothing to the value.
    total = jnp.where(inside[..., None], jnp.exp(log_probs), 0).sum((0, 2))
    losses = losses + (total - jax.lax.stop_gradient(total))
    # A factor rather than a choice, so that the gradient is 0 or not finite with the loss.
    infinite = losses > -_IMPOSSIBLE / 10
    losses = losses * jnp.where(infinite, 0 if zero_infinity else jnp.inf, 1).astype(losses.dtype)

    if reduction == "mean":
        losses = losses / jnp.maximum(sizes, 1).astype(losses.dtype)
    if one:
        losses = losses[0]
    return reduce(losses, reduction).astype(dtype)


def _log_likelihood(
    log_probs: jax.Array, targets: jax.Array, inside: jax.Array, sizes: jax.Array, blank: int
) -> jax.Array:
    """The forward recursion over the target with blanks around each class: ``(N,)``."""
    batch, longest = targets.shape
    states = jnp.full((batch, 2 * longest + 1), blank, targets.dtype).at[:, 1::2].set(targets)
    # Padding may hold anything; it lies behind the last state that is read.
    states = jnp.clip(states, 0, log_probs.shape[-1] - 1)
    emitted = jnp.take_along_axis(log_probs, states[None], axis=2)  # (T, N, 2S + 1)
    # A class may follow another without a blank between them, unless it is the same.
    skips = jnp.pad(states[:, 2:] != states[:, :-2], ((0, 0), (2, 0)))

    def after(alpha: jax.Array, states: int) -> jax.Array:
        kept = alpha[:, : alpha.shape[1] - states]
        return jnp.pad(kept, ((0, 0), (alpha.shape[1] - kept.shape[1], 0)), constant_values=_IMPOSSIBLE)

    def frame(alpha: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        emit, inside = at
        from_two = jnp.where(skips, after(alpha, 2), _IMPOSSIBLE)
        new = emit + _log_sum(alpha, after(alpha, 1), from_two)
        return jnp.where(inside[:, None], new, alpha), None

    start = jnp.full(states.shape, _IMPOSSIBLE, log_probs.dtype).at[:, 0].set(0)
    alpha, _ = jax.lax.scan(frame, start, (emitted, inside))
    last = jnp.take_along_axis(alpha, 2 * sizes[:, None], axis=1)[:, 0]
    before = jnp.take_along_axis(alpha, jnp.maximum(2 * sizes - 1, 0)[:, None], axis=1)[:, 0]
    return _log_sum(last, jnp.where(sizes > 0, before, _IMPOSSIBLE))


def _log_sum(*terms: jax.Array) -> jax.Array:
    stacked = jnp.stack(terms)
    largest = jax.lax.stop_gradient(stacked.max(0))
    return largest + jnp.log(jnp.exp(stacked - largest[None]).sum(0))


def _lengths(name: str, value: Any) -> jax.Array:
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} must be integral, got {array.dtype}")
    return array.astype(jnp.int32)


def _padded(targets: jax.Array, sizes: jax.Array) -> jax.Array:
    longest = len(targets) if isinstance(sizes, jax.core.Tracer) else int(max(sizes, default=0))
    index = (jnp.cumsum(sizes) - sizes)[:, None] + jnp.arange(longest, dtype=jnp.int32)[None]
    return jnp.take(targets, index, mode="fill", fill_value=0)


def _check(
    log_probs: jax.Array, targets: jax.Array, lengths: jax.Array, sizes: jax.Array, blank: int
) -> None:
    if log_probs.ndim != 3:
        raise ValueError(f"log_probs: expected (T, N, C) or (T, C), got {log_probs.ndim} dimensions")
    frames, batch, classes = log_probs.shape
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise TypeError(f"targets must be integral, got {targets.dtype}")
    if not 0 <= blank < classes:
        raise ValueError(f"blank must be in label range: got {blank}, expected 0 to {classes - 1}")
    for name, value in {"input_lengths": lengths, "target_lengths": sizes}.items():
        if value.shape != (batch,):
            raise ValueError(f"{name} must be of size batch_size ({batch}), got shape {value.shape}")
    if targets.ndim not in (1, 2) or (targets.ndim == 2 and len(targets) != batch):
        raise ValueError(f"targets: expected ({batch}, S) or (sum(target_lengths),), got {targets.shape}")
    if isinstance(sizes, jax.core.Tracer) or isinstance(lengths, jax.core.Tracer):
        return
    limits = {"input_lengths": (lengths, frames), "target_lengths": (sizes, targets.shape[-1])}
    for name, (value, most) in limits.items():
        values = np.asarray(value)
        if values.size and values.min() < 0:
            raise ValueError(f"Expected {name} to have value at least 0, but got value {values.min()}")
        if values.size and values.max() > most:
            raise ValueError(f"Expected {name} to have value at most {most}, but got value {values.max()}")
    if targets.ndim == 1 and np.asarray(sizes).sum() != len(targets):
        total = np.asarray(sizes).sum()
        raise ValueError(f"Expected targets to have size {total} at dimension 0, but got size {len(targets)}")
