"""Functions with a derivative rule of their own, rebuilt with that rule.

Inlining them would differentiate what they compute, where clipped or straight-through gradients were asked
for. Rule and function are rewritten alike, so that products in a rule run in the low type too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero
from jax.extend.core import JaxprEqn

from jaxopt_core.precision._casts import FLOAT32, give, is_float32, to_dtype
from jaxopt_core.precision._plan import make_plan
from jaxopt_core.precision._values import Inner, Value

__all__ = ["custom_jvp_call", "custom_vjp_call"]

Run = Callable[..., list[Any]]


def custom_jvp_call(eqn: JaxprEqn, inner: Inner, operands: list[Any], dtype: Any, run: Run) -> list[Any]:
    """A function with a forward-mode rule."""
    params = eqn.params

    @jax.custom_jvp
    def function(*args: Any) -> list[Any]:
        return run(inner.jaxpr, params["call_jaxpr"].consts, args, inner.plan, dtype)

    def rule(primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        # The rule knows nothing of closed-over values, which come first; JAX drops their tangents too.
        primals, tangents = primals[params["num_consts"] :], tangents[params["num_consts"] :]
        values = inner.values[params["num_consts"] :]
        zeros = [type(tangent) is SymbolicZero for tangent in tangents]
        jaxpr, consts, out_zeros = params["jvp_jaxpr_fun"].call_wrapped(*zeros)
        moving = [i for i, zero in enumerate(zeros) if not zero]
        plan = make_plan(jaxpr, (*values, *[_same_type(values[i]) for i in moving]), dtype)
        outs = run(jaxpr, consts, (*primals, *[tangents[i] for i in moving]), plan, dtype)
        held = inner.plan.outs
        wanted = (*held, *[value for value, zero in zip(held, out_zeros, strict=True) if not zero])
        outs = give(outs, plan.outs, wanted, dtype)
        primals_out, rest = outs[: len(out_zeros)], iter(outs[len(out_zeros) :])
        tangents_out = [
            _zero_tangent(primal) if zero else next(rest)
            for primal, zero in zip(primals_out, out_zeros, strict=True)
        ]
        return primals_out, tangents_out

    function.defjvp(rule, symbolic_zeros=params["symbolic_zeros"])
    return function(*operands)


@jax.tree_util.register_static
class _Residuals(NamedTuple):
    """What the backward rule must know of the forward one: the types of what it saved."""

    avals: tuple[Any, ...]
    values: tuple[Value, ...]


def custom_vjp_call(eqn: JaxprEqn, inner: Inner, operands: list[Any], dtype: Any, run: Run) -> list[Any]:
    """A function with a reverse-mode rule.

    What the forward rule saves is held as it leaves it, low where it is low; the backward rule is written
    down in the types that it was traced in, and rewritten from there.
    """
    params = eqn.params
    bound = eqn.primitive.get_bind_params(params)
    _, forward, backward = bound["subfuns"]
    in_avals, out_avals = params["call_jaxpr"].in_avals, params["call_jaxpr"].out_avals

    @jax.custom_vjp
    def function(*args: Any) -> list[Any]:
        return run(inner.jaxpr, params["call_jaxpr"].consts, args, inner.plan, dtype)

    def fwd(*primals: CustomVJPPrimal) -> tuple[list[Any], Any]:
        def traced(*args: Any) -> Any:
            pairs = zip(args, primals, strict=True)
            return forward.call_wrapped(*[each for x, p in pairs for each in (x, p.perturbed)])

        args = [primal.value for primal in primals]
        closed = jax.make_jaxpr(traced)(*in_avals)
        plan = make_plan(closed.jaxpr, inner.values, dtype)
        outs = run(closed.jaxpr, closed.consts, args, plan, dtype)
        # JAX has left out what is saved of the arguments themselves.
        _, saved, forwarded = params["out_trees"]()
        number = saved.num_leaves - sum(i is not None for i in forwarded)
        pruned = iter(zip(outs[:number], closed.out_avals[:number], plan.outs[:number], strict=True))
        ours = list(zip(args, in_avals, inner.values, strict=True))
        residuals = [next(pruned) if i is None else ours[i] for i in forwarded]
        arrays = [x for x, _, _ in residuals]
        static = _Residuals(tuple(a for _, a, _ in residuals), tuple(_same_type(v) for _, _, v in residuals))
        return give(outs[number:], plan.outs[number:], inner.plan.outs, dtype), (arrays, static)

    def bwd(saved: Any, gradients: Sequence[Any]) -> tuple[Any, ...]:
        arrays, (avals, values) = saved
        zero = [type(g) is SymbolicZero for g in gradients]
        if not params["symbolic_zeros"]:
            gradients = [jnp.zeros(g.shape, g.dtype) if type(g) is SymbolicZero else g for g in gradients]
            zero = [False] * len(zero)
        moving = [i for i, z in enumerate(zero) if not z]
        given: list[bool] = []

        def traced(*args: Any) -> Any:
            rest = iter(args[len(avals) :])
            # As JAX does it for a rule that asks for them.
            gs = [SymbolicZero(a) if z else next(rest) for a, z in zip(out_avals, zero, strict=True)]
            found = backward.call_wrapped(*args[: len(avals)], *gs)
            given[:] = [isinstance(g, jax.Array) for g in found]
            return [g for g, is_given in zip(found, given, strict=True) if is_given]

        moving_avals = [out_avals[i].to_tangent_aval() for i in moving]
        closed = jax.make_jaxpr(traced)(*avals, *moving_avals)
        plan = make_plan(closed.jaxpr, (*values, *[_same_type(inner.plan.outs[i]) for i in moving]), dtype)
        outs = run(closed.jaxpr, closed.consts, (*arrays, *[gradients[i] for i in moving]), plan, dtype)
        found = iter(outs)
        return tuple(
            _as_held(next(found), value, aval, dtype) if is_given else None
            for is_given, value, aval in zip(given, inner.values, in_avals, strict=True)
        )

    function.defvjp(fwd, bwd, symbolic_zeros=True)
    return function(*operands)


def _same_type(value: Value) -> Value:
    return Value(low=value.low)


def _as_held(gradient: Any, value: Value, aval: Any, dtype: Any) -> Any:
    if not is_float32(aval):
        return gradient
    return to_dtype(gradient, dtype if value.low else FLOAT32)


def _zero_tangent(primal: Any) -> SymbolicZero:
    return SymbolicZero(jax.typeof(primal).to_tangent_aval())
