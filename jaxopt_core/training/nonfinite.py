"""Which layer gives the first infinity or NaN of a step: the step again, one operation at a time.

The step is traced and its operations are evaluated in order. Each value remembers two things: the last
parameter that went into it, which names the layer, and, if it is not finite, the operation that made it so.
A mask of ``-inf`` is no fault: what counts is where the infinities *of the result* come from.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

__all__ = ["NonFiniteError", "explain_nonfinite"]


class NonFiniteError(FloatingPointError):
    """A metric of a step is infinite or NaN.

    Attributes:
      step: number of the update, from 1.
      layer: path of the layer (or parameter, or part of the batch) that gives the first one; empty where
        none is found.
    """

    def __init__(self, message: str, step: int, layer: str) -> None:
        super().__init__(message)
        self.step, self.layer = step, layer


class Cause(NamedTuple):
    """Where a value that is not finite comes from.

    Attributes:
      layer: path of the layer.
      text: for people to read.
    """

    layer: str
    text: str


class _Traced(NamedTuple):
    value: Any
    layer: tuple[int, str]  # when the last parameter came in, and its path
    cause: Cause | None


def explain_nonfinite(step_fn: Callable[..., Any], state: Any, batch: Any, metric: str) -> Cause | None:
    """Finds the operation from which a metric of a step gets its infinity or NaN.

    Args:
      step_fn: ``(state, batch) -> (state, metrics)``.
      state: before the step; the paths of ``state.params`` name the layers.
      batch: of the step.
      metric: name of a metric that is not finite.

    Returns:
      The cause, or None if all is finite when operations run one at a time.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> from jaxopt_core.training import init_state, make_step
      >>> def loss_fn(params, rest, batch, rng):
      ...     hidden = jnp.exp(batch["x"] * params["first"]["scale"])
      ...     return jnp.sum(hidden * params["second"]["scale"]), (rest, {})
      >>> params = {"first": {"scale": jnp.float32(100)}, "second": {"scale": jnp.float32(1)}}
      >>> step = make_step(loss_fn, jo.sgd())
      >>> cause = explain_nonfinite(step, init_state(params, {}, jo.sgd()), {"x": jnp.ones(2)}, "loss")
      >>> cause.layer, cause.text.partition(" at ")[0]
      ('first', "layer 'first' gives the first inf, in exp (forward)")
    """
    program, shapes = jax.make_jaxpr(step_fn, return_shape=True)(state, batch)
    clock = itertools.count(1)
    inputs = [_input(path, leaf) for path, leaf in _named(state, batch)]
    outputs = _run(program.jaxpr, program.consts, inputs, clock)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    return outputs[names.index(f"[1]['{metric}']")].cause


def _named(state: Any, batch: Any) -> Iterator[tuple[str, Any]]:
    for kind, tree in (("state", state), ("batch", batch)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            yield "/".join([kind, jax.tree_util.keystr(path, simple=True, separator="/")]), leaf


def _input(path: str, leaf: Any) -> _Traced:
    kind, _, inside = path.partition("/")
    is_param = inside == "params" or inside.startswith("params/")
    short = inside.removeprefix("params").removeprefix("/")
    layer = short.rpartition("/")[0] or short or "params"
    fault = _fault(leaf)
    what = f"parameter {short!r}" if is_param else f"{kind} {inside!r}"
    cause = Cause(inside, f"{what} holds {fault} before the step") if fault else None
    # Its number is drawn when the parameter is used: here it only says that it is one.
    return _Traced(leaf, (-1, layer) if is_param else (0, ""), cause)


def _run(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[_Traced], clock: Iterator[int]) -> list[_Traced]:
    values: dict[Var, _Traced] = {}

    def read(atom: Var | Literal) -> _Traced:
        return _Traced(atom.val, (0, ""), None) if isinstance(atom, Literal) else values[atom]

    values.update(
        {var: _Traced(value, (0, ""), None) for var, value in zip(jaxpr.constvars, consts, strict=True)}
    )
    values.update(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        inner = _inner(eqn)
        if inner is not None:
            outputs = _run(inner.jaxpr, inner.consts, inputs, clock)
        else:
            outputs = _operation(eqn, inputs, clock)
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _inner(eqn: Any) -> ClosedJaxpr | None:
    """The program that an operation runs once on its operands, if that is all it does."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if name in eqn.params and eqn.primitive.name not in ("scan", "while", "cond", "shard_map"):
            found = eqn.params[name]
            found = found if isinstance(found, ClosedJaxpr) else ClosedJaxpr(found, ())
            return found if len(found.jaxpr.invars) == len(eqn.invars) else None
    return None


def _operation(eqn: Any, inputs: Sequence[_Traced], clock: Iterator[int]) -> list[_Traced]:
    params = eqn.primitive.get_bind_params(eqn.params)
    results = eqn.primitive.bind(*(traced.value for traced in inputs), **params)
    results = results if eqn.primitive.multiple_results else [results]
    layers = [
        (next(clock), name) if number < 0 else (number, name) for number, name in (t.layer for t in inputs)
    ]
    layer = max(layers, default=(0, ""))
    return [_Traced(result, layer, _cause(eqn, inputs, result, layer[1])) for result in results]


def _cause(eqn: Any, inputs: Sequence[_Traced], result: Any, layer: str) -> Cause | None:
    fault = _fault(result)
    if not fault:
        return None
    for traced in inputs:
        if traced.cause is not None:
            return traced.cause
    given = {_fault(traced.value) for traced in inputs}
    if fault in given:  # a constant, such as the -inf of a mask
        return None
    backward = "backward" if "transpose(" in str(eqn.source_info.name_stack) else "forward"
    where = source_info_util.summarize(eqn.source_info)
    who = f"layer {layer!r}" if layer else "the step"
    at = f" at {where}" if where else ""
    return Cause(layer, f"{who} gives the first {fault}, in {eqn.primitive} ({backward}){at}")


def _fault(value: Any) -> str:
    """``"nan"``, ``"inf"``, or nothing."""
    if not hasattr(value, "dtype") or not jnp.issubdtype(value.dtype, jnp.inexact):
        return ""
    array = np.asarray(value)
    if jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(np.float64)
    if np.isnan(array).any():
        return "nan"
    return "inf" if np.isinf(array).any() else ""
