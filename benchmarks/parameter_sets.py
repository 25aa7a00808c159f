"""The parameters that the benchmarks step: the shapes of real networks, and two extremes."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

__all__ = ["SETS", "Leaf", "ParameterSet", "parameter_set", "sample", "value"]

SETS = ("mlp", "resnet50", "gpt2", "single", "many")
_CONV = (3, 2, 0, 1)  # HWIO, as Flax keeps a kernel, to PyTorch's OIHW
_DENSE = (1, 0)
_BLOCK = np.random.default_rng(0).standard_normal(1_000_003, dtype=np.float32)


class Leaf(NamedTuple):
    """One parameter.

    Attributes:
      path: its name, and its key in the tree of parameters.
      shape: in JAX's layout.
      axes: ``array.transpose(axes)`` is PyTorch's tensor; None where the layouts are the same.
    """

    path: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None = None


class ParameterSet(NamedTuple):
    """Parameters that are stepped together: a name for the tables, and the leaves."""

    name: str
    leaves: tuple[Leaf, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return sum(math.prod(leaf.shape) for leaf in self.leaves)


def parameter_set(name: str, quick: bool = False) -> ParameterSet:
    """One of ``SETS``.

    Args:
      name: ``mlp`` (784-128-10), ``resnet50`` (torchvision's, HWIO kernels), ``gpt2`` (small, tied
        embedding), ``single`` (8192 x 8192) or ``many`` (2000 vectors of 64).
      quick: the same kinds of leaves, but few and tiny.

    Example:
      >>> parameter_set("resnet50").size, len(parameter_set("gpt2").leaves)
      (25557032, 148)
    """
    match name:
        case "mlp":
            leaves = _mlp((12, 8, 4) if quick else (784, 128, 10))
        case "resnet50":
            leaves = _resnet(8, (1,), 10) if quick else _resnet(64, (3, 4, 6, 3), 1000)
        case "gpt2":
            leaves = _gpt(1, 16, 32, 8) if quick else _gpt(12, 768, 50257, 1024)
        case "single":
            leaves = [Leaf("kernel", (64, 64) if quick else (8192, 8192), _DENSE)]
        case "many":
            leaves = [Leaf(f"vector{i:04}", (64,)) for i in range(40 if quick else 2000)]
        case _:
            raise ValueError(f"Unknown parameter set {name!r}; expected one of {', '.join(SETS)}")
    return ParameterSet(name, tuple(leaves))


def value(leaf: Leaf, index: int, *, gradient: bool) -> np.ndarray:
    """The array of a leaf, in JAX's layout: normal, of deviation 1 for gradients and 0.02 otherwise.

    Args:
      leaf: which.
      index: its position in its set, so that leaves of one shape differ.
      gradient: whether the gradient is wanted, or the initial parameter.
    """
    size = math.prod(leaf.shape)
    start = (7919 * (2 * index + gradient)) % len(_BLOCK)
    flat = np.resize(_BLOCK[start:], size) if size <= len(_BLOCK) - start else np.resize(_BLOCK, size)
    return (flat * np.float32(1.0 if gradient else 0.02)).reshape(leaf.shape)


def sample(array: np.ndarray, count: int = 1024) -> np.ndarray:
    """Elements by which two results are compared: the first, the last, and evenly spaced ones."""
    flat = array.reshape(-1)
    stride = max(1, flat.size // count)
    return np.concatenate([flat[:count], flat[::stride], flat[-count:]])


def _mlp(widths: tuple[int, ...]) -> list[Leaf]:
    return [
        leaf
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths))
        for leaf in _dense(f"layers/{i}", fan_in, fan_out)
    ]


def _resnet(width: int, blocks: tuple[int, ...], classes: int) -> list[Leaf]:
    leaves = [*_conv("stem", 7, 3, width)]
    channels = width
    for stage, repeats in enumerate(blocks):
        inner = width * 2**stage
        for block in range(repeats):
            name = f"stage{stage}/block{block}"
            leaves += _conv(f"{name}/reduce", 1, channels, inner)
            leaves += _conv(f"{name}/spatial", 3, inner, inner)
            leaves += _conv(f"{name}/expand", 1, inner, 4 * inner)
            if block == 0:
                leaves += _conv(f"{name}/shortcut", 1, channels, 4 * inner)
            channels = 4 * inner
    return leaves + _dense("head", channels, classes)


def _gpt(layers: int, width: int, vocabulary: int, context: int) -> list[Leaf]:
    leaves = [Leaf("embed/tokens", (vocabulary, width)), Leaf("embed/positions", (context, width))]
    for i in range(layers):
        leaves += _norm(f"block{i:02}/norm1", width)
        leaves += _dense(f"block{i:02}/attention/qkv", width, 3 * width)
        leaves += _dense(f"block{i:02}/attention/out", width, width)
        leaves += _norm(f"block{i:02}/norm2", width)
        leaves += _dense(f"block{i:02}/mlp/in", width, 4 * width)
        leaves += _dense(f"block{i:02}/mlp/out", 4 * width, width)
    return leaves + _norm("norm", width)


def _dense(name: str, fan_in: int, fan_out: int) -> list[Leaf]:
    return [Leaf(f"{name}/kernel", (fan_in, fan_out), _DENSE), Leaf(f"{name}/bias", (fan_out,))]


def _norm(name: str, width: int) -> list[Leaf]:
    return [Leaf(f"{name}/scale", (width,)), Leaf(f"{name}/bias", (width,))]


def _conv(name: str, size: int, channels: int, features: int) -> list[Leaf]:
    """A convolution without bias and the batch norm behind it."""
    kernel = Leaf(f"{name}/kernel", (size, size, channels, features), _CONV)
    return [kernel, *_norm(f"{name}/norm", features)]
