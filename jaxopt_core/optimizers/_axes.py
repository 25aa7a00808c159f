"""How the axes of a parameter map onto those of PyTorch's tensor."""

from __future__ import annotations

from typing import Any

import jax

__all__ = ["torch_axes"]


def torch_axes(param: jax.Array, axes: Any) -> tuple[int, ...]:
    """The axes of ``param`` in the order in which PyTorch's tensor has them.

    Raises:
      ValueError: ``axes`` is not a permutation of the parameter's axes.
    """
    if axes is None:
        return tuple(range(param.ndim))
    axes = tuple(axes) if isinstance(axes, list) else axes
    if not isinstance(axes, tuple) or sorted(axes) != list(range(param.ndim)):
        raise ValueError(
            f"axes={axes!r} is not a permutation of the {param.ndim} axes of a parameter of shape "
            f"{param.shape}; use by_path to give it to the parameters that it is meant for"
        )
    return axes
