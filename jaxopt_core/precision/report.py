"""What autocast does to a function: which operation runs in what, where it is, and why."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend import source_info_util
from jax.extend.core import Jaxpr

from jaxopt_core.precision._casts import shape_of
from jaxopt_core.precision._plan import arguments, make_plan
from jaxopt_core.precision._trace import trace
from jaxopt_core.precision._values import Plan
from jaxopt_core.precision.autocast import low_dtype

__all__ = ["Operation", "Report", "autocast_report"]


class Operation(NamedTuple):
    """A row of the report.

    Attributes:
      name: the primitive.
      shape: of its (first) result.
      ran: ``"bfloat16"`` or ``"float16"``; ``"float32"``; ``"float32, rounded"`` if only the result is low.
      why: the rule.
      source: file, line and function that it comes from.
      scope: the named scopes that it is in, outermost first, ``""`` if in none.
      times: how many of its kind this line has. One in a loop counts once.
    """

    name: str
    shape: tuple[int, ...]
    ran: str
    why: str
    source: str
    scope: str
    times: int = 1


class Report(tuple[Operation, ...]):
    """The rows, in the order of the program; as text, a table."""

    __slots__ = ()

    def __str__(self) -> str:
        head = ("operation", "ran in", "times", "source", "scope", "why")
        cells = [head, *map(_cells, self)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
        lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) for row in cells]
        return "\n".join(line.rstrip() for line in lines)


def autocast_report(fn: Callable[..., Any], dtype: Any = jnp.bfloat16) -> Callable[..., Report]:
    """A function that reports what ``autocast(fn, dtype)`` would do with the same arguments.

    Nothing is computed. Custom rules are reported by the function that they belong to; to see a backward
    pass as ``autocast(jax.grad(fn))`` runs it, give ``jax.grad(fn)``.

    Args:
      fn: the function.
      dtype: as for :func:`~jaxopt_core.precision.autocast`. Default ``bfloat16``.

    Returns:
      A function with the arguments of ``fn`` that returns the rows; ``print`` shows them as a table.

    Raises:
      ValueError: ``dtype`` is neither ``bfloat16`` nor ``float16``.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_core.precision import autocast_report
      >>> rows = autocast_report(lambda w, x: jnp.sum(jnp.exp(x @ w)))(jnp.ones((4, 2)), jnp.ones((3, 4)))
      >>> [(row.name, row.ran, row.why) for row in rows]
      [('dot_general', 'bfloat16', 'low list'), ('exp', 'float32', 'float32 list'), ('reduce_sum', ...)]
    """
    low = low_dtype(dtype)

    def report(*args: Any, **kwargs: Any) -> Report:
        jaxpr = trace(fn, args, kwargs).program.jaxpr
        plan = make_plan(jaxpr, arguments(jaxpr.invars), low)
        rows = collections.Counter(_rows(jaxpr, plan, "", "", str(low)))
        return Report(row._replace(times=times) for row, times in rows.items())

    return report


def _rows(jaxpr: Jaxpr, plan: Plan, scope: str, caller: str, low: str) -> Iterator[Operation]:
    names = {"low": low, "float32": "float32", "rounded": "float32, rounded"}
    for eqn, decision in zip(jaxpr.eqns, plan.decisions, strict=True):
        inside = "/".join(filter(None, (scope, str(eqn.source_info.name_stack))))
        # JAX's own functions are traced once for all callers; a line in them is that of the call.
        source = source_info_util.summarize(eqn.source_info) or caller
        for inner in decision.inner:
            yield from _rows(inner.jaxpr, inner.plan, inside, source, low)
        if decision.ran:
            shape = shape_of(eqn.outvars[0]) if eqn.outvars else ()
            yield Operation(eqn.primitive.name, shape, names[decision.ran], decision.why, source, inside)


def _cells(row: Operation) -> tuple[str, ...]:
    shape = ",".join(map(str, row.shape))
    source = "/".join(row.source.split("/")[-2:])
    return f"{row.name}[{shape}]", row.ran, str(row.times), source, row.scope, row.why
