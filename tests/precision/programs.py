"""Reading programs: which types their products have, and whether a sum in them is low."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import JaxprEqn, jaxprs_in_params

__all__ = ["count", "dtypes", "equations", "products"]


def equations(fn: Callable[..., Any], *args: Any) -> list[JaxprEqn]:
    """All equations of a function's program, those inside of other equations too."""
    return list(_walk(jax.make_jaxpr(fn)(*args).jaxpr))


def _walk(jaxpr: Any) -> Iterator[JaxprEqn]:
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from _walk(inner)


def dtypes(fn: Callable[..., Any], *args: Any, name: str) -> list[str]:
    """The types of the results of all operations of one name."""
    return [str(e.outvars[0].aval.dtype) for e in equations(fn, *args) if e.primitive.name == name]


def count(fn: Callable[..., Any], *args: Any, name: str) -> int:
    return len(dtypes(fn, *args, name=name))


def products(fn: Callable[..., Any], *args: Any) -> list[str]:
    """The types of all products as the compiler gets them: ``(tensor<3x4xbf16>, ...) -> tensor<...>``."""
    lines = jax.jit(fn).lower(*args).as_text().splitlines()
    found = [line for line in lines if "stablehlo.dot_general" in line or "stablehlo.convolution" in line]
    return [line.rsplit(" : ", 1)[1] for line in found]
