"""The decision for an operation that holds programs: functions, loops, branches, custom rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from jaxopt_core.precision._casts import is_float32
from jaxopt_core.precision._values import Cast, Decision, Inner, Origin, Plan, Value

__all__ = ["CALLS", "opened", "plan_call"]

Planner = Callable[[Jaxpr, Sequence[Value]], Plan]

# Primitives are matched by name, which has been steadier between releases than where they are defined.
_BODIES = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "shard_map": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
CALLS = frozenset({*_BODIES, "scan", "while", "cond"})
"""The primitives that are rewritten inside. Any other that holds a program runs as it was traced."""


def opened(jaxpr: ClosedJaxpr | Jaxpr) -> Jaxpr:
    """The program of a parameter that may come with its constants."""
    return jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr


def plan_call(eqn: JaxprEqn, values: Sequence[Value], planner: Planner) -> Decision:
    """The decision for one operation of ``CALLS``."""
    if eqn.primitive.name in _BODIES:
        inner = _inner(eqn.params[_BODIES[eqn.primitive.name]], values, planner)
        return _decision(eqn, inner.outs, inner.plan.wide, inner)
    return {"scan": _scan, "while": _while, "cond": _cond}[eqn.primitive.name](eqn, values, planner)


def _scan(eqn: JaxprEqn, values: Sequence[Value], planner: Planner) -> Decision:
    first, end = eqn.params["num_consts"], eqn.params["num_consts"] + eqn.params["num_carry"]
    body = opened(eqn.params["jaxpr"])
    carry = [Value()] * (end - first)
    # The gradient of what all iterations share is a sum over them, so it is shared in float32 too.
    shared = [value._replace(low=False) for value in values[:first]]
    inner = _inner(body, [*shared, *carry, *map(_element, values[end:])], planner)
    outs = *carry, *map(_element, inner.plan.outs[len(carry) :])
    wide = *[True] * end, *inner.plan.wide[end:]
    return _pinned(_decision(eqn, outs, wide, inner._replace(outs=outs)), eqn, range(end))


def _while(eqn: JaxprEqn, values: Sequence[Value], planner: Planner) -> Decision:
    first = eqn.params["cond_nconsts"]
    end = first + eqn.params["body_nconsts"]
    carry = [Value()] * (len(values) - end)
    condition = _inner(eqn.params["cond_jaxpr"], [*values[:first], *carry], planner)
    body = _inner(eqn.params["body_jaxpr"], [*values[first:end], *carry], planner)
    wide = *condition.plan.wide[:first], *body.plan.wide[: end - first], *[True] * len(carry)
    decision = _decision(eqn, carry, wide, condition, body._replace(outs=tuple(carry)))
    return _pinned(decision, eqn, range(end, len(values)))


def _cond(eqn: JaxprEqn, values: Sequence[Value], planner: Planner) -> Decision:
    branches = [_inner(branch, values[1:], planner) for branch in eqn.params["branches"]]
    outs = tuple(map(_joined, zip(*[branch.plan.outs for branch in branches], strict=True)))
    wide = [all(each) for each in zip(*[branch.plan.wide for branch in branches], strict=True)]
    return _decision(eqn, outs, (False, *wide), *[branch._replace(outs=outs) for branch in branches])


def _joined(outs: Sequence[Value]) -> Value:
    """What a result is that may come out of any branch: as in ``_decide``, a constant has no say."""
    origin = min(value.origin for value in outs)
    return Value(all(value.low for value in outs if value.origin is origin), origin)


def _element(value: Value) -> Value:
    return Value(value.low, Origin.CONSTANT if value.origin is Origin.CONSTANT else Origin.DATA)


def _inner(jaxpr: ClosedJaxpr | Jaxpr, values: Sequence[Value], planner: Planner) -> Inner:
    plan = planner(opened(jaxpr), values)
    return Inner(opened(jaxpr), tuple(values), plan, plan.outs)


def _decision(eqn: JaxprEqn, outs: Sequence[Value], wide: Sequence[bool], *inner: Inner) -> Decision:
    keep = (Cast.KEEP,) * len(eqn.invars)
    return Decision(keep, tuple(outs), "", "", wide=tuple(wide), inner=inner)


def _pinned(decision: Decision, eqn: JaxprEqn, where: range) -> Decision:
    """Carried values are float32, in and out: an accumulator must not be rounded at every step."""
    casts = list(decision.casts)
    for i in where:
        if is_float32(eqn.invars[i].aval):
            casts[i] = Cast.FLOAT32
    return decision._replace(casts=tuple(casts))
