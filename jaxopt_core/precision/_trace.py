"""A function of arrays and other things, written down as a program of its arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr

__all__ = ["Traced", "trace"]


class Traced(NamedTuple):
    """A program, its arguments and the way back to what the function returns.

    Attributes:
      program: the jaxpr with its constants.
      args: its arguments.
      rebuild: from the program's results to the function's.
    """

    program: ClosedJaxpr
    args: list[Any]
    rebuild: Callable[[list[Any]], Any]


def trace(fn: Callable[..., Any], args: Any, kwargs: Any) -> Traced:
    """Traces a function.

    As under ``jax.grad``, and unlike under ``jax.jit``, only arrays are traced: numbers, strings and flags
    reach the function as they are.

    Args:
      fn: the function.
      args: its positional arguments.
      kwargs: its keyword arguments.

    Raises:
      ValueError: the function has changed an object that it was given. The change would be lost.
    """
    paths, tree = jax.tree_util.tree_flatten_with_path((args, kwargs))
    leaves = [leaf for _, leaf in paths]
    where = [i for i, leaf in enumerate(leaves) if _is_array(leaf)]
    returned: list[Any] = []

    def function(*arrays: Any) -> list[Any]:
        filled = list(leaves)
        for i, array in zip(where, arrays, strict=True):
            filled[i] = array
        given, named = jax.tree.unflatten(tree, filled)
        before = _attributes((given, named))
        outs, out_tree = jax.tree.flatten(fn(*given, **named))
        _check_unchanged(before, _attributes((given, named)))
        arrays_out = [out for out in outs if _is_array(out)]
        returned[:] = out_tree, [None if _is_array(out) else (out,) for out in outs]
        return arrays_out

    with jax.default_matmul_precision(None):  # a global default is not what a product asks for itself
        program = jax.make_jaxpr(function)(*[leaves[i] for i in where])
    out_tree, others = returned

    def rebuild(results: list[Any]) -> Any:
        rest = iter(results)
        return jax.tree.unflatten(out_tree, [next(rest) if other is None else other[0] for other in others])

    return Traced(program, [leaves[i] for i in where], rebuild)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def _attributes(tree: Any) -> dict[str, Any]:
    """The leaves that are attributes of objects, as those of ``flax.nnx``'s models are."""
    pairs, _ = jax.tree_util.tree_flatten_with_path(tree)
    of_objects = [(path, x) for path, x in pairs if isinstance(path[-1], jax.tree_util.GetAttrKey)]
    return {jax.tree_util.keystr(path[1:], simple=True, separator="/"): x for path, x in of_objects}


def _check_unchanged(before: dict[str, Any], after: dict[str, Any]) -> None:
    changed = [name for name, x in after.items() if x is not before.get(name)]
    if changed:
        raise ValueError(
            f"The function changes {changed[0]!r} of an object that it is given, and autocast, which traces "
            "it, would lose the change. Take the model's state as an argument and return the new one, with "
            "nnx.split and nnx.merge or jaxopt_core.models.pure."
        )
