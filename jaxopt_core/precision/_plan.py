"""The plan for a program: what every operation in it runs in, decided before anything runs.

Types flow forwards, from operands to results, and one question flows backwards: is a difference, a product
or a maximum read only by operations that run in float32? Then it runs in float32 too. An answer can change
types further on, so both passes are repeated until nothing changes; promotions are never taken back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from jax.extend.core import DropVar, Jaxpr, JaxprEqn, Literal, Var

from jaxopt_core.precision import _table as table
from jaxopt_core.precision._call_plans import CALLS, plan_call
from jaxopt_core.precision._casts import shape_of
from jaxopt_core.precision._decide import as_traced, decide
from jaxopt_core.precision._memo import memo
from jaxopt_core.precision._values import Decision, Origin, Plan, Value

__all__ = ["EXEMPT", "arguments", "make_plan"]

EXEMPT = "no_autocast"
_SCOPE = re.compile(rf"(?<!\w){EXEMPT}(?!\w)")


def arguments(variables: Sequence[Var]) -> list[Value]:
    """What arguments and constants from outside are: held as they were traced."""
    return [Value(origin=Origin.DATA if shape_of(var) else Origin.SCALAR) for var in variables]


def make_plan(jaxpr: Jaxpr, values: Sequence[Value], dtype: Any) -> Plan:
    """Plans a program.

    Args:
      jaxpr: the program.
      values: what its arguments are.
      dtype: the low type.
    """
    plans = memo(jaxpr)
    key = "plan", tuple(values), dtype
    if key not in plans:
        plans[key] = _make_plan(jaxpr, values, dtype)
    return plans[key]


def _make_plan(jaxpr: Jaxpr, values: Sequence[Value], dtype: Any) -> Plan:
    constants = arguments(jaxpr.constvars)
    promoted: set[int] = set()
    while True:
        env = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *values), strict=True))
        decisions = []
        for i, eqn in enumerate(jaxpr.eqns):
            read = [_value(atom, env) for atom in eqn.invars]
            decisions.append(_decide(eqn, read, dtype, i in promoted))
            env.update(zip(eqn.outvars, decisions[-1].outs, strict=True))
        more, wide = _backwards(jaxpr, decisions)
        if more <= promoted:
            return Plan(tuple(decisions), tuple(_value(atom, env) for atom in jaxpr.outvars), wide)
        promoted |= more


def _value(atom: Any, env: dict[Any, Value]) -> Value:
    return Value(origin=Origin.CONSTANT) if isinstance(atom, Literal) else env[atom]


def _backwards(jaxpr: Jaxpr, decisions: Sequence[Decision]) -> tuple[set[int], tuple[bool, ...]]:
    """The equations to promote, and of the arguments, which are read in float32 only."""
    narrow: set[Var] = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
    read: set[Var] = set(narrow)
    promoted = set()
    for i, eqn in reversed(list(enumerate(jaxpr.eqns))):
        decision, wide = decisions[i], decisions[i].wide
        outs = [var for var in eqn.outvars if not isinstance(var, DropVar)]
        if (
            eqn.primitive.name in table.PROMOTABLE
            and decision.ran in ("low", "rounded")
            and outs
            and all(var in read and var not in narrow for var in outs)
        ):
            promoted.add(i)
            wide = (True,) * len(eqn.invars)
        for atom, is_wide in zip(eqn.invars, wide, strict=True):
            if not isinstance(atom, Literal):
                read.add(atom)
                if not is_wide:
                    narrow.add(atom)
    return promoted, tuple(var in read and var not in narrow for var in jaxpr.invars)


def _decide(eqn: JaxprEqn, values: Sequence[Value], dtype: Any, promoted: bool) -> Decision:
    if _SCOPE.search(str(eqn.source_info.name_stack)):
        return as_traced(eqn, "no_autocast: as traced")
    if eqn.primitive.name in CALLS:
        return plan_call(eqn, values, lambda jaxpr, inner: make_plan(jaxpr, inner, dtype))
    return decide(eqn, values, dtype, promoted)
