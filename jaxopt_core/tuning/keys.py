"""Random keys as plain arrays, where slots of a state are made, read and written."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["as_data", "as_keys", "blank"]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def as_data(tree: Any) -> Any:
    """The tree with the data of keys in their place."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def as_keys(tree: Any, like: Any) -> Any:
    """Undoes :func:`as_data`; ``like`` says where there were keys."""
    impls: list[Any] = []

    def note(tree: Any) -> None:  # only an array, or a tracer of one, tells how its keys are made
        impls.extend(jax.random.key_impl(x) if _is_key(x) else None for x in jax.tree.leaves(tree))

    jax.eval_shape(note, like)
    leaves, structure = jax.tree.flatten(tree)
    keys = [
        x if impl is None else jax.random.wrap_key_data(x, impl=impl)
        for x, impl in zip(leaves, impls, strict=True)
    ]
    return jax.tree.unflatten(structure, keys)


def blank(shapes: Any, length: int) -> Any:
    """Zeros for ``length`` trees of the given shapes, with data in the place of keys."""
    # NumPy's, which take no memory until they are written to, and no program to make.
    data = jax.eval_shape(as_data, shapes)
    return jax.tree.map(lambda s: np.zeros((length, *s.shape), s.dtype), data)
