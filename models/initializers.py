"""Starting values with the distributions of ``torch.nn.init``.

Each is called as ``init(key, shape, dtype)``, with shapes as Flax has them: a dense kernel is
``(in, out)``, a convolution's ``(*window, in / groups, out)``.
"""

import functools
import math
from collections.abc import Sequence
from typing import Literal, Protocol

import jax
from jax.nn.initializers import normal, variance_scaling

__all__ = ["Initializer", "kaiming_normal", "kaiming_uniform", "normal", "torch_default", "uniform_within"]


class Initializer(Protocol):
    """What Flax's layers take as ``kernel_init`` and ``bias_init``."""

    def __call__(
        self, key: jax.Array, shape: Sequence[int], dtype: jax.typing.DTypeLike = ..., /
    ) -> jax.Array:
        """Returns an array of this shape."""


@functools.cache
def kaiming_uniform(a: float = 0.0, mode: Literal["fan_in", "fan_out"] = "fan_in") -> Initializer:
    """Uniform in ``±sqrt(6 / ((1 + a**2) * fan))``, as ``torch.nn.init.kaiming_uniform_``.

    Source: He et al., "Delving Deep into Rectifiers", 2015, equation 15.

    Args:
        a: negative slope of the leaky ReLU that follows; 0 for a ReLU.
        mode: keep the variance of the activations (``fan_in``) or of the gradients (``fan_out``).

    Example:
        >>> kernel = kaiming_uniform()(jax.random.key(0), (6, 4))
        >>> kernel.shape, float(abs(kernel).max()) <= 1
        ((6, 4), True)
    """
    return _compiled(variance_scaling(2 / (1 + a * a), mode, "uniform"))


@functools.cache
def kaiming_normal(a: float = 0.0, mode: Literal["fan_in", "fan_out"] = "fan_in") -> Initializer:
    """Normal with variance ``2 / ((1 + a**2) * fan)``, as ``torch.nn.init.kaiming_normal_``.

    ``jax.nn.initializers.he_normal`` has the same variance, but cuts the normal distribution off at
    two standard deviations.

    Args:
        a: negative slope of the leaky ReLU that follows; 0 for a ReLU.
        mode: keep the variance of the activations (``fan_in``) or of the gradients (``fan_out``).

    Example:
        >>> kernel = kaiming_normal(mode="fan_out")(jax.random.key(0), (3, 3, 8, 4))
        >>> kernel.shape
        (3, 3, 8, 4)
    """
    return _compiled(variance_scaling(2 / (1 + a * a), mode, "normal"))


def uniform_within(bound: float) -> Initializer:
    """Uniform in ``±bound``.

    Args:
        bound: largest absolute value.

    Example:
        >>> weights = uniform_within(0.1)(jax.random.key(0), (100,))
        >>> bool(abs(weights).max() <= 0.1)
        True
    """

    def init(key: jax.Array, shape: Sequence[int], dtype: jax.typing.DTypeLike = float, /) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, minval=-bound, maxval=bound)

    return init


def torch_default(fan_in: int) -> Initializer:
    """What ``torch.nn.Linear`` and the convolutions draw weights and biases from: ``±1/sqrt(fan_in)``.

    PyTorch writes it as ``kaiming_uniform_(a=sqrt(5))``, which for a weight is the same.

    Args:
        fan_in: inputs of one output: of a convolution, the window's size times the channels of a group.

    Example:
        >>> torch_default(100)(jax.random.key(0), (2, 3)).shape
        (2, 3)
    """
    return uniform_within(1 / math.sqrt(fan_in) if fan_in else 0.0)


def _compiled(init: Initializer) -> Initializer:
    """One program for each shape, not one for each operation: a network has many shapes to compile."""
    return jax.jit(init, static_argnums=(1, 2))
