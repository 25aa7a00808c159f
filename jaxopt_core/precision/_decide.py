"""The decision for one operation that holds no program of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import JaxprEqn, Literal

from jaxopt_core.precision import _table as table
from jaxopt_core.precision._casts import fits, is_float32, overflows, shape_of, underflows
from jaxopt_core.precision._values import Cast, Decision, Origin, Value

__all__ = ["as_traced", "decide"]


def decide(eqn: JaxprEqn, values: Sequence[Value], dtype: Any, promoted: bool) -> Decision:
    """The decision for one operation.

    Args:
      eqn: the equation, of any primitive but those of ``_table.CALLS``.
      values: what its operands are.
      dtype: the low type.
      promoted: everything that reads its results does so in float32.
    """
    name = eqn.primitive.name
    if not _governs(eqn):
        return _ungoverned(eqn, values)
    if name in table.PRODUCTS:
        return _product(eqn, values)
    if name in table.FLOAT32:
        return _float32(eqn, values, "float32 list")
    if name in ("integer_pow", "square") and _is_steep(eqn, dtype):
        return _float32(eqn, values, "a power: float32 list")
    if promoted and name in table.PROMOTABLE:
        return _float32(eqn, values, "all that reads it runs in float32")
    if name in table.FOLLOW or name == "convert_element_type":
        return _follow(eqn, values, dtype)
    if name in table.WIDEST or name in table.COMPARE:
        return _widest(eqn, values, dtype)
    return as_traced(eqn, "not in a list: as traced")


def as_traced(eqn: JaxprEqn, why: str) -> Decision:
    """The operation as it was traced, its operands restored."""
    casts = tuple(Cast.FLOAT32 if is_float32(atom.aval) else Cast.KEEP for atom in eqn.invars)
    ran = "float32" if Cast.FLOAT32 in casts else ""
    outs = tuple(Value() for _ in eqn.outvars)
    return Decision(casts, outs, ran, why, wide=(True,) * len(casts))


def _governs(eqn: JaxprEqn) -> bool:
    """Whether precision is a matter of choice: of the operands and results, all that can be is float32."""
    avals = [atom.aval for atom in (*eqn.invars, *eqn.outvars) if isinstance(atom.aval, ShapedArray)]
    inexact = [aval for aval in avals if jnp.issubdtype(aval.dtype, jnp.inexact)]
    return any(is_float32(atom.aval) for atom in eqn.invars) and all(map(is_float32, inexact))


def _ungoverned(eqn: JaxprEqn, values: Sequence[Value]) -> Decision:
    decision = as_traced(eqn, "other types: as traced")
    if eqn.primitive.name == "convert_element_type" and values[0].origin is Origin.CONSTANT:
        return decision._replace(outs=(Value(origin=Origin.CONSTANT),))
    return decision


def _is_steep(eqn: JaxprEqn, dtype: Any) -> bool:
    # float16 ends at 65504, which squares reach; a reciprocal is on the list whatever the type.
    return dtype == np.float16 or eqn.params.get("y", 2) < 0


def _product(eqn: JaxprEqn, values: Sequence[Value]) -> Decision:
    params = eqn.params
    if table.has_explicit_precision(params.get("precision")):
        return as_traced(eqn, "explicit precision: as traced")
    if eqn.primitive.name == "dot_general":
        left, right = map(shape_of, eqn.invars)
        if not table.has_free_dimension(params["dimension_numbers"], len(left), len(right)):
            return _float32(eqn, values, "a sum of products: float32 list")
    decision = _in_low(eqn, values, "low list")
    return decision._replace(outs=(Value(low=True, product=True),))


def _follow(eqn: JaxprEqn, values: Sequence[Value], dtype: Any) -> Decision:
    name = eqn.primitive.name
    floats = [value for _, value in _floats(eqn, values)]
    if len(eqn.outvars) == len(eqn.invars) > 1:  # a barrier, a sort of several: each follows its own
        outs = [Value(value.low, value.origin) for value in values]
    elif len({value.low for value in floats}) > 1:
        return _widest(eqn, values, dtype)
    else:
        moves = name in table.MOVE or name == "convert_element_type"
        value = floats[0] if moves else Value(floats[0].low, floats[0].origin)
        grows = name == "broadcast_in_dim" and _spreads(eqn, eqn.invars[0])
        value = value._replace(spread=value.spread or grows)
        outs = [value if is_float32(atom.aval) else Value() for atom in eqn.outvars]
        if value.low and (grows or name in table.SUMMED_BACKWARDS):
            decision = _rounded(eqn, values, "exact; in float32 for its gradient, which is a sum")
            return decision._replace(outs=tuple(outs))
    ran = "low" if any(value.low for value in floats) else "float32"
    keep = (Cast.KEEP,) * len(values)
    return Decision(keep, tuple(outs), ran, "follows its input", wide=(False,) * len(values))


def _widest(eqn: JaxprEqn, values: Sequence[Value], dtype: Any) -> Decision:
    name, floats, origin = eqn.primitive.name, _floats(eqn, values), _origin(eqn, values)
    having_a_say = [value for _, value in floats if value.origin is origin]
    if not all(value.low for value in having_a_say):
        if name == "add" and _is_bias(eqn, values):
            return _rounded(eqn, values, "bias of a product: added in float32, rounded once")
        return _float32(eqn, values, "an input is float32")
    others = [(atom, value) for atom, value in floats if not value.low]
    if not others:
        return _in_low(eqn, values, "all inputs are low")
    if name in table.COMPARE:
        return _float32(eqn, values, "compared with a number")
    if name == "div" and isinstance(eqn.invars[0], Literal):
        return _float32(eqn, values, "a reciprocal: float32 list")
    numbers = [atom.val for atom, _ in others if isinstance(atom, Literal)]
    known = len(numbers) == len(others)
    if known and all(fits(number, dtype) for number in numbers):
        return _in_low(eqn, values, "numbers do not widen")
    if name not in ("mul", "div", "rem", "atan2"):
        if any(underflows(number, dtype) for number in numbers):
            return _float32(eqn, values, "its number would be zero in the low type")
        if any(value.origin is Origin.SCALAR for _, value in others) and name not in table.ALIKE:
            return _rounded(eqn, values, "with a number in float32, rounded once")
        constants = all(value.origin is Origin.CONSTANT for _, value in others)
        # What may not fit becomes the largest number; see narrow_constant.
        saturates = constants and (not known or any(overflows(number, dtype) for number in numbers))
        if saturates or name not in table.ARITHMETIC:
            return _in_low(eqn, values, "numbers do not widen")
    return _rounded(eqn, values, "with a number in float32, rounded once")


def _is_bias(eqn: JaxprEqn, values: Sequence[Value]) -> bool:
    (narrow, _), (wide, atom) = sorted(zip(values, eqn.invars, strict=True), key=lambda pair: not pair[0].low)
    return narrow.product and not wide.low and (wide.spread or _spreads(eqn, atom))


def _spreads(eqn: JaxprEqn, atom: Any) -> bool:
    return math.prod(shape_of(atom)) < math.prod(shape_of(eqn.outvars[0]))


def _float32(eqn: JaxprEqn, values: Sequence[Value], why: str) -> Decision:
    outs = tuple(Value(origin=_origin(eqn, values)) for _ in eqn.outvars)
    return as_traced(eqn, why)._replace(outs=outs)


def _in_low(eqn: JaxprEqn, values: Sequence[Value], why: str) -> Decision:
    casts = [Cast.KEEP] * len(values)
    for i, (atom, value) in enumerate(zip(eqn.invars, values, strict=True)):
        if value.low and eqn.primitive.name in table.BROADCASTING and _spreads(eqn, atom):
            casts[i] = Cast.SPREAD
        elif is_float32(atom.aval) and not value.low:
            casts[i] = Cast.LOW_CONSTANT if value.origin is Origin.CONSTANT else Cast.LOW
    outs = tuple(Value(is_float32(atom.aval), _origin(eqn, values)) for atom in eqn.outvars)
    return Decision(tuple(casts), outs, "low", why, wide=(False,) * len(values))


def _rounded(eqn: JaxprEqn, values: Sequence[Value], why: str) -> Decision:
    decision = _float32(eqn, values, why)
    outs = tuple(value._replace(low=True) for value in decision.outs)
    return decision._replace(outs=outs, ran="rounded", wide=(False,) * len(values))


def _floats(eqn: JaxprEqn, values: Sequence[Value]) -> list[tuple[Any, Value]]:
    pairs = zip(eqn.invars, values, strict=True)
    return [(atom, value) for atom, value in pairs if is_float32(atom.aval)]


def _origin(eqn: JaxprEqn, values: Sequence[Value]) -> Origin:
    return min(value.origin for _, value in _floats(eqn, values))
