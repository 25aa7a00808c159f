"""How one PyTorch tensor lies in a pytree: rules given by the user, and Flax's conventions."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

__all__ = [
    "Piece",
    "Rule",
    "after_flatten",
    "is_counter",
    "is_random",
    "natural",
    "part_shape",
    "place",
    "tensor_names",
    "tensor_shape",
]

Shape = tuple[int, ...]

_FLAX = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
_COLLECTIONS = ("params", "batch_stats")  # where Linen's variables begin


@dataclasses.dataclass(frozen=True)
class Rule:
    r"""Where the PyTorch tensors whose whole name matches a pattern go.

    The tensor (or each part of it, if there are several paths) is reshaped to ``view``, its axes are put
    in the order ``axes``, and the result takes the leaf's shape. The way back undoes the three.

    Attributes:
      name: regular expression for the whole name (``r"blocks\.(\d+)\.fc\.weight"``).
      path: the leaf's path, in which ``\1`` stands for the first group of the match
        (``r"layers/\1/kernel"``). Several paths: the tensor is cut along ``axis``, in parts as large as
        the leaves. ``None``: the tensor has no counterpart here and is left out.
      axes: ``view.transpose(axes)`` is the leaf; ``(1, 0)`` for a matrix that is transposed. Default:
        what Flax's convention makes of the shapes.
      view: the shape that the tensor is given first; one entry may be -1. Default: its own.
      part: this tensor is part ``part`` (0, 1, ...) of the leaf, whose parts lie along ``axis``.
      axis: of the tensor if there are several paths, of the leaf if this is a part of it. Default 0.

    Example:
      >>> from jaxopt_core import interop
      >>> rules = [
      ...     interop.Rule(r"(.*)\.qkv\.weight", (r"\1/query/kernel", r"\1/key/kernel", r"\1/value/kernel")),
      ...     interop.Rule(r"(.*)\.w1\.weight", r"\1/gate_and_up/kernel", axes=(1, 0), part=0, axis=1),
      ...     interop.Rule(r"(.*)\.w3\.weight", r"\1/gate_and_up/kernel", axes=(1, 0), part=1, axis=1),
      ...     interop.Rule(r".*\.attn\.mask", None),
      ... ]
    """

    name: str
    path: str | tuple[str, ...] | None
    axes: tuple[int, ...] | None = None
    view: tuple[int, ...] | None = None
    part: int | None = None
    axis: int = 0


def after_flatten(name: str, path: str, channels: int, height: int, width: int) -> Rule:
    r"""The rule for a Linear layer that follows the flattening of images.

    PyTorch flattens ``(N, C, H, W)``, Flax ``(N, H, W, C)``, so the columns of the weight come in another
    order, besides being rows.

    Args:
      name: regular expression for the whole name of PyTorch's weight, ``(out, C * H * W)``.
      path: the path of the kernel, ``(H * W * C, out)``.
      channels: C of the images that are flattened.
      height: H.
      width: W.

    Returns:
      The rule.

    Example:
      >>> from jaxopt_core import interop
      >>> interop.after_flatten(r"fc1\.weight", "fc1/kernel", channels=64, height=7, width=7).view
      (-1, 64, 7, 7)
    """
    return Rule(name, path, view=(-1, channels, height, width), axes=(2, 3, 1, 0))


class Piece(NamedTuple):
    """A tensor, or a part of it, and the leaf, or the part of one, that holds the same numbers.

    ``cut`` and ``put`` are ``(axis, start, stop)`` of tensor and leaf, ``None`` for the whole.
    """

    name: str
    path: str
    tensor_shape: Shape
    leaf_shape: Shape
    view: Shape
    axes: tuple[int, ...]
    cut: tuple[int, int, int] | None = None
    put: tuple[int, int, int] | None = None

    def to_leaf(self, tensor: np.ndarray) -> np.ndarray:
        """This part of the leaf."""
        moved = tensor[place(self.cut)].reshape(self.view).transpose(self.axes)
        return moved.reshape(part_shape(self.leaf_shape, self.put))

    def to_tensor(self, leaf: np.ndarray) -> np.ndarray:
        """This part of the tensor."""
        moved = leaf[place(self.put)].reshape([self.view[axis] for axis in self.axes])
        return moved.transpose(np.argsort(self.axes)).reshape(part_shape(self.tensor_shape, self.cut))

    @property
    def is_permutation(self) -> bool:
        """Whether the leaf is the tensor with its axes in another order, and no more."""
        permuted = tuple(self.view[axis] for axis in self.axes)
        whole = self.cut is None and self.put is None
        return whole and self.view == self.tensor_shape and permuted == self.leaf_shape

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.view)


def part_shape(shape: Shape, part: tuple[int, int, int] | None) -> Shape:
    """The shape of a part of an array of ``shape``."""
    if part is None:
        return shape
    axis, start, stop = part
    return (*shape[:axis], stop - start, *shape[axis + 1 :])


def place(part: tuple[int, int, int] | None) -> tuple[slice, ...]:
    """What to index an array with, to read or write a part of it."""
    return () if part is None else (slice(None),) * part[0] + (slice(part[1], part[2]),)


def tensor_names(path: str) -> tuple[str, str]:
    """PyTorch's name of the leaf at ``path`` by Flax's convention, and the path itself as a name.

    Example:
      >>> tensor_names("layer1/0/conv1/kernel")
      ('layer1.0.conv1.weight', 'layer1.0.conv1.kernel')
    """
    parts = path.split("/")
    if len(parts) > 1 and parts[0] in _COLLECTIONS:
        parts = parts[1:]
    return ".".join([*parts[:-1], _FLAX.get(parts[-1], parts[-1])]), ".".join(parts)


def is_random(path: str) -> bool:
    """Whether a leaf belongs to Flax's random streams, which PyTorch does not keep in a model."""
    return "rngs" in path.split("/")


def is_counter(name: str) -> bool:
    """Whether a path or a name is that of the number of batches that a batch normalization has seen."""
    return name.replace(".", "/").split("/")[-1] == "num_batches_tracked"


def natural(path: str, tensor: Shape, leaf: Shape) -> tuple[Shape, tuple[int, ...]] | None:
    """View and axes by Flax's convention, or ``None`` if the shapes do not fit it."""
    parts = path.split("/")
    if parts[-1] == "kernel" and len(tensor) >= 2:
        return _kernel(parts[-2] if len(parts) > 1 else "", tensor, leaf)
    if tensor == leaf:
        return tensor, tuple(range(len(tensor)))
    if parts[-1] == "bias" and len(tensor) == 1 and math.prod(tensor) == math.prod(leaf):
        return leaf, tuple(range(len(leaf)))  # (heads * dim,) and (heads, dim)
    return None


def _kernel(layer: str, tensor: Shape, leaf: Shape) -> tuple[Shape, tuple[int, ...]] | None:
    rank = len(leaf)
    axes = (*range(2, rank), 1, 0)
    if len(tensor) == rank:
        return (tensor, axes) if tuple(tensor[axis] for axis in axes) == leaf else None
    if len(tensor) != 2 or rank != 3:
        return None
    first, second, third = leaf
    fits = {}
    if tensor == (third, first * second):
        fits["out"] = (third, first, second), (1, 2, 0)  # (heads, dim, out)
    if tensor == (second * third, first):
        fits["in"] = (second, third, first), (2, 0, 1)  # (in, heads, dim)
    return fits.get("out" if layer.startswith("out") else "in", next(iter(fits.values()), None))


def tensor_shape(path: str, leaf: Shape) -> Shape:
    """The shape that PyTorch's tensor has by convention, where only the tree is known."""
    parts = path.split("/")
    layer = parts[-2] if len(parts) > 1 else ""
    if parts[-1] == "kernel" and len(leaf) == 3 and layer in ("query", "key", "value"):
        return leaf[1] * leaf[2], leaf[0]
    if parts[-1] == "kernel" and len(leaf) == 3 and layer == "out":
        return leaf[2], leaf[0] * leaf[1]
    if parts[-1] == "kernel" and len(leaf) >= 2:
        return (leaf[-1], leaf[-2], *leaf[:-2])
    if parts[-1] == "bias" and len(leaf) > 1:
        return (math.prod(leaf),)
    return leaf
