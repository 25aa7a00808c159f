"""Gradient accumulation: several backward passes, one step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import sparse

from jaxopt_core.checks import is_count
from jaxopt_core.gradients.advance import count_as
from jaxopt_core.leaf import zeros_like
from jaxopt_core.tree import Leaves, flatten, is_absent

__all__ = ["Accumulate", "AccumulateState", "accumulate"]


class AccumulateState(NamedTuple):
    """The state of :func:`accumulate`.

    Attributes:
      mini_step: int32 scalar, gradients in the group so far; 0 after a step.
      gradient_step: int32 scalar, steps of the optimizer inside.
      accumulated: their sum, a tree like the parameters; what it holds while ``mini_step`` is 0 is of no
        account.
      has_gradient: bool, one a parameter: whether it had a gradient in this group.
      inner_state: the state of the optimizer inside.
    """

    mini_step: jax.Array
    gradient_step: jax.Array
    accumulated: Any
    has_gradient: jax.Array
    inner_state: Any


class Accumulate(optax.GradientTransformationExtraArgs):
    """What :func:`accumulate` returns: a gradient transformation with a :attr:`flush`.

    Attributes:
      flush: ``(state, params, **extra) -> (updates, state)``: the step of a group that is not full. With
        no gradient since the last step, the updates are zeros and the state is as it was.
    """

    flush: Callable[..., tuple[optax.Updates, AccumulateState]]


def accumulate(
    tx: optax.GradientTransformation,
    steps: int | Callable[[jax.Array], Any],
    reduction: Literal["sum", "mean"] = "sum",
) -> Accumulate:
    """Adds up the gradients of ``steps`` updates and gives the optimizer their sum, once.

    This is PyTorch's loop that calls ``loss.backward()`` every time and ``optimizer.step()`` every
    ``steps`` times: PyTorch adds, so divide the loss by ``steps``, or choose ``"mean"``. Between the steps
    the updates are zeros, so the loop applies them always and needs no ``if``; the optimizer inside, its
    schedules included, does not run and does not count. Only its memory of one gradient tree is added.

    Chain what PyTorch does between the last ``backward`` and ``step``, such as unscaling and clipping, with
    the optimizer inside: ``accumulate(optax.chain(clip_grad_norm(1.0), adamw()), 4)``.

    A group also ends with an update that is told so, ``tx.update(grads, state, params, last=True)``, where
    ``last`` may be traced; and ``tx.flush(state, params)`` makes the step of what is left after the loop.

    Args:
      tx: the optimizer, or a chain.
      steps: gradients in a group, at least 1; or a function of the steps made so far, for batches that grow.
      reduction: ``"sum"`` or ``"mean"``, which divides by the gradients that there are, also in a group that
        ends early. Default ``"sum"``.

    Returns:
      A transformation with an :class:`AccumulateState`. A parameter whose gradient is ``None`` in every
      update of a group is skipped whole, as PyTorch does; if it is not ``None`` in some, those are added.
      The sum has the dtype of the parameters. Extra arguments go on to the optimizer, which sees only those
      of the last update of a group.

    Raises:
      ValueError: ``steps`` is no integer of at least 1, or the reduction is unknown.
      TypeError: a gradient is sparse.

    Differences from ``optax.MultiSteps``, which averages, runs the optimizer at every update and throws the
    result away, cannot end a group early and always sums in float32.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> tx = jo.gradients.accumulate(jo.sgd(lr=1.0), steps=2)
      >>> params = jnp.zeros(1)
      >>> state = tx.init(params)
      >>> for grad in (1.0, 2.0, 4.0):
      ...     updates, state = tx.update(jnp.full(1, grad), state, params)
      ...     print(updates)
      [0.]
      [-3.]
      [0.]
      >>> updates, state = tx.flush(state, params)
      >>> print(updates)
      [-4.]
    """
    if not callable(steps) and (not is_count(steps) or steps < 1):
        raise ValueError(f"steps must be an integer of at least 1; got {steps!r}.")
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be 'sum' or 'mean'; got {reduction!r}.")
    inner = optax.with_extra_args_support(tx)

    def init(params: optax.Params) -> AccumulateState:
        leaves = flatten(params)
        zeros = [p if is_absent(p) else zeros_like(p) for p in leaves.values]
        return AccumulateState(
            mini_step=jnp.zeros([], jnp.int32),
            gradient_step=jnp.zeros([], jnp.int32),
            accumulated=leaves.unflatten(zeros),
            has_gradient=jnp.zeros([len(zeros)], bool),
            inner_state=inner.init(params),
        )

    def step(
        leaves: Leaves,
        sums: list[Any],
        count: jax.Array,
        state: AccumulateState,
        uncertain: set[int],
        extra: Any,
    ) -> tuple[list[Any], Any]:
        """The optimizer's step; ``uncertain`` are the parameters that may have had no gradient."""
        grads = [g if is_absent(g) else _divided(g, count) for g in sums] if reduction == "mean" else sums
        updates, after = inner.update(
            leaves.unflatten(grads), state.inner_state, leaves.unflatten(leaves.values), **extra
        )
        changes = leaves.treedef.flatten_up_to(updates)
        if not uncertain:
            return changes, after

        def keep(i: int, new: Any, old: Any) -> Any:
            if i not in uncertain or is_absent(new):
                return new
            return jnp.where(state.has_gradient[i], new, old)

        def is_like_params(node: Any) -> bool:
            structure: Any = jax.tree.structure(node, is_leaf=is_absent)
            return bool(structure == leaves.treedef)

        def kept(new: Any, old: Any) -> Any:
            if not is_like_params(new):
                return new
            pairs = zip(*[jax.tree.leaves(tree, is_leaf=is_absent) for tree in (new, old)], strict=True)
            return leaves.unflatten([keep(i, *pair) for i, pair in enumerate(pairs)])

        changes = [keep(i, u, u if is_absent(u) else jnp.zeros_like(u)) for i, u in enumerate(changes)]
        return changes, jax.tree.map(kept, after, state.inner_state, is_leaf=is_like_params)

    def run(
        leaves: Leaves, gradients: list[Any] | None, state: AccumulateState, is_last: Any, extra: Any
    ) -> tuple[optax.Updates, AccumulateState]:
        is_first = state.mini_step == 0
        total = leaves.treedef.flatten_up_to(state.accumulated)
        absent = [gradients is not None and is_absent(g) for g in gradients or total]
        present = np.asarray([gradients is not None and not none for none in absent])
        state = state._replace(has_gradient=jnp.where(is_first, False, state.has_gradient) | present)
        uncertain = (
            set(range(len(total))) if gradients is None else {i for i, none in enumerate(absent) if none}
        )
        uncertain -= {i for i, p in enumerate(leaves.values) if is_absent(p)}
        count = state.mini_step + int(gradients is not None)

        pairs = zip(total, gradients or [None] * len(total), strict=True)
        sums = [_added(old, g, is_first) for old, g in pairs]

        def make_step(sums: list[Any], inner_state: Any, params: list[Any]) -> Any:
            now = state._replace(inner_state=inner_state)
            return step(leaves._replace(values=params), sums, count, now, uncertain, extra)

        def wait(sums: list[Any], inner_state: Any, params: list[Any]) -> Any:
            del params
            return [s if is_absent(s) else jnp.zeros_like(s) for s in sums], inner_state

        # A cond and not a select: most updates then neither read nor write the optimizer's state.
        branch: Callable[..., Any]
        if isinstance(is_last, jax.core.Tracer):
            branch = functools.partial(jax.lax.cond, is_last, make_step, wait)
        else:
            branch = make_step if is_last else wait
        changes, inner_state = branch(sums, state.inner_state, leaves.values)
        return leaves.unflatten(changes), AccumulateState(
            mini_step=jnp.where(is_last, 0, count),
            gradient_step=jnp.where(is_last, optax.safe_increment(state.gradient_step), state.gradient_step),
            accumulated=leaves.unflatten(sums),
            has_gradient=state.has_gradient,
            inner_state=inner_state,
        )

    def update(
        grads: optax.Updates,
        state: AccumulateState,
        params: optax.Params | None = None,
        *,
        last: Any = False,
        **extra: Any,
    ) -> tuple[optax.Updates, AccumulateState]:
        if params is None:
            raise ValueError("accumulate needs the parameters: call tx.update(grads, state, params).")
        leaves = flatten(params)
        gradients = leaves.match(grads)
        for path, gradient in zip(leaves.paths, gradients, strict=True):
            if isinstance(gradient, sparse.BCOO):
                raise TypeError(f"Gradient of {path!r} is sparse; accumulate adds dense gradients.")
        gradients = [p if is_absent(p) else g for p, g in zip(leaves.values, gradients, strict=True)]
        if any(is_absent(g) and not is_absent(p) for p, g in zip(leaves.values, gradients, strict=True)):
            # What the optimizer would keep for parameters at different steps must be there beforehand.
            _, wanted = jax.eval_shape(
                lambda g, s, p: inner.update(g, s, p, **extra), grads, state.inner_state, params
            )
            state = state._replace(inner_state=count_as(wanted, state.inner_state))
        size = steps(state.gradient_step) if callable(steps) else steps
        is_last = (state.mini_step + 1 >= size) | jnp.asarray(last, bool)
        return run(leaves, gradients, state, is_last, extra)

    def flush(
        state: AccumulateState, params: optax.Params, **extra: Any
    ) -> tuple[optax.Updates, AccumulateState]:
        leaves = flatten(params)
        return run(leaves, None, state, state.mini_step > 0, extra)

    result = Accumulate(init, update)
    result.flush = flush
    return result


def _added(total: Any, grad: Any, is_first: Any) -> Any:
    if is_absent(total):
        return total
    if is_absent(grad):
        return jnp.where(is_first, np.zeros((), total.dtype), total)
    return jnp.where(is_first, grad, total + grad)


def _divided(grad: jax.Array, count: jax.Array) -> jax.Array:
    number = count.astype(jnp.finfo(grad.dtype).dtype)
    return grad / number.astype(grad.dtype)
