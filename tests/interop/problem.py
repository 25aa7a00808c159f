"""A small problem in two layouts, written out by hand, and JAX's side of the runs on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

import jaxopt_core as jo
from tests.equivalence.trees import nested

__all__ = ["CORRESPONDENCE", "Problem", "run_ours", "untangled"]

# PyTorch's name, in the order of model.parameters() -> its shape, path, axes of the leaf.
CORRESPONDENCE: dict[str, tuple[tuple[int, ...], str, tuple[int, ...]]] = {
    "stem.weight": ((4, 2, 3, 2), "stem/kernel", (2, 3, 1, 0)),
    "stem.bias": ((4,), "stem/bias", (0,)),
    "norm.weight": ((4,), "norm/scale", (0,)),
    "norm.bias": ((4,), "norm/bias", (0,)),
    "head.0.weight": ((3, 8), "head/0/kernel", (1, 0)),
    "head.0.bias": ((3,), "head/0/bias", (0,)),
    "head.1.weight": ((2, 3), "head/1/kernel", (1, 0)),
    "embed.weight": ((5, 2), "embed/embedding", (0, 1)),
    "gain": ((), "gain", ()),
    "filters": ((3, 2), "filters", (0, 1)),  # complex
}


class Problem:
    """Least squares with noise: gradients that depend on parameters and time, and sometimes are missing."""

    def __init__(
        self, names: Sequence[str], dtype: str = "float64", without: Callable[[int, str], bool] | None = None
    ):
        self.names, self.dtype = list(names), dtype
        self.without = without or (lambda time, name: False)
        self.start = {name: self._draw(name, 0) for name in names}

    def noise(self, time: int, name: str) -> np.ndarray:
        return self._draw(name, time + 1)

    def gradients(self, time: int, params: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """PyTorch's, by name."""
        return {
            name: None
            if self.without(time, name)
            else np.asarray(params[name] * 0.5 + self.noise(time, name))
            for name in self.names
        }

    def tree(self, by_name: Mapping[str, np.ndarray]) -> Any:
        return nested({path: jnp.asarray(untangled(by_name, name)) for name, path in self._paths().items()})

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: CORRESPONDENCE[name][0] for name in self.names}

    def by_name(self, tree: Any) -> dict[str, np.ndarray]:
        flat = {
            jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(leaf)
            for p, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
        }
        return {
            name: flat[path].transpose(np.argsort(CORRESPONDENCE[name][2]))
            for name, path in self._paths().items()
        }

    def _paths(self) -> dict[str, str]:
        return {name: CORRESPONDENCE[name][1] for name in self.names}

    def _draw(self, name: str, seed: int) -> np.ndarray:
        rng = np.random.default_rng([seed, list(CORRESPONDENCE).index(name)])
        shape = CORRESPONDENCE[name][0]
        value = rng.normal(size=shape)
        if name == "filters":
            value = value + 1j * rng.normal(size=shape)
            return value.astype({"float64": "complex128", "float32": "complex64"}[self.dtype])
        return np.asarray(value).astype(self.dtype)


def untangled(by_name: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return by_name[name].transpose(CORRESPONDENCE[name][2])


def run_ours(
    problem: Problem, tx: Any, params: Any, state: Any, times: Sequence[int], **extra: Any
) -> tuple[Any, Any]:
    """Steps at these times, in one compiled program; the same parameters are without gradient at "
    "all of them."""
    noise = {
        CORRESPONDENCE[n][1]: np.stack([untangled({n: problem.noise(t, n)}, n) for t in times])
        for n in problem.names
    }
    stacked = jax.tree.map(jnp.asarray, nested(noise))
    missing = {CORRESPONDENCE[n][1] for n in problem.names if problem.without(times[0], n)}
    if missing:
        state = jo.count_per_parameter(state, params)

    def step(carry: Any, inputs: Any) -> tuple[Any, None]:
        params, state = carry
        noise, extra = inputs

        def gradient(path: Any, param: Any, noise: Any) -> Any:
            if jax.tree_util.keystr(path, simple=True, separator="/") in missing:
                return None
            return jnp.conj(param * 0.5 + noise)

        grads = jax.tree_util.tree_map_with_path(gradient, params, noise)
        updates, state = tx.update(grads, state, params, **extra)
        return (jo.apply_updates(params, updates), state), None

    (params, state), _ = jax.jit(lambda c, xs: jax.lax.scan(step, c, xs))((params, state), (stacked, extra))
    return params, state


def rows(indices: Sequence[int], values: np.ndarray, shape: tuple[int, ...]) -> sparse.BCOO:
    return sparse.BCOO((jnp.asarray(values), jnp.asarray(indices)[:, None]), shape=shape)
