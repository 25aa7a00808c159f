"""The correspondence between PyTorch's tensors and the leaves of a pytree."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxopt_core.groups import ByPath, by_path
from jaxopt_core.interop.patterns import exactly
from jaxopt_core.interop.rules import Piece, Shape, part_shape, place
from jaxopt_core.tree import flatten

__all__ = ["Layout", "LayoutError"]

Array = np.ndarray[Any, Any]


class LayoutError(ValueError):
    """PyTorch's names and the tree do not fit each other; the message lists everything that does not."""

    def __init__(self, what: str, problems: Sequence[str]):
        self.problems = tuple(problems)
        super().__init__(f"{what}:\n" + "\n".join(f"  {problem}" for problem in problems))


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which PyTorch tensor is which leaf of a pytree, and how its axes lie; :func:`make_layout` makes it.

    Attributes:
      pieces: what corresponds to what.
      tensors: PyTorch's name -> shape, parameters and buffers, in the order of the state dict.
      leaves: path -> shape.
      order: the names of the parameters in the order of ``model.parameters()``, by which PyTorch's
        optimizers number them; ``None`` if the layout was made without a state dict.
      tied: name -> name of the tensor that it shares its numbers with.
      ignored: names that have no counterpart.
      dtypes: name -> dtype in PyTorch, where it is known.
    """

    pieces: tuple[Piece, ...]
    tensors: Mapping[str, Shape]
    leaves: Mapping[str, Shape]
    order: tuple[str, ...] | None
    tied: Mapping[str, str]
    ignored: tuple[str, ...]
    dtypes: Mapping[str, np.dtype[Any]]

    def __str__(self) -> str:
        rows = [
            (piece.name, str(piece.tensor_shape), piece.path, str(piece.leaf_shape), _how(piece))
            for piece in self.pieces
        ]
        rows += [
            (name, str(self.tensors[other]), f"tied to {other}", "", "") for name, other in self.tied.items()
        ]
        rows += [(name, "", "left out", "", "") for name in self.ignored]
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(5)]
        lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(line.rstrip() for line in lines)

    @functools.cached_property
    def by_name(self) -> dict[str, list[Piece]]:
        """PyTorch's name -> its pieces."""
        return _grouped(self.pieces, "name")

    @functools.cached_property
    def by_path(self) -> dict[str, list[Piece]]:
        """Path -> its pieces."""
        return _grouped(self.pieces, "path")

    def names(self, path: str) -> list[str]:
        """The tensors that the leaf at ``path`` is made of."""
        return list(dict.fromkeys(piece.name for piece in self.by_path[path]))

    def paths(self, name: str) -> list[str]:
        """The leaves that the tensor is made of."""
        return list(dict.fromkeys(piece.path for piece in self.by_name[name]))

    def leaf(self, path: str, tensors: Mapping[str, Array]) -> Array:
        """The leaf at ``path``, from PyTorch's tensors; a view of them where that can be."""
        pieces = self.by_path[path]
        if pieces[0].put is None:
            return pieces[0].to_leaf(tensors[pieces[0].name])
        leaf = np.empty(self.leaves[path], np.result_type(*[tensors[piece.name] for piece in pieces]))
        for piece in pieces:
            leaf[place(piece.put)] = piece.to_leaf(tensors[piece.name])
        return leaf

    def tensor(self, name: str, leaves: Mapping[str, Array]) -> Array:
        """PyTorch's tensor, from the leaves."""
        pieces = self.by_name[name]
        if pieces[0].cut is None:
            return pieces[0].to_tensor(leaves[pieces[0].path])
        tensor = np.empty(self.tensors[name], np.result_type(*[leaves[piece.path] for piece in pieces]))
        for piece in pieces:
            tensor[place(piece.cut)] = piece.to_tensor(leaves[piece.path])
        return tensor

    def torch_axes(self, params: Any = None) -> ByPath | None:
        """The argument ``axes`` of :func:`adafactor` and :func:`muon` for these leaves.

        Args:
          params: the tree that the optimizer is given, if it is not the whole.

        Example:
          >>> import jax.numpy as jnp, jaxopt_core as jo
          >>> from jaxopt_core import interop
          >>> params = {"fc": {"kernel": jnp.ones((3, 5)), "bias": jnp.ones(5)}}
          >>> tx = jo.adafactor(axes=interop.make_layout(params).torch_axes(params))
          >>> tx.init(params).slots["row_var"]["fc"]["kernel"].shape
          (1, 5)
        """
        moved: dict[tuple[int, ...], list[str]] = {}
        for path in self.leaves if params is None else flatten(params, abstract=True).paths:
            axes = self.matrix_axes(path) if path in self.by_path else None
            if axes is not None and axes != tuple(range(len(axes))):
                moved.setdefault(axes, []).append(path)
        if not moved:
            return None
        return by_path({exactly(paths): axes for axes, paths in moved.items()}, default=None)

    def matrix_axes(self, path: str) -> tuple[int, ...] | None:
        """The permutation for which ``leaf.transpose(axes)`` has PyTorch's last two axes where they were.

        ``None`` if there is none: a vector, a tensor that is cut or joined, or one whose last two axes are
        not each an axis of the leaf.
        """
        piece, *others = self.by_path[path]
        rank = len(piece.leaf_shape)
        if others or piece.cut or piece.put or len(piece.tensor_shape) < 2 or rank != len(piece.tensor_shape):
            return None
        if piece.is_permutation:
            return tuple(np.argsort(piece.axes).tolist())
        last = [_axis_of(piece, axis) for axis in (-2, -1)]
        found = [axis for axis in last if axis is not None]
        return (*(axis for axis in range(rank) if axis not in found), *found) if len(found) == 2 else None


def _axis_of(piece: Piece, axis: int) -> int | None:
    """The axis of the leaf along which, alone, the tensor's ``axis`` goes."""
    length = piece.tensor_shape[axis]
    along = np.arange(length).reshape(
        [-1 if i == len(piece.tensor_shape) + axis else 1 for i in range(len(piece.tensor_shape))]
    )
    where = piece.to_leaf(np.broadcast_to(along, piece.tensor_shape))
    for candidate, size in enumerate(where.shape):
        line = where[tuple(slice(None) if i == candidate else slice(0, 1) for i in range(where.ndim))]
        if size == length and np.array_equal(np.broadcast_to(line, where.shape), where):
            return candidate
    return None


def _grouped(pieces: Sequence[Piece], key: str) -> dict[str, list[Piece]]:
    groups: dict[str, list[Piece]] = {}
    for piece in pieces:
        groups.setdefault(getattr(piece, key), []).append(piece)
    return groups


def _how(piece: Piece) -> str:
    parts = []
    if piece.cut is not None:
        axis, start, stop = piece.cut
        parts.append(f"[{start}:{stop}] of axis {axis}")
    if piece.view != part_shape(piece.tensor_shape, piece.cut):
        parts.append(f"as {piece.view}")
    if piece.axes != tuple(range(len(piece.axes))):
        parts.append(f"axes {piece.axes}")
    if piece.put is not None:
        axis, start, stop = piece.put
        parts.append(f"to [{start}:{stop}] of axis {axis}")
    return ", ".join(parts)
