"""Pytrees of parameters, gradients and slots as lists of leaves.

``None`` and Optax's ``MaskedNode`` count as leaves here: absent ones, which every tree of a run must have
in the same places, except that gradients may be absent where parameters are not.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.experimental import sparse

__all__ = ["Leaves", "Slots", "flatten", "is_absent", "is_leaf"]

Slots = dict[str, Any]


def is_absent(leaf: Any) -> bool:
    """Whether a leaf is skipped whole: it has no parameter, no gradient or no slot."""
    return leaf is None or isinstance(leaf, optax.MaskedNode)


def is_leaf(node: Any) -> bool:
    """Where flattening stops: at what is absent, and at sparse gradients."""
    return is_absent(node) or isinstance(node, sparse.BCOO)


def _flatten(tree: Any, abstract: bool = False) -> tuple[list[str], list[Any], Any]:
    pairs, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
    parents = collections.Counter(path[:-1] for path, _ in pairs)
    paths = [_name(path, parents[path[:-1]] == 1) for path, _ in pairs]
    leaves = [leaf for _, leaf in pairs]
    values = [
        leaf if abstract and isinstance(leaf, jax.ShapeDtypeStruct) else _array(name, leaf)
        for name, leaf in zip(paths, leaves, strict=True)
    ]
    return paths, values, treedef


def _name(path: tuple[Any, ...], alone: bool) -> str:
    # flax.nnx hands over its variables, whose only leaf is their attribute "value".
    if alone and len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _array(name: str, leaf: Any) -> Any:
    if is_leaf(leaf):
        return leaf
    try:
        return jnp.asarray(leaf)
    except TypeError:
        raise TypeError(f"{name!r} is no array: got {leaf!r} of type {type(leaf).__name__}.") from None


def flatten(params: Any, *, abstract: bool = False) -> Leaves:
    """Flattens a tree of parameters, with the path of each leaf (``"layers/0/kernel"``).

    Args:
      params: the tree.
      abstract: allow leaves that are a shape and a dtype only (``jax.ShapeDtypeStruct``). Default False.
    """
    return Leaves(*_flatten(params, abstract))


class Leaves(NamedTuple):
    """A flattened tree of parameters."""

    paths: list[str]
    values: list[Any]
    treedef: Any

    def present(self) -> list[tuple[str, jax.Array]]:
        """The paths and parameters that are there."""
        pairs = zip(self.paths, self.values, strict=True)
        return [(path, leaf) for path, leaf in pairs if not is_absent(leaf)]

    def unflatten(self, values: Sequence[Any]) -> Any:
        """The tree again, of other values."""
        return jax.tree.unflatten(self.treedef, values)

    def match(self, grads: Any) -> list[Any]:
        """The gradients in the order of the parameters.

        Raises:
          ValueError: they do not have the tree of the parameters; the message names what is missing.
        """
        paths, values, treedef = _flatten(grads)
        if treedef == self.treedef:
            return values
        missing = [path for path in self.paths if path not in set(paths)]
        unknown = [path for path in paths if path not in set(self.paths)]
        raise ValueError(
            "The gradients do not have the tree of the parameters"
            + (f"; missing: {', '.join(map(repr, missing[:5]))}" if missing else "")
            + (f"; not a parameter: {', '.join(map(repr, unknown[:5]))}" if unknown else "")
            + ("" if missing or unknown else f": expected {self.treedef}, got {treedef}")
            + ". A parameter without a gradient must have None in its place."
        )

    def gather(self, per_leaf: Sequence[Slots], name: str) -> Any:
        """The tree of slot ``name`` out of the slots of every leaf."""
        return self.unflatten(
            [
                value if is_absent(value) else slots.get(name)
                for slots, value in zip(per_leaf, self.values, strict=True)
            ]
        )

    def scatter(self, slots: Slots) -> list[Slots]:
        """The slots of every leaf out of the tree of every slot.

        Raises:
          ValueError: a slot does not have the tree of the parameters.
        """
        per_leaf: list[Slots] = [{} for _ in self.values]
        for name, tree in slots.items():
            try:
                values = self.treedef.flatten_up_to(tree)
            except ValueError as error:
                raise ValueError(
                    f"The optimizer's state was made for other parameters, or by a bucketed optimizer: slot "
                    f"{name!r} does not have the tree of these. Call tx.init(params) again, or restore the "
                    f"state that belongs to them. ({error})"
                ) from None
            for path, leaf_slots, value in zip(self.paths, per_leaf, values, strict=True):
                if is_absent(value):
                    continue
                if not hasattr(value, "shape"):
                    raise ValueError(
                        f"The optimizer's state was made for other parameters, or by a bucketed optimizer: "
                        f"slot {name!r} of {path!r} is a {type(value).__name__}, not an array."
                    )
                leaf_slots[name] = value
        return per_leaf
