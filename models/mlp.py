"""A multilayer perceptron that starts where PyTorch's would."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxopt_core.models.layers import Linear


class MLP(nnx.Module):
    """Linear layers with an activation between them.

    The counterpart of ``nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c))``. Weights and
    biases start as ``torch.nn.Linear``'s do, uniform in ``±1/sqrt(fan_in)``, not as Flax's default
    (LeCun normal, zero biases). A kernel has shape ``(in, out)``, PyTorch's weight transposed.

    Args:
        widths: features of the input, of each hidden layer and of the output; at least two positive
            integers. ``(784, 128, 10)`` for MNIST.
        rngs: where the initial values come from, for example ``nnx.Rngs(0)``.
        activation: applied elementwise after every layer but the last. Default ReLU.
        param_dtype: of the parameters. Default float32.

    Raises:
        ValueError: fewer than two widths, or one that is not positive.

    Example:
        >>> model = MLP((64, 128, 10), rngs=nnx.Rngs(0))
        >>> model(jnp.zeros((5, 64))).shape
        (5, 10)
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        rngs: nnx.Rngs,
        activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
        param_dtype: Any = jnp.float32,
    ) -> None:
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"widths: expected two or more positive integers, found {widths}")
        self.activation = activation
        self.layers = nnx.List(
            Linear(fan_in, fan_out, param_dtype=param_dtype, rngs=rngs)
            for fan_in, fan_out in itertools.pairwise(widths)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``(..., widths[0])`` features to ``(..., widths[-1])`` logits."""
        for i, layer in enumerate(self.layers):
            with jax.named_scope(f"layers.{i}"):
                x = layer(x if i == 0 else self.activation(x))
        return x
