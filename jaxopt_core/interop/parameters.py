"""A model's parameters and buffers, from PyTorch and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_core.interop.arrays import as_numpy, in_place_of, is_tensor
from jaxopt_core.interop.layout import Layout, LayoutError
from jaxopt_core.interop.rules import is_counter, is_random
from jaxopt_core.tree import Leaves, flatten, is_absent

__all__ = ["known_leaves", "params_from_torch", "params_to_torch"]


def params_from_torch(
    state_dict: Mapping[str, Any], layout: Layout, like: Any, *, rngs: jax.Array | None = None
) -> Any:
    """A tree of parameters, or of a model's other state, out of PyTorch's ``model.state_dict()``.

    Args:
      state_dict: name -> array (as ``interop.load`` reads it) or torch tensor.
      layout: of the model; made from this state dict or one like it.
      like: the tree to fill: ``params``, or ``rest``. Its arrays, or ``jax.ShapeDtypeStruct``, give dtype and
        sharding, not values. Leaves of random streams stay as they are, and so does ``num_batches_tracked``
        where the file is too old to have it (0, as PyTorch makes it, if ``like`` is abstract).
      rngs: key from which the random streams of an abstract ``like`` start.

    Returns:
      A tree like ``like``, of new arrays.

    Raises:
      LayoutError: tensors that are missing, that the layout does not know, or that have another shape or
        dtype; all of them. Nothing is cast, except that integers may come narrower (PyTorch's
        ``num_batches_tracked`` is int64) as long as they fit. Also random streams without ``rngs``.

    Example:
      >>> import jax.numpy as jnp, numpy as np
      >>> from jaxopt_core import interop
      >>> state_dict = {"fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
      >>> params = {"fc": {"kernel": jnp.zeros((3, 2))}}
      >>> layout = interop.make_layout(params, state_dict)
      >>> interop.params_from_torch(state_dict, layout, like=params)["fc"]["kernel"].tolist()
      [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    """
    tree = flatten(like, abstract=True)
    problems = known_leaves(tree, layout)
    wanted = [n for path, leaf in tree.present() if path in layout.by_path for n in layout.names(path)]
    tensors = _tensors(state_dict, layout, wanted, problems)
    values: list[Any] = []
    for i, (path, leaf) in enumerate(zip(tree.paths, tree.values, strict=True)):
        if isinstance(leaf, jax.ShapeDtypeStruct) and path not in layout.by_path:
            values.append(
                _started(path, leaf, None if rngs is None else jax.random.fold_in(rngs, i), problems)
            )
            continue
        if is_absent(leaf) or path not in layout.by_path or not tensors.keys() >= set(layout.names(path)):
            values.append(leaf)
            continue
        value = layout.leaf(path, tensors)
        if why := _unfit(value, leaf.dtype):
            problems.append(f"{', '.join(map(repr, layout.names(path)))}: {path!r} is {leaf.dtype}; {why}")
            values.append(leaf)
        else:
            values.append(in_place_of(leaf, value))
    if problems:
        raise LayoutError("The state dict cannot be carried over", problems)
    return tree.unflatten(values)


def params_to_torch(
    params: Any, layout: Layout, *, rest: Any = None, like: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """The ``state_dict`` that ``model.load_state_dict`` takes, out of the trees.

    Args:
      params: the parameters.
      layout: of the model.
      rest: the tree of what is no parameter; needed if the layout knows such leaves.
      like: a state dict of the model, from which come the tensors that have no counterpart here (by a rule,
        or ``num_batches_tracked`` where the batch norm does not count). Without it they are left out.

    Returns:
      PyTorch's name -> array, in the order of the layout. Tied names share one array.

    Raises:
      LayoutError: the trees are not those of the layout; everything that differs.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_core import interop
      >>> params = {"fc": {"kernel": jnp.ones((3, 2))}}
      >>> state_dict = interop.params_to_torch(params, interop.make_layout(params))
      >>> {name: array.shape for name, array in state_dict.items()}
      {'fc.weight': (2, 3)}
    """
    leaves: dict[str, np.ndarray[Any, Any]] = {}
    problems = []
    for tree in (flatten(params), flatten(rest)):
        problems += known_leaves(tree, layout)
        leaves |= {path: np.asarray(leaf) for path, leaf in tree.present() if path in layout.by_path}
    problems += [f"the tree has no leaf {path!r}" for path in layout.by_path if path not in leaves]
    if problems:
        raise LayoutError("The trees are not those of the layout", problems)
    made = {name: _as_in_torch(name, layout.tensor(name, leaves), layout) for name in layout.by_name}
    made |= {name: made[other] for name, other in layout.tied.items() if other in made}
    if like is not None:
        made |= {name: as_numpy(like[name]) for name in layout.ignored if name in like}
    return {name: made[name] for name in layout.tensors if name in made}


def _as_in_torch(name: str, value: np.ndarray[Any, Any], layout: Layout) -> np.ndarray[Any, Any]:
    wider = value.dtype.kind in "iu" and name in layout.dtypes
    return np.array(value, layout.dtypes[name] if wider else None, order="C")


def known_leaves(tree: Leaves, layout: Layout) -> list[str]:
    """What is wrong with the leaves of a tree that a layout is to convert."""
    problems = []
    for path, leaf in tree.present():
        if path not in layout.by_path:
            if not is_random(path) and not is_counter(path):
                problems.append(f"the layout does not know the leaf {path!r}")
        elif tuple(leaf.shape) != layout.leaves[path]:
            problems.append(f"{path!r} has shape {leaf.shape}, in the layout {layout.leaves[path]}")
    return problems


def _started(path: str, leaf: Any, key: jax.Array | None, problems: list[str]) -> Any:
    """A leaf that the file has no tensor for, as it is at the start of a run."""
    if not is_random(path) or not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.zeros(leaf.shape, leaf.dtype) if is_random(path) or is_counter(path) else leaf
    if key is None:
        problems.append(f"{path!r} is a random stream, which files do not hold: give rngs=jax.random.key(0)")
        return leaf
    return jax.random.split(key, leaf.shape) if leaf.shape else key


def _tensors(
    state_dict: Mapping[str, Any], layout: Layout, wanted: list[str], problems: list[str]
) -> dict[str, np.ndarray[Any, Any]]:
    known = layout.tensors.keys()
    tensors = {}
    for name in wanted:
        if name not in state_dict or not is_tensor(state_dict[name]):
            problems.append(f"{name!r} is missing")
        elif tuple(state_dict[name].shape) != layout.tensors[name]:
            shape = tuple(state_dict[name].shape)
            problems.append(f"{name!r} has shape {shape}, in the layout {layout.tensors[name]}")
        else:
            tensors[name] = as_numpy(state_dict[name])
    problems += [f"{name!r} is not in the layout" for name in state_dict if name not in known]
    return tensors


def _unfit(value: np.ndarray[Any, Any], dtype: Any) -> str | None:
    dtype = np.dtype(dtype)
    if value.dtype == dtype:
        return None
    if value.dtype.kind in "iu" and dtype.kind in "iu":
        info = np.iinfo(dtype)
        if not value.size or (value.min() >= info.min and value.max() <= info.max):
            return None
        return f"{value.max()} does not fit"
    return f"PyTorch's is {value.dtype}. Cast the one or the other first"
