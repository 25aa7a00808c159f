"""Making a layout: rules first, Flax's conventions for the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxopt_core.interop.arrays import is_tensor, location
from jaxopt_core.interop.layout import Layout
from jaxopt_core.interop.matching import Matching
from jaxopt_core.interop.rules import Rule, Shape, is_random, tensor_names, tensor_shape
from jaxopt_core.tree import flatten

__all__ = ["make_layout"]


def make_layout(
    params: Any,
    state_dict: Mapping[str, Any] | None = None,
    *,
    rest: Any = None,
    rules: Sequence[Rule] = (),
    rename: Mapping[str, str | Callable[[re.Match[str]], str]] | None = None,
    tied: Mapping[str, str] | None = None,
) -> Layout:
    r"""Says which PyTorch tensor is which leaf, and how its axes lie.

    For each name in the state dict the first of the ``rules`` that matches decides. For all others the
    convention is that the path is PyTorch's name (``layer1/0/conv1/kernel`` is ``layer1.0.conv1.weight``)
    with Flax's names of leaves:

    - ``kernel`` of a Linear or convolution: ``weight`` with ``(out, in, *window)`` as
      ``(*window, in, out)``; of an attention layer ``(in, heads, dim)`` or ``(heads, dim, out)``, from
      separate projections or from torch's joined ``in_proj_weight``;
    - ``scale`` and ``embedding``: ``weight``; ``mean`` and ``var``: ``running_mean`` and ``running_var``;
    - anything else, ``bias`` included: its own name, in PyTorch's own layout.

    Linen's collections ``params`` and ``batch_stats`` are no part of a name, nor are the prefixes
    ``module.`` and ``_orig_mod.`` that PyTorch's wrappers add. A tensor that shares its memory with an
    earlier one is tied to it, if the tree has one leaf for both.

    Args:
      params: the parameters; or their shapes (``jax.ShapeDtypeStruct``), as ``flax.nnx.eval_shape`` and
        ``jax.eval_shape`` give them, so that no starting values are drawn only to be replaced.
      state_dict: PyTorch's ``model.state_dict()``, or name -> shape. Without it names and shapes follow
        from the tree by the convention, and the order of PyTorch's parameters is not known: then the
        functions for optimizers need ``names``.
      rest: running statistics and whatever else belongs to the model and is no parameter. Leaves of
        Flax's random streams (``rngs``) need no counterpart, nor does ``num_batches_tracked``, which files
        written before PyTorch 0.4.1 do not have.
      rules: what the convention does not say.
      rename: regular expression -> replacement, applied to PyTorch's names (``re.sub``) before the
        convention: ``{r"^(\d+)\.": lambda match: f"layers.{int(match[1]) // 2}."}`` for the Linear
        layers of a ``Sequential`` with activations between them.
      tied: name -> name of the tensor with which it is tied, where memory does not show it.

    Returns:
      The layout; ``print(layout)`` shows it as a table.

    Raises:
      LayoutError: names or leaves that are unmatched or matched twice, or shapes that do not fit; all of
        them, with the nearest candidates.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_core import interop
      >>> params = {"conv": {"kernel": jnp.ones((3, 3, 1, 8))}, "norm": {"scale": jnp.ones(8)}}
      >>> print(interop.make_layout(params, {"conv.weight": (8, 1, 3, 3), "norm.weight": (8,)}))
      conv.weight  (8, 1, 3, 3)  conv/kernel  (3, 3, 1, 8)  axes (2, 3, 1, 0)
      norm.weight  (8,)          norm/scale   (8,)
    """
    trainable, buffers = _shapes(params), _shapes(rest)
    leaves = trainable | buffers
    if state_dict is None:
        if rules or rename or tied:
            raise ValueError("rules, rename and tied are about PyTorch's names: give state_dict too.")
        tensors = {tensor_names(p)[0]: tensor_shape(p, s) for p, s in leaves.items() if not is_random(p)}
        dtypes: dict[str, np.dtype[Any]] = {}
        same: dict[str, str] = {}
    else:
        tensors, dtypes = _read(state_dict)
        same = _tied(state_dict, tied or {})
    making = Matching(tensors, leaves, rules, rename or {}, same, state_dict or {})
    if twice := sorted(trainable.keys() & buffers.keys()):
        making.problems += [f"{path!r} is a leaf of params and of rest" for path in twice]
    for name in tensors:
        if name not in same:
            making.match(name)
    making.finish()
    learned = {piece.name for piece in making.pieces if piece.path in trainable}
    return Layout(
        pieces=tuple(making.pieces),
        tensors=tensors,
        leaves=leaves,
        order=None if state_dict is None else tuple(name for name in tensors if name in learned),
        tied=same,
        ignored=tuple(making.ignored),
        dtypes=dtypes,
    )


def _shapes(tree: Any) -> dict[str, Shape]:
    if tree is None:
        return {}
    return {path: tuple(leaf.shape) for path, leaf in flatten(tree, abstract=True).present()}


def _read(state_dict: Mapping[str, Any]) -> tuple[dict[str, Shape], dict[str, np.dtype[Any]]]:
    shapes, dtypes = {}, {}
    for name, value in state_dict.items():
        if is_tensor(value):
            shapes[name] = tuple(value.shape)
            dtypes[name] = np.dtype(str(value.dtype).removeprefix("torch."))
        elif isinstance(value, tuple | list) and all(isinstance(n, int) for n in value):
            shapes[name] = tuple(value)
        else:
            raise TypeError(
                f"Expected a model's state dict, from name to tensor; {name!r} is a {type(value).__name__}. "
                "In a training checkpoint the model's is one of the entries."
            )
    return shapes, dtypes


def _tied(state_dict: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    for name, other in given.items():
        if name not in state_dict or other not in state_dict:
            raise ValueError(f"tied={{{name!r}: {other!r}}}: the state dict has no such tensor.")
    first: dict[Any, str] = {}
    found = dict(given)
    for name, value in state_dict.items():
        where = location(value)
        if where is None or name in found:
            continue
        if where in first:
            found[name] = first[where]
        else:
            first[where] = name
    return found
