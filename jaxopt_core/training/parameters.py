"""Parameters in a NumPy archive: one array per leaf, named by its path in the tree.

``numpy.load("params.npz")["layers/0/kernel"]`` reads one without this library, and nothing in the
file is code.
"""

import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def save_parameters(path: str | os.PathLike[str], params: Any) -> None:
    """Writes every leaf of a pytree to an ``.npz`` file, in its own shape and dtype.

    Args:
        path: the file to write; it is replaced.
        params: pytree of arrays of NumPy's own dtypes.

    Raises:
        ValueError: two leaves have the same path, or a dtype is one that NumPy's format cannot
            keep, such as bfloat16.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name, leaf in _named_leaves(params):
        array = np.asarray(leaf)
        if name in arrays:
            raise ValueError(f"{name}: expected one leaf of this path, found two")
        if array.dtype.isbuiltin != 1:
            raise ValueError(f"{name}: expected one of NumPy's own dtypes, found {array.dtype}")
        arrays[name] = array
    # An open file: given a name, NumPy appends ".npz" to one that lacks it.
    with Path(path).open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_parameters(path: str | os.PathLike[str], like: Any) -> Any:
    """Reads what :func:`save_parameters` wrote, into the structure of a given tree.

    Args:
        path: the ``.npz`` file.
        like: pytree with the same paths, shapes and dtypes, such as freshly initialised parameters
            or what ``jax.eval_shape`` says of them.

    Returns:
        The tree, with arrays from the file.

    Raises:
        ValueError: not an ``.npz`` file, or paths, a shape or a dtype differ from ``like``'s.
        zipfile.BadZipFile: the file is damaged; a flipped bit in an array is noticed.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "params.npz"
        >>> save_parameters(path, {"layers": [{"bias": jnp.array([1.0, 2.0])}]})
        >>> load_parameters(path, like={"layers": [{"bias": jnp.zeros(2)}]})
        {'layers': [{'bias': Array([1., 2.], dtype=float32)}]}
    """
    with Path(path).open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path}: expected a NumPy archive (.npz), found another kind of file")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
    leaves = dict(_named_leaves(like))
    if arrays.keys() != leaves.keys():
        raise ValueError(f"{path}: expected leaves {sorted(leaves)}, found {sorted(arrays)}")
    for name, leaf in leaves.items():
        expected, found = (leaf.shape, leaf.dtype), (arrays[name].shape, arrays[name].dtype)
        if expected != found:
            raise ValueError(
                f"{path}: {name}: expected shape {expected[0]} of {expected[1]}, "
                f"found {found[0]} of {found[1]}"
            )
    return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(arrays[name]) for name in leaves])


def _named_leaves(tree: Any) -> list[tuple[str, Any]]:
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
