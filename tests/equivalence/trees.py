"""The parameter trees and gradient sequences that the rows name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes  # noqa: F401, registers bfloat16 with numpy
import numpy as np

from tests.oracle import Rows

__all__ = ["GRADIENTS", "TREES", "draw", "flat_gradients", "nested", "parameters", "quadratic"]

# path -> shape; a complex leaf is marked by "complex" in its path.
# Compiling is what a row costs, and that grows with the leaves: the default has few.
TREES: dict[str, dict[str, tuple[int, ...]]] = {
    "small": {"scale": (), "kernel": (4, 3), "complex": (3,)},
    "mixed": {
        "scale": (),
        "layers/0/bias": (5,),
        "layers/0/kernel": (4, 3),
        "conv/kernel": (3, 2, 2, 2),
        "empty": (0, 3),
        "complex": (3,),
    },
    "real": {
        "scale": (),
        "layers/0/bias": (5,),
        "layers/0/kernel": (4, 3),
        "conv/kernel": (3, 2, 2, 2),
        "empty": (0, 3),
    },
    # PyTorch's Adafactor divides by the number of elements: no empty leaf.
    "factored": {
        "scale": (),
        "layers/0/bias": (5,),
        "layers/0/kernel": (4, 3),
        "layers/1/kernel": (2, 3, 4),
        "conv/kernel": (3, 2, 2, 2),
    },
    "matrices": {"tall": (6, 3), "wide": (3, 8), "square": (4, 4)},
    "all matrices": {"tall": (6, 3), "wide": (3, 8), "square": (4, 4), "row": (1, 5), "column": (5, 1)},
    "layers": {
        "layers/0/bias": (3,),
        "layers/0/kernel": (4, 3),
        "layers/1/bias": (2,),
        "layers/1/kernel": (3, 2),
    },
    "few": {"bias": (3,), "kernel": (3, 2)},
    # Leaves of one shape are computed together on one CPU.
    "twins": {
        "0/bias": (3,),
        "0/kernel": (3, 3),
        "1/bias": (3,),
        "1/kernel": (3, 3),
        "2/kernel": (3, 3),
        "a/x": (),
        "b/x": (),
    },
    "tables": {"words": (7, 3), "places": (5,)},
    "all tables": {"words": (7, 3), "places": (5,), "pairs": (4, 2, 2)},
}


def parameters(tree: str, dtype: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Normal initial values, path -> array."""
    rng = np.random.default_rng(seed)
    return {path: draw(rng, path, shape, dtype) for path, shape in TREES[tree].items()}


def flat_gradients(
    kind: str, params: Mapping[str, np.ndarray], dtype: str, steps: int, seed: int = 1
) -> list[dict[str, Any]]:
    """Per step, path -> gradient in PyTorch's convention, or ``None``."""
    rng = np.random.default_rng(seed)
    out = []
    for t in range(steps):
        step = {path: draw(rng, path, p.shape, dtype) for path, p in params.items()}
        out.append({path: GRADIENTS[kind](t, i, g) for i, (path, g) in enumerate(step.items())})
    return out


def quadratic(params: Mapping[str, np.ndarray]) -> Callable[[int, Mapping[str, np.ndarray]], dict[str, Any]]:
    """Gradients of a coupled least-squares loss at whatever parameters each side has reached."""
    target = {path: 0.5 * np.roll(p, 1) for path, p in params.items()}

    def gradients(step: int, current: Mapping[str, np.ndarray]) -> dict[str, Any]:
        del step
        out = {}
        for path, p in current.items():
            residual = p - target[path]
            curvature = np.linspace(0.5, 2.0, p.size).reshape(p.shape)
            coupling = 0.1 * residual.mean() if p.size else 0
            out[path] = np.asarray(curvature * residual + coupling).astype(p.dtype)
        return out

    return gradients


def _extreme(double: float, single: float) -> Callable[[int, int, np.ndarray], Any]:
    def scaled(t: int, i: int, g: np.ndarray) -> Any:
        del t, i
        return g * (double if g.dtype.itemsize > 4 and g.dtype != np.complex64 else single)

    return scaled


def _some_missing(t: int, i: int, g: np.ndarray) -> Any:
    # All there for two steps; then two parameters in three now and then; nothing at all in step 7.
    return None if t == 7 or (t > 1 and t % 3 != 0 and i % 3 != 0) else g


def _rows(t: int, i: int, g: np.ndarray, count: int) -> Rows:
    """`count` rows of a gradient, some of them twice if there are more than rows in the table."""
    rng = np.random.default_rng([t, i])
    indices = rng.integers(0, len(g), count)
    return Rows(indices, rng.normal(size=(count, *g.shape[1:])).astype(g.dtype))


GRADIENTS: dict[str, Callable[[int, int, np.ndarray], Any]] = {
    "normal": lambda t, i, g: g,
    "zero": lambda t, i, g: np.zeros_like(g),
    "often zero": lambda t, i, g: np.where(g.real > 0.3, g, np.zeros_like(g)) if t % 4 else np.zeros_like(g),
    "huge": _extreme(1e30, 1e15),
    "tiny": _extreme(1e-30, 1e-30),
    "small": _extreme(1e-15, 1e-15),
    "spread": lambda t, i, g: (g * np.exp(8 * g.real)).astype(g.dtype),
    "some missing": _some_missing,
    "first missing": lambda t, i, g: None if t == 0 and i % 2 else g,
    "rows": lambda t, i, g: _rows(t, i, g, 4),
    "now and then rows": lambda t, i, g: _rows(t, i, g, (6, 0, 2)[t % 3]),
    "rows missing": lambda t, i, g: None if t > 1 and (t + i) % 3 == 0 else _rows(t, i, g, 4),
    "repeated row": lambda t, i, g: Rows(np.full(4, 2), np.stack([g[0], g[1], -g[0], 0 * g[0]])),
    "never": lambda t, i, g: None if i == 1 else g,
}


def nested(flat: Mapping[str, Any]) -> Any:
    """Builds the pytree of a path -> leaf mapping; numbers in a path are positions in a list."""
    if list(flat) == [""]:
        return flat[""]
    groups: dict[str, dict[str, Any]] = {}
    for path, leaf in flat.items():
        head, _, rest = path.partition("/")
        groups.setdefault(head, {})[rest] = leaf
    if all(head.isdigit() for head in groups):
        return [nested(groups[head]) for head in sorted(groups, key=int)]
    return {head: nested(group) for head, group in groups.items()}


def draw(rng: np.random.Generator, path: str, shape: Sequence[int], dtype: str) -> np.ndarray:
    """Normal numbers; complex ones where the path says so."""
    if "complex" in path:
        value = rng.normal(size=shape) + 1j * rng.normal(size=shape)
        return np.asarray(value).astype({"float64": "complex128", "float32": "complex64"}[dtype])
    return np.asarray(rng.normal(size=shape)).astype(dtype)
