"""Runs a program by its plan, which under a trace means: writes the program down again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from jax.extend import source_info_util
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from jaxopt_core.precision._casts import FLOAT32, narrow_constant, spread, to_dtype
from jaxopt_core.precision._rewrite import rewritten
from jaxopt_core.precision._values import Cast, Decision, Plan

__all__ = ["run"]


def run(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any], plan: Plan, dtype: Any) -> list[Any]:
    """Runs a program by its plan.

    Args:
      jaxpr: the program.
      consts: its constants.
      args: its arguments, held as the plan supposes.
      plan: how it runs.
      dtype: the low type.

    Returns:
      The results, held as ``plan.outs`` says.
    """
    env = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))
    last = {
        atom: i for i, eqn in enumerate(jaxpr.eqns) for atom in eqn.invars if not isinstance(atom, Literal)
    }
    kept = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
    for i, (eqn, decision) in enumerate(zip(jaxpr.eqns, plan.decisions, strict=True)):
        with _where_it_was(eqn):
            operands = [
                _cast(eqn, atom, atom.val if isinstance(atom, Literal) else env[atom], how, dtype)
                for atom, how in zip(eqn.invars, decision.casts, strict=True)
            ]
            outs = _apply(eqn, decision, operands, dtype)
        env.update(zip(eqn.outvars, outs, strict=True))
        for atom in eqn.invars:  # eagerly, arrays that nothing reads any more are to be freed
            if not isinstance(atom, Literal) and last[atom] == i and atom not in kept:
                env.pop(atom, None)
    return [atom.val if isinstance(atom, Literal) else env[atom] for atom in jaxpr.outvars]


@contextlib.contextmanager
def _where_it_was(eqn: JaxprEqn) -> Iterator[None]:
    """The source line and named scope of an equation, and its compiler options, for what replaces it."""
    info = eqn.source_info
    names = source_info_util.current_name_stack() + info.name_stack
    with source_info_util.user_context(info.traceback, name_stack=names), eqn.ctx.manager:
        yield


def _cast(eqn: JaxprEqn, atom: Any, x: Any, how: Cast, dtype: Any) -> Any:
    if how is Cast.LOW_CONSTANT:
        return narrow_constant(x, dtype)
    if how is Cast.KEEP or isinstance(atom, Literal):
        return x
    if how is Cast.SPREAD:
        return spread(x, eqn.outvars[0].aval, dtype)
    return to_dtype(x, dtype if how is Cast.LOW else FLOAT32)


def _apply(eqn: JaxprEqn, decision: Decision, operands: list[Any], dtype: Any) -> list[Any]:
    params = eqn.params
    if decision.inner:
        return rewritten(eqn, decision, operands, dtype, run)
    if decision.ran == "low":
        if "preferred_element_type" in params:
            params = params | {"preferred_element_type": dtype}
        elif eqn.primitive.name == "convert_element_type" and params["new_dtype"] == FLOAT32:
            return operands
    out = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(params))
    outs = list(out) if eqn.primitive.multiple_results else [out]
    return [to_dtype(x, dtype) for x in outs] if decision.ran == "rounded" else outs
