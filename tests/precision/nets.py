"""Three networks with their parameters and data, as functions ``(params, x, y) -> (output, loss)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["NETS", "Net", "gelu_tower", "norm"]

WIDTH, HEADS, LENGTH = 32, 4, 16


class Net(NamedTuple):
    ours: Callable[..., Any]
    params: dict[str, np.ndarray]
    x: np.ndarray
    y: np.ndarray
    products: int  # matrix products and convolutions of the forward pass


class Draw:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, *shape: int, scale: float | None = None, around: float = 0.0) -> np.ndarray:
        scale = 1 / np.sqrt(shape[0]) if scale is None else scale
        return (around + scale * self.rng.standard_normal(shape)).astype(np.float32)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1))


def norm(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    mean = jnp.mean(x, axes, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(jnp.var(x, axes, keepdims=True) + 1e-5)


def mlp(p: Any, x: Any, y: Any) -> Any:
    for i in range(3):
        x = x @ p[f"w{i}"] + p[f"b{i}"][None]
        x = jax.nn.relu(x) if i < 2 else x
    return x, cross_entropy(x, y)


def conv(p: Any, x: Any, y: Any) -> Any:
    layout = ("NCHW", "OIHW", "NCHW")
    for i in range(2):
        x = jax.lax.conv_general_dilated(x, p[f"k{i}"], (1, 1), "SAME", dimension_numbers=layout)
        x = norm(x, (0, 2, 3)) * p[f"g{i}"][None, :, None, None] + p[f"c{i}"][None, :, None, None]
        x = jax.nn.relu(x)
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = jnp.mean(x, (2, 3)) @ p["w"] + p["b"][None]
    return x, cross_entropy(x, y)


def transformer(p: Any, x: Any, y: Any) -> Any:
    h = norm(x, (-1,)) * p["g0"][None, None] + p["c0"][None, None]
    q, k, v = (jnp.reshape(h @ p[name], (*h.shape[:2], HEADS, -1)) for name in "qkv")
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1]).astype(np.float32)
    causal = np.tril(np.ones((1, 1, LENGTH, LENGTH), bool))
    attention = jax.nn.softmax(jnp.where(causal, logits, jnp.finfo(logits.dtype).min))
    x = x + jnp.reshape(jnp.einsum("bhqk,bkhd->bqhd", attention, v), x.shape) @ p["o"]
    h = norm(x, (-1,)) * p["g1"][None, None] + p["c1"][None, None]
    h = jax.nn.gelu(h @ p["u"] + p["ub"][None, None], approximate=False)
    x = x + h @ p["w"] + p["wb"][None, None]
    return x, jnp.mean((x - y) ** 2)


def gelu_tower(p: Any, x: Any) -> jax.Array:
    """A dozen layers whose activations are most of what is saved for the backward pass."""
    for w, b in p:
        x = jax.nn.gelu(x @ w + b[None])
    return jnp.mean(x**2)


def _mlp_params(draw: Draw) -> dict[str, np.ndarray]:
    shapes = [(64, 128), (128, 128), (128, 10)]
    weights = {f"w{i}": draw(*shape) for i, shape in enumerate(shapes)}
    return weights | {f"b{i}": draw(shape[1], scale=0.1) for i, shape in enumerate(shapes)}


def _conv_params(draw: Draw) -> dict[str, np.ndarray]:
    params = {"k0": draw(8, 3, 3, 3, scale=0.2), "k1": draw(16, 8, 3, 3, scale=0.1)}
    for i, width in enumerate((8, 16)):
        params |= {f"g{i}": draw(width, scale=0.1, around=1.0), f"c{i}": draw(width, scale=0.1)}
    return params | {"w": draw(16, 10), "b": draw(10, scale=0.1)}


def _transformer_params(draw: Draw) -> dict[str, np.ndarray]:
    params = {name: draw(WIDTH, WIDTH) for name in "qkvo"}
    for i in range(2):
        params |= {f"g{i}": draw(WIDTH, scale=0.1, around=1.0), f"c{i}": draw(WIDTH, scale=0.1)}
    params |= {"u": draw(WIDTH, 4 * WIDTH), "ub": draw(4 * WIDTH, scale=0.1)}
    return params | {"w": draw(4 * WIDTH, WIDTH), "wb": draw(WIDTH, scale=0.1)}


def _labels(count: int) -> np.ndarray:
    return np.random.default_rng(9).integers(0, 10, count)


_draw = Draw(0)
_sequence = (8, LENGTH, WIDTH)
NETS = {
    "mlp": Net(mlp, _mlp_params(_draw), _draw(32, 64, scale=1.0), _labels(32), 3),
    "conv": Net(conv, _conv_params(_draw), _draw(16, 3, 12, 12, scale=1.0), _labels(16), 3),
    "transformer": Net(
        transformer, _transformer_params(_draw), _draw(*_sequence, scale=1.0), _draw(*_sequence, scale=1.0), 8
    ),
}
