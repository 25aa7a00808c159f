"""A checksum for every array of a tree, so that a flipped bit is found, and has a name."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["checksum", "flat_arrays", "unflat_arrays"]


def flat_arrays(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by their paths; random keys as the integers that they are made of.

    Example:
      >>> import jax.numpy as jnp
      >>> list(flat_arrays({"a": [jnp.ones(2), jnp.ones(3)], "rng": jax.random.key(0)}))
      ['a/0', 'a/1', 'rng']
    """
    flat = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        flat[name] = jax.random.key_data(leaf) if is_key else leaf
    return flat


def unflat_arrays(flat: Mapping[str, Any], like: Any) -> Any:
    """Undoes :func:`flat_arrays`, in the structure of a given tree."""

    def back(path: Any, leaf: Any) -> Any:
        array = flat[jax.tree_util.keystr(path, simple=True, separator="/")]
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf))
        return array

    return jax.tree_util.tree_map_with_path(back, like)


def checksum(array: Any) -> str:
    """CRC-32 of an array's bytes, as eight hexadecimal digits: no flipped bit passes it.

    Example:
      >>> checksum(np.arange(3, dtype=np.int32)), checksum(np.arange(3, dtype=np.int32) ^ 1)
      ('1d760e7a', 'f2c525ee')
    """
    content = np.ascontiguousarray(np.asarray(array))
    return f"{zlib.crc32(content.reshape(-1).view(np.uint8).data):08x}"
