"""Convolutions and pooling of ``(N, H, W, C)`` with PyTorch's arguments and paddings."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from jaxopt_core.models.initializers import Initializer, torch_default

__all__ = ["Conv1d", "Conv2d", "avg_pool2d", "max_pool2d"]

Size = int | tuple[int, ...]
Padding = Size | Literal["same", "valid"]


class _Conv(nnx.Conv):
    _rank: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        if in_channels % groups:
            raise ValueError(f"in_channels must be divisible by groups, found {in_channels} and {groups}")
        if out_channels % groups:
            raise ValueError(f"out_channels must be divisible by groups, found {out_channels} and {groups}")
        window = _sizes(kernel_size, self._rank)
        strides = _sizes(stride, self._rank)
        if padding == "same" and any(s != 1 for s in strides):
            raise ValueError("padding='same' is not supported for strided convolutions")
        default = torch_default(in_channels // groups * math.prod(window))
        super().__init__(
            in_channels,
            out_channels,
            window,
            strides,
            padding=padding.upper() if isinstance(padding, str) else _pairs(padding, self._rank),
            kernel_dilation=_sizes(dilation, self._rank),
            feature_group_count=groups,
            use_bias=bias,
            kernel_init=kernel_init or default,
            bias_init=bias_init or default,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )


class Conv1d(_Conv):
    """A convolution of ``(N, L, C)``, as ``torch.nn.Conv1d`` of ``(N, C, L)``; see :class:`Conv2d`.

    Example:
        >>> Conv1d(3, 8, kernel_size=5, stride=2, padding=2, rngs=nnx.Rngs(0))(jnp.ones((2, 11, 3))).shape
        (2, 6, 8)
    """

    _rank = 1


class Conv2d(_Conv):
    """A convolution of images ``(N, H, W, C)``, as ``torch.nn.Conv2d`` of ``(N, C, H, W)``.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: the window; one integer for all axes or one for each.
        stride: steps of the window. Default 1.
        padding: zeros on both sides of each axis, or "valid" for none, or "same". Default 0. (Flax's
            default is "SAME", which for even sizes and strides pads one side more: another network.)
        dilation: distance between the window's points. Default 1.
        groups: channels are connected only within so many groups. Default 1.
        bias: add one. Default True.
        kernel_init: default uniform in ``±1/sqrt(fan_in)``, as is the bias; Flax's is LeCun normal.
        bias_init: see ``kernel_init``; Flax's is zeros.
        dtype: of the computation. Default: of input and parameters together.
        param_dtype: of the parameters. Default float32.
        rngs: where the starting values come from.

    Raises:
        ValueError: channels that ``groups`` does not divide, or "same" with a stride.

    Example:
        >>> Conv2d(3, 8, 3, stride=2, padding=1, rngs=nnx.Rngs(0))(jnp.ones((2, 32, 32, 3))).shape
        (2, 16, 16, 8)
    """

    _rank = 2


def max_pool2d(x: jax.Array, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> jax.Array:
    """Maxima over windows of images ``(N, H, W, C)``, as ``torch.nn.functional.max_pool2d``.

    Args:
        x: images.
        kernel_size: the window.
        stride: steps of the window. Default: its size.
        padding: rows and columns that never win, on both sides. Default 0.

    Raises:
        ValueError: padding of more than half of the window.

    Example:
        >>> max_pool2d(jnp.ones((1, 8, 8, 3)), 3, stride=2, padding=1).shape
        (1, 4, 4, 3)
    """
    window, pairs = _sizes(kernel_size, 2), _pairs(padding, 2)
    _check_pool_padding(window, pairs)
    return nnx.max_pool(x, window, window if stride is None else _sizes(stride, 2), pairs)


def avg_pool2d(x: jax.Array, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> jax.Array:
    """Means over windows of images ``(N, H, W, C)``, as ``torch.nn.functional.avg_pool2d``.

    Args:
        x: images.
        kernel_size: the window.
        stride: steps of the window. Default: its size.
        padding: rows and columns of zeros, which count, on both sides. Default 0.

    Raises:
        ValueError: padding of more than half of the window.

    Example:
        >>> avg_pool2d(jnp.ones((1, 8, 8, 3)), 2).shape
        (1, 4, 4, 3)
    """
    window, pairs = _sizes(kernel_size, 2), _pairs(padding, 2)
    _check_pool_padding(window, pairs)
    strides = window if stride is None else _sizes(stride, 2)
    # nnx.avg_pool divides by an integer, which strict promotion of dtypes refuses.
    return nnx.pool(x, 0.0, jax.lax.add, window, strides, pairs) / math.prod(window)


def _sizes(size: Size, rank: int) -> tuple[int, ...]:
    return (size,) * rank if isinstance(size, int) else tuple(size)


def _pairs(padding: Size, rank: int) -> list[tuple[int, int]]:
    return [(p, p) for p in _sizes(padding, rank)]


def _check_pool_padding(window: Sequence[int], pairs: Sequence[tuple[int, int]]) -> None:
    if any(p > w // 2 for w, (p, _) in zip(window, pairs, strict=True)):
        raise ValueError(
            f"pad should be at most half of effective kernel size, but got padding={pairs[0][0]}, "
            f"kernel_size={tuple(window)}"
        )
