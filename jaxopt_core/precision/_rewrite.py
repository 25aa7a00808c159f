"""Operations that hold programs, bound again with these programs rewritten.

All that a loop or a function carries beside its program (names, shardings, donation, unrolling, the policy of
a checkpoint) stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from jaxopt_core.precision._casts import give
from jaxopt_core.precision._custom_rules import custom_jvp_call, custom_vjp_call
from jaxopt_core.precision._memo import memo
from jaxopt_core.precision._values import Decision, Inner

__all__ = ["rewritten"]

Run = Callable[..., list[Any]]


def rewritten(eqn: JaxprEqn, decision: Decision, operands: list[Any], dtype: Any, run: Run) -> list[Any]:
    """The results of an operation that holds programs, with these programs rewritten.

    Args:
      eqn: the equation.
      decision: how it runs.
      operands: its operands, held as the decision supposes.
      dtype: the low type.
      run: what runs a program by its plan.
    """
    name = eqn.primitive.name
    if name == "shard_map":
        return _shard_map(eqn, decision.inner[0], operands, dtype, run)
    if name == "custom_jvp_call":
        return custom_jvp_call(eqn, decision.inner[0], operands, dtype, run)
    if name == "custom_vjp_call":
        return custom_vjp_call(eqn, decision.inner[0], operands, dtype, run)
    if name == "cond":
        branches = [
            _program(branch, inner, dtype, run)
            for branch, inner in zip(eqn.params["branches"], decision.inner, strict=True)
        ]
        return _bind(eqn, operands, branches=tuple(branches))
    if name == "while":
        condition, body = decision.inner
        return _bind(
            eqn,
            operands,
            cond_jaxpr=_program(eqn.params["cond_jaxpr"], condition, dtype, run),
            body_jaxpr=_program(eqn.params["body_jaxpr"], body, dtype, run),
        )
    program = _program(eqn.params["jaxpr"], decision.inner[0], dtype, run)
    if isinstance(eqn.params["jaxpr"], Jaxpr):  # a checkpoint, which takes its program without constants
        operands = [*program.consts, *operands]
        return _bind(eqn, operands, jaxpr=_constants_first(program.jaxpr))
    return _bind(eqn, operands, jaxpr=program)


def _bind(eqn: JaxprEqn, operands: list[Any], **programs: Any) -> list[Any]:
    params = eqn.primitive.get_bind_params(eqn.params | programs)
    return list(eqn.primitive.bind(*operands, **params))


def _program(jaxpr: ClosedJaxpr | Jaxpr, inner: Inner, dtype: Any, run: Run) -> ClosedJaxpr:
    """The rewritten program; the same object every time, or eager calls would compile again."""
    programs = memo(jaxpr)
    key = "program", inner.values, inner.outs, dtype
    if key not in programs:
        consts = jaxpr.consts if isinstance(jaxpr, ClosedJaxpr) else ()

        def function(*args: Any) -> list[Any]:
            outs = run(inner.jaxpr, consts, args, inner.plan, dtype)
            return give(outs, inner.plan.outs, inner.outs, dtype)

        avals = [
            var.aval.update(dtype=dtype) if value.low else var.aval
            for var, value in zip(inner.jaxpr.invars, inner.values, strict=True)
        ]
        programs[key] = jax.make_jaxpr(function)(*avals)
    return programs[key]


def _constants_first(jaxpr: Jaxpr) -> Jaxpr:
    if not jaxpr.constvars:
        return jaxpr
    return jaxpr.replace(constvars=[], invars=[*jaxpr.constvars, *jaxpr.invars])


def _shard_map(eqn: JaxprEqn, inner: Inner, operands: list[Any], dtype: Any, run: Run) -> list[Any]:
    # Its body is traced under the axes of its mesh, which only shard_map itself sets up.
    params = eqn.params

    def function(*args: Any) -> tuple[Any, ...]:
        return tuple(run(inner.jaxpr, (), args, inner.plan, dtype))

    body: Callable[..., tuple[Any, ...]] = jax.shard_map(
        function,
        mesh=params["mesh"],
        in_specs=params["in_specs"],
        out_specs=params["out_specs"],
        check_vma=params["check_vma"],
        axis_names=params["newly_manual_axes"],
    )
    return list(body(*operands))
