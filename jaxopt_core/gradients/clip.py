"""Gradient clipping, as ``torch.nn.utils.clip_grad_norm_`` and ``clip_grad_value_``."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.experimental import sparse

from jaxopt_core.checks import require_non_negative
from jaxopt_core.gradients.norm import common_dtype, global_norm, present_gradients, times
from jaxopt_core.gradients.raising import raise_if
from jaxopt_core.gradients.shards import AxisName
from jaxopt_core.groups import ByPath
from jaxopt_core.hyperparams import Hyperparams
from jaxopt_core.tree import flatten, is_absent, is_leaf

__all__ = [
    "ClipNormState",
    "ClipValueState",
    "ClippedByNorm",
    "clip_grad_norm",
    "clip_grad_value",
    "clipped_by_norm",
    "clipped_by_value",
    "read_norm",
]


class ClippedByNorm(NamedTuple):
    """What :func:`clipped_by_norm` returns: the gradients, and their norm before clipping."""

    grads: Any
    norm: jax.Array


class ClipNormState(NamedTuple):
    """The state of :func:`clip_grad_norm`.

    Attributes:
      count: int32 scalar, updates made so far.
      hyperparams: ``max_norm``, if it can change.
      norm: the norm of the last gradients before they were clipped; 0 before the first.
    """

    count: jax.Array  # type: ignore[assignment]  # not tuple.count
    hyperparams: dict[str, Any]
    norm: jax.Array


class ClipValueState(NamedTuple):
    """The state of :func:`clip_grad_value`: updates made so far and, if it can change, ``clip_value``."""

    count: jax.Array  # type: ignore[assignment]  # not tuple.count
    hyperparams: dict[str, Any]


def clipped_by_norm(
    grads: Any,
    max_norm: Any,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    *,
    axis_name: AxisName = None,
) -> ClippedByNorm:
    """Scales gradients to a norm of at most ``max_norm``, as ``torch.nn.utils.clip_grad_norm_``.

    Every gradient is multiplied by ``min(1, max_norm / (norm + 1e-6))``, also where that is 1, so a
    non-finite norm spoils all of them, as in PyTorch. ``optax.clip_by_global_norm`` leaves the 1e-6 out.

    Args:
      grads: as for :func:`~jaxopt_core.gradients.global_norm`.
      max_norm: largest norm, a number or scalar array.
      norm_type: p of the p-norm; also ``inf``, 0 and negative. Default 2.
      error_if_nonfinite: raise if the norm is not finite; under ``jit``, when the program runs. Default
        False.
      axis_name: mesh axes over which leaves are sharded inside ``shard_map``, as for ``global_norm``.

    Returns:
      The gradients in their dtypes, ``None`` where there was none, and the norm before clipping.

    Raises:
      RuntimeError: the norm is not finite and ``error_if_nonfinite``. Out of a compiled program it comes
        as ``jax.errors.JaxRuntimeError`` with the same words, and arrays donated to that program are gone.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> grads, norm = jo.gradients.clipped_by_norm({"w": jnp.asarray([3.0, 4.0])}, max_norm=1.0)
      >>> print(float(norm), *[f"{g:.4f}" for g in grads["w"]])
      5.0 0.6000 0.8000
    """
    norm = global_norm(grads, norm_type, axis_name=axis_name)
    if error_if_nonfinite:
        raise_if(
            ~jnp.isfinite(norm),
            RuntimeError,
            f"The total norm of order {float(norm_type)} for gradients from `parameters` is non-finite "
            f"({{}}), so it cannot be clipped. To disable this error and scale the gradients by the "
            f"non-finite norm anyway, set `error_if_nonfinite=False`",
            norm,
        )
    factor = jnp.minimum(jnp.asarray(max_norm, norm.dtype) / (norm + 1e-6), 1)
    return ClippedByNorm(jax.tree.map(lambda g: times(g, factor), grads, is_leaf=is_leaf), norm)


def clipped_by_value(grads: Any, clip_value: Any) -> Any:
    """Clamps every element to ``[-clip_value, clip_value]``, as ``torch.nn.utils.clip_grad_value_``.

    NaN stays NaN.

    Args:
      grads: pytree of real floating-point arrays; ``None`` stays ``None``.
      clip_value: the bound, a number or scalar array, or :func:`~jaxopt_core.by_path` of numbers.

    Returns:
      The gradients, in their dtypes.

    Raises:
      TypeError: a gradient is complex or sparse: PyTorch clamps neither.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> jo.gradients.clipped_by_value({"w": jnp.asarray([0.25, -3.0])}, 0.5)["w"].tolist()
      [0.25, -0.5]
    """
    tx = clip_grad_value(clip_value)
    return tx.update(grads, tx.init(grads))[0]


def clip_grad_norm(
    max_norm: Any,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    *,
    axis_name: AxisName = None,
) -> optax.GradientTransformationExtraArgs:
    """:func:`clipped_by_norm` as a gradient transformation, to chain before an optimizer.

    Args:
      max_norm: largest norm; a number, an array, a schedule or a stateful schedule.
      norm_type: p of the p-norm. Default 2.
      error_if_nonfinite: raise if the norm is not finite. Default False.
      axis_name: mesh axes over which leaves are sharded inside ``shard_map``.

    Returns:
      A transformation whose state holds the norm before clipping; see
      :func:`~jaxopt_core.gradients.read_norm`.

    Raises:
      ValueError: a negative ``max_norm``.
      RuntimeError: as :func:`clipped_by_norm`.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo, optax
      >>> tx = optax.chain(jo.gradients.clip_grad_norm(1.0), jo.sgd(lr=1.0))
      >>> params = jnp.zeros(2)
      >>> updates, state = tx.update(jnp.asarray([3.0, 4.0]), tx.init(params), params)
      >>> print(float(jo.gradients.read_norm(state)), *[f"{u:.4f}" for u in updates])
      5.0 -0.6000 -0.8000
    """
    if isinstance(max_norm, ByPath):
        raise TypeError(
            "max_norm bounds all gradients together; to clip groups of parameters apart, give each its own "
            "clip_grad_norm with optax.partition."
        )
    require_non_negative(max_norm, "Invalid max_norm value: {}")
    hyperparams = Hyperparams(max_norm=max_norm)

    def init(params: optax.Params) -> ClipNormState:
        dtype = common_dtype(present_gradients(params)[1])
        states = hyperparams.init([], dtype)
        return ClipNormState(jnp.zeros([], jnp.int32), states, jnp.zeros([], dtype))

    def update(
        grads: optax.Updates, state: ClipNormState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, ClipNormState]:
        del params
        dtype = state.norm.dtype
        now, after = hyperparams.advance(state.hyperparams, state.count, extra)
        bound = hyperparams.resolve(now, "", dtype, dtype).max_norm
        clipped, norm = clipped_by_norm(grads, bound, norm_type, error_if_nonfinite, axis_name=axis_name)
        return clipped, ClipNormState(optax.safe_increment(state.count), after, norm.astype(dtype))

    return optax.GradientTransformationExtraArgs(init, update)


def clip_grad_value(clip_value: Any) -> optax.GradientTransformationExtraArgs:
    """:func:`clipped_by_value` as a gradient transformation, to chain before an optimizer.

    Args:
      clip_value: the bound; a number, an array, a schedule, a stateful schedule or
        :func:`~jaxopt_core.by_path` of these.

    Returns:
      The transformation.

    Raises:
      ValueError: a negative bound.
      TypeError: a gradient is complex or sparse.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo, optax
      >>> bound = jo.by_path({"embed": 0.1}, default=1.0)
      >>> tx = optax.chain(jo.gradients.clip_grad_value(bound), jo.sgd(lr=1.0))
      >>> params = {"embed": jnp.zeros(1), "out": jnp.zeros(1)}
      >>> updates, _ = tx.update({"embed": jnp.ones(1), "out": -2 * jnp.ones(1)}, tx.init(params), params)
      >>> print(f"{updates['embed'][0]:.1f} {updates['out'][0]:.1f}")
      -0.1 1.0
    """
    require_non_negative(clip_value, "Invalid clip_value value: {}")
    hyperparams = Hyperparams(clip_value=clip_value)

    def init(params: optax.Params) -> ClipValueState:
        leaves = flatten(params)
        dtype = common_dtype(present_gradients(params)[1])
        return ClipValueState(jnp.zeros([], jnp.int32), hyperparams.init(leaves.paths, dtype))

    def update(
        grads: optax.Updates, state: ClipValueState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, ClipValueState]:
        del params
        now, after = hyperparams.advance(state.hyperparams, state.count, extra)

        def clamp(path: str, grad: Any) -> Any:
            if is_absent(grad):
                return grad
            if isinstance(grad, sparse.BCOO) or not jnp.issubdtype(grad.dtype, jnp.floating):
                kind = "sparse" if isinstance(grad, sparse.BCOO) else grad.dtype
                raise TypeError(f"Gradient of {path!r}: clamp is not supported for {kind} gradients.")
            bound = hyperparams.resolve(now, path, grad.dtype, grad.dtype).clip_value
            return jnp.clip(grad, -bound, bound)

        leaves = flatten(grads)
        clamped = [clamp(path, g) for path, g in zip(leaves.paths, leaves.values, strict=True)]
        return leaves.unflatten(clamped), ClipValueState(optax.safe_increment(state.count), after)

    return optax.GradientTransformationExtraArgs(init, update)


def read_norm(opt_state: Any) -> Any:
    """The norm before clipping that :func:`clip_grad_norm` saw last, out of any nesting of states.

    Args:
      opt_state: the state of a chain with :func:`clip_grad_norm` in it.

    Returns:
      Scalar array; if there are several, a dict place in the state -> scalar.

    Raises:
      ValueError: there is none.

    Example:
      See :func:`clip_grad_norm`.
    """
    nodes = jax.tree_util.tree_leaves_with_path(opt_state, is_leaf=lambda n: isinstance(n, ClipNormState))
    found = {
        jax.tree_util.keystr(path, simple=True, separator="/"): node.norm
        for path, node in nodes
        if isinstance(node, ClipNormState)
    }
    if not found:
        raise ValueError("There is no clip_grad_norm in this optimizer's state.")
    return found if len(found) > 1 else next(iter(found.values()))
