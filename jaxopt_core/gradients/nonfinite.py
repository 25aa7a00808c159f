"""Gradients that are not finite: finding them, and leaving them out."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.experimental import sparse

from jaxopt_core.checks import is_count
from jaxopt_core.gradients.advance import advance_if
from jaxopt_core.gradients.norm import global_norm, present_gradients
from jaxopt_core.gradients.raising import raise_if
from jaxopt_core.gradients.shards import AxisName, across_shards, axes_of

__all__ = ["SkipNonfiniteState", "all_finite", "skip_nonfinite"]


class SkipNonfiniteState(NamedTuple):
    """The state of :func:`skip_nonfinite`.

    Attributes:
      consecutive: int32 scalar, how many of the last gradients in a row were not finite.
      total: int32 scalar, how many there were in all.
      inner_state: the state of the optimizer inside.
    """

    consecutive: jax.Array
    total: jax.Array
    inner_state: Any


def all_finite(grads: Any, *, axis_name: AxisName = None, norm_of: Any = None) -> jax.Array:
    """Whether no gradient holds an infinity or NaN.

    Args:
      grads: pytree of floating-point or complex arrays; ``None`` and what Optax masks are left out.
      axis_name: mesh axes over which leaves are sharded inside ``shard_map``, as for
        :func:`~jaxopt_core.gradients.global_norm`. Default: leaves are whole.
      norm_of: gradients that are finite wherever ``grads`` are not too large, whose 2-norm is taken
        anyway, for example by clipping later in the same program. If that norm is finite so are ``grads``,
        and they are not read again. Default None: ``grads`` themselves.

    Returns:
      Scalar bool.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> bool(jo.gradients.all_finite({"w": jnp.ones(2), "b": jnp.asarray([1.0, jnp.nan])}))
      False
    """
    paths, leaves = present_gradients(grads)
    data = [leaf.data if isinstance(leaf, sparse.BCOO) else leaf for leaf in leaves]
    full = [i for i, leaf in enumerate(data) if leaf.size > 0]
    data, axes = [data[i] for i in full], [axes_of(axis_name, paths[i]) for i in full]
    if not data:
        return jnp.asarray(True)

    def one_by_one(leaves: Any) -> jax.Array:
        bad = [jnp.any(~jnp.isfinite(leaf)).astype(jnp.int32) for leaf in leaves]
        return jnp.stack(across_shards(bad, leaves, axes, jax.lax.pmax)).max() == 0

    if norm_of is None:
        return one_by_one(data)
    # A sum of squares overflows long before the gradients do: then look at them.
    is_certain = jnp.isfinite(global_norm(norm_of, axis_name=axis_name))
    if not isinstance(is_certain, jax.core.Tracer):
        return is_certain or one_by_one(data)
    return jax.lax.cond(is_certain, lambda _: is_certain, one_by_one, data)


def skip_nonfinite(
    tx: optax.GradientTransformation, max_consecutive: int, *, axis_name: AxisName = None
) -> optax.GradientTransformationExtraArgs:
    """Leaves out updates whose gradients hold an infinity or NaN, and gives up after too many in a row.

    A skipped update is zero and leaves the optimizer's state, its count and schedules included, as it was.
    ``optax.apply_if_finite`` *applies* the bad update once the limit is reached, which ends the run with
    parameters of NaN; this raises.

    Args:
      tx: the optimizer, or a chain.
      max_consecutive: how many bad gradients in a row are left out; the next one raises. With 0 the first
        raises.
      axis_name: mesh axes over which leaves are sharded inside ``shard_map``. Default: leaves are whole.

    Returns:
      A transformation with a :class:`SkipNonfiniteState`.

    Raises:
      ValueError: ``max_consecutive`` is not an integer of at least 0.
      FloatingPointError: the limit is passed. Out of a compiled program it comes as
        ``jax.errors.JaxRuntimeError`` with the same words, and arrays donated to that program are gone.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> tx = jo.gradients.skip_nonfinite(jo.sgd(lr=1.0), max_consecutive=5)
      >>> params = jnp.ones(2)
      >>> updates, state = tx.update(jnp.asarray([jnp.inf, 1.0]), tx.init(params), params)
      >>> updates.tolist(), int(state.consecutive), int(state.inner_state.count)
      ([0.0, 0.0], 1, 0)
    """
    if not is_count(max_consecutive):
        raise ValueError(f"max_consecutive must be an integer of at least 0; got {max_consecutive!r}.")
    inner = optax.with_extra_args_support(tx)

    def init(params: optax.Params) -> SkipNonfiniteState:
        return SkipNonfiniteState(jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32), inner.init(params))

    def update(
        grads: optax.Updates, state: SkipNonfiniteState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, SkipNonfiniteState]:
        finite = all_finite(grads, axis_name=axis_name, norm_of=grads)
        consecutive = jnp.where(finite, 0, optax.safe_increment(state.consecutive))
        total = jnp.where(finite, state.total, optax.safe_increment(state.total))
        raise_if(
            consecutive > max_consecutive,
            FloatingPointError,
            f"The gradients were not finite {{}} times in a row; at most {max_consecutive} are left out. The "
            f"parameters are those of before. A lower learning rate, clip_grad_norm or a smaller loss scale "
            f"may help; jax.config.update('jax_debug_nans', True) finds where the first NaN arises.",
            consecutive,
        )
        updates, inner_state = advance_if(
            finite, lambda g, s, p: inner.update(g, s, p, **extra), grads, state.inner_state, params
        )
        return updates, SkipNonfiniteState(consecutive, total, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
