"""Making an optimizer's step only where a condition holds, while a compiled program runs.

Neither obvious way is fast. ``lax.cond`` around the update returns the updates as a buffer of their own,
written and read once more. Selecting between new and old state *after* the update has the parameters'
kernel compute the new slots a second time, from the old ones, which must be copied before they are
overwritten. So each new slot is selected where it is computed, and what follows in the update reads the
selected one: where the condition holds they are equal, and where it does not the result is thrown away.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

from jaxopt_core.leafwise import OptimizerState
from jaxopt_core.tree import is_absent, is_leaf

__all__ = ["advance_if", "count_as"]

Update = Callable[[Any, Any, Any], tuple[Any, Any]]


def advance_if(condition: Any, update: Update, grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
    """``update(grads, state, params)`` where ``condition`` holds; zeros and the old state where it does not.

    Args:
      condition: scalar bool; what the update computes where it does not hold is of no account.
      update: of a gradient transformation, extra arguments bound.
      grads: the gradients.
      state: the transformation's state. If the update makes the parameters count their steps apart, as it
        does when a gradient is ``None``, the state gets such counts in either case.
      params: the parameters.

    Returns:
      Updates and state.
    """
    if not isinstance(condition, jax.core.Tracer) and condition:
        return update(grads, state, params)
    closed, (like_updates, like_state) = jax.make_jaxpr(update, return_shape=True)(grads, state, params)
    state = count_as(like_state, state)
    arguments = jax.tree.leaves((grads, state, params))
    if len(arguments) != len(closed.jaxpr.invars):  # the state got counts: trace what is done with those
        closed = jax.make_jaxpr(update)(grads, state, params)
    treedef = jax.tree.structure((like_updates, like_state))
    old = jax.tree.leaves(state)
    first = len(closed.jaxpr.outvars) - len(old)
    outvars = closed.jaxpr.outvars[first:]
    once = _once(outvars)
    kept = {
        var: value
        for var, value in zip(outvars, old, strict=True)
        if isinstance(var, Var) and var in once and _alike(var.aval, value)
    }
    results = _evaluate(closed, arguments, kept, condition)
    new = [
        n if _is_in(var, kept) else jnp.where(condition, n, jnp.asarray(o, n.dtype))
        for var, n, o in zip(outvars, results[first:], old, strict=True)
    ]
    updates, after = jax.tree.unflatten(treedef, [*results[:first], *new])
    return jax.tree.map(lambda u: _or_zero(condition, u), updates, is_leaf=is_leaf), after


def count_as(wanted: Any, state: Any) -> Any:
    """The state with a step count for every parameter wherever ``wanted`` has that."""

    def is_state(node: Any) -> bool:
        return isinstance(node, OptimizerState)

    def counted(like: Any, node: Any) -> Any:
        if not is_state(like) or "step" not in like.slots or "step" in node.slots:
            return node
        steps = jax.tree.map(lambda _: jnp.copy(node.count), like.slots["step"])
        return node._replace(slots=node.slots | {"step": steps})

    return jax.tree.map(counted, wanted, state, is_leaf=is_state)


def _evaluate(
    closed: ClosedJaxpr, arguments: Sequence[Any], kept: dict[Var, Any], condition: Any
) -> list[Any]:
    """Evaluates a jaxpr in which the variables in ``kept`` hold these values unless ``condition``."""
    jaxpr: Jaxpr = closed.jaxpr
    values: dict[Var, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def look(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    def read(atom: Any) -> Any:
        value = look(atom)
        return value.computed() if isinstance(value, _Product) else value

    for eqn in jaxpr.eqns:
        ours = {var for var in eqn.outvars if var in kept}
        if ours and eqn.primitive.name in ("jit", "pjit"):
            inner = eqn.params["jaxpr"]
            pairs = [(i, o) for i, o in zip(inner.jaxpr.outvars, eqn.outvars, strict=True) if o in ours]
            once = _once(inner.jaxpr.outvars)
            inside = {i: kept[o] for i, o in pairs if isinstance(i, Var) and i in once}
            outputs = _evaluate(inner, [look(atom) for atom in eqn.invars], inside, condition)
            ours -= {o for i, o in pairs if _is_in(i, inside)}
        elif not ours and (factors := _scaling(eqn)):
            outputs = [_Product(look(factors[0]), read(factors[1]), condition, itertools.count(2))]
        else:
            operands = {v: read(v) for v in eqn.invars if isinstance(v, Var)}
            alone = jaxpr.replace(
                constvars=[], invars=list(operands), outvars=eqn.outvars, eqns=[eqn], effects=eqn.effects
            )
            outputs = jax.core.eval_jaxpr(alone, (), *operands.values())
        for var, value in zip(eqn.outvars, outputs, strict=True):
            values[var] = jnp.where(condition, value, kept[var]) if var in ours else value
    # An argument that is passed on is no result of an equation.
    passed = {var: jnp.where(condition, values[var], kept[var]) for var in jaxpr.invars if var in kept}
    values.update(passed)
    return [read(atom) for atom in jaxpr.outvars]


class _Product(NamedTuple):
    """An array times a scalar, computed anew wherever it is read.

    Unscaled or clipped gradients are read several times. XLA computes such a product once and keeps it in
    memory, if it cannot tell that doing it again in each kernel that reads it costs nothing.
    """

    array: Any
    scalar: jax.Array
    condition: jax.Array
    numbers: Iterator[int]

    def computed(self) -> jax.Array:
        array = self.array.computed() if isinstance(self.array, _Product) else self.array
        # Another number where nothing matters, lest the compiler finds the same product twice.
        other = np.asarray(next(self.numbers), self.scalar.dtype)
        return array * jnp.where(self.condition, self.scalar, other)


def _scaling(eqn: Any) -> tuple[Any, Any] | None:
    """The array and the scalar, if an equation multiplies one by the other."""
    if eqn.primitive.name != "mul" or not all(isinstance(atom, Var) for atom in eqn.invars):
        return None
    one, other = sorted(eqn.invars, key=lambda atom: -atom.aval.ndim)
    return (one, other) if one.aval.ndim > 0 and other.aval.ndim == 0 else None


def _once(outvars: Sequence[Any]) -> set[Any]:
    """The variables that are one result only, and so have one old value."""
    counts = collections.Counter(atom for atom in outvars if isinstance(atom, Var))
    return {var for var, count in counts.items() if count == 1}


def _is_in(atom: Any, kept: dict[Var, Any]) -> bool:
    return isinstance(atom, Var) and atom in kept


def _alike(aval: Any, value: Any) -> bool:
    return aval.shape == np.shape(value) and aval.dtype == value.dtype


def _or_zero(condition: Any, update: Any) -> Any:
    if is_absent(update):
        return update
    if isinstance(update, sparse.BCOO):
        return sparse.BCOO((_or_zero(condition, update.data), update.indices), shape=update.shape)
    return jnp.where(condition, update, np.zeros((), update.dtype))
