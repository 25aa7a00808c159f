"""Objectives for LBFGS, written once for both sides, and a run of ours like the oracle's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_core as jo
from jaxopt_core.optimizers.lbfgs import LBFGSState, lbfgs
from tests import oracle

__all__ = [
    "Loss",
    "Params",
    "cliff",
    "complex_tree",
    "errors",
    "exponential",
    "gradient",
    "kink",
    "linear",
    "logarithm",
    "logistic",
    "network",
    "promoted",
    "quadratic",
    "rosenbrock",
    "run",
    "saddle",
    "stepper",
]

Params = dict[str, Any]
Loss = Callable[[Any, Mapping[str, Any]], Any]  # (jax.numpy or torch, parameters) -> loss


def rosenbrock(dtype: Any) -> tuple[Loss, Params]:
    def loss(xp: Any, p: Mapping[str, Any]) -> Any:
        del xp
        return 100 * (p["y"] - p["x"] ** 2) ** 2 + (1 - p["x"]) ** 2

    return loss, {"x": np.asarray(-1.2, dtype), "y": np.asarray(1.0, dtype)}


def quadratic(dtype: Any) -> tuple[Loss, Params]:
    """Condition number 1e4."""
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    a, b = ((q * np.geomspace(1, 1e4, 12)) @ q.T).astype(dtype), rng.standard_normal(12).astype(dtype)

    def loss(xp: Any, p: Mapping[str, Any]) -> Any:
        return 0.5 * xp.sum(p["x"] * (xp.asarray(a) @ p["x"])) - xp.sum(xp.asarray(b) * p["x"])

    return loss, {"x": np.ones(12, dtype)}


def logistic(dtype: Any) -> tuple[Loss, Params]:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((40, 5)).astype(dtype), np.sign(rng.standard_normal(40)).astype(dtype)

    def loss(xp: Any, p: Mapping[str, Any]) -> Any:
        margin = xp.asarray(y) * (xp.asarray(x) @ p["w"] + p["b"])
        return xp.mean(xp.log1p(xp.exp(-margin))) + 0.01 * xp.sum(p["w"] ** 2)

    return loss, {"b": np.zeros((), dtype), "w": np.full(5, 0.5, dtype)}


def network(dtype: Any) -> tuple[Loss, Params]:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((30, 3)).astype(dtype)
    y = np.sin(x.sum(1)).astype(dtype)

    def loss(xp: Any, p: Mapping[str, Any]) -> Any:
        hidden = xp.tanh(xp.asarray(x) @ p["w1"] + p["b1"][None])
        return xp.mean((hidden @ p["w2"] + p["b2"] - xp.asarray(y)) ** 2)

    shapes = {"b1": (4,), "b2": (), "w1": (3, 4), "w2": (4,)}
    return loss, {n: np.asarray(rng.standard_normal(s)).astype(dtype) for n, s in shapes.items()}


def complex_tree(dtype: Any) -> tuple[Loss, Params]:
    """Complex, matrix, scalar and vector leaves, and one (`idle`) that the loss does not depend on."""
    rng = np.random.default_rng(3)
    wide = np.result_type(dtype, np.complex64)
    target = (rng.standard_normal(3) + 1j * rng.standard_normal(3)).astype(wide)

    def loss(xp: Any, p: Mapping[str, Any]) -> Any:
        z, v = p["complex"], p["vector"]
        far = z - xp.asarray(target)
        curved = xp.sum(xp.real(far * xp.conj(far)) * (1 + xp.imag(z) ** 2))
        linear = xp.sum((p["matrix"] @ v - p["scalar"]) ** 2) + 0.1 * xp.sum(p["matrix"] ** 2)
        return curved + linear + (p["scalar"] - 0.5) ** 2 + 0.3 * xp.sum(v**4) + xp.sum(v * xp.real(z))

    return loss, {
        "complex": np.asarray([1 + 1j, 0.5 - 0.3j, -1], wide),
        "idle": np.ones(2, dtype),
        "matrix": rng.standard_normal((2, 3)).astype(dtype),
        "scalar": np.asarray(0.3, dtype),
        "vector": rng.standard_normal(3).astype(dtype),
    }


def promoted(dtype: Any) -> tuple[Loss, Params]:
    """Leaves of two precisions."""
    del dtype

    def loss(xp: Any, p: Mapping[str, Any]) -> Any:
        low = xp.sum((p["low"] - 0.7) ** 2 * (1 + p["low"] ** 2), dtype=xp.float64)
        return xp.sum(p["high"] ** 4) + xp.sum((p["high"] - 1) ** 2) + low

    return loss, {"high": np.linspace(-1, 2, 3), "low": np.linspace(-1, 1, 4, dtype=np.float32)}


def linear(dtype: Any) -> tuple[Loss, Params]:
    """A constant gradient: y is 0 and no pair is kept."""
    return lambda xp, p: xp.sum(p["x"] * xp.asarray(np.asarray([1, -2], dtype))), {"x": np.ones(2, dtype)}


def saddle(dtype: Any) -> tuple[Loss, Params]:
    """Curves downwards at first: y . s is negative, and the pair is dropped."""
    return lambda xp, p: xp.sum(xp.cos(p["x"])) + 0.01 * xp.sum(p["x"] ** 2), {
        "x": np.asarray([0.1, 0.2], dtype)
    }


def logarithm(dtype: Any) -> tuple[Loss, Params]:
    """NaN beyond 0, where a first step of 1 leads."""
    return lambda xp, p: xp.sum(-xp.log(p["x"]) + 40 * p["x"]), {"x": np.asarray([0.5, 0.3], dtype)}


def exponential(dtype: Any) -> tuple[Loss, Params]:
    """Infinite, and its gradient with it, a step of 1 away."""
    return lambda xp, p: xp.sum(xp.exp((p["x"] * 40) ** 2)), {"x": np.asarray([-0.11, 0.1], dtype)}


def cliff(dtype: Any) -> tuple[Loss, Params]:
    """Falls off behind a nearly flat start: interpolation ends up close to the ends of the bracket."""

    def loss(xp: Any, p: Mapping[str, Any]) -> Any:
        x = p["x"]
        wall = 10 * xp.where(x > 0.95, x - 0.95, 0 * x) ** 2
        return xp.sum(wall - 5 / (1 + xp.exp(-20 * (x - 0.5))) - 0.01 * x)

    return loss, {"x": np.asarray([0.01, 0.02], dtype)}


def kink(dtype: Any) -> tuple[Loss, Params]:
    """No point has a small slope: the bracket shrinks around the kink."""

    def loss(xp: Any, p: Mapping[str, Any]) -> Any:
        x = p["x"]
        return xp.sum(xp.where(x > 2, 10 * (x - 2), 0 * x) - x)

    return loss, {"x": np.asarray([0.03, 0.1], dtype)}


# --- Our side -----------------------------------------------------------------------------------------


def run(
    loss: Loss,
    params: Params,
    steps: int,
    arguments: Mapping[str, Any],
    lrs: Mapping[int, float] | None = None,
) -> list[oracle.LBFGSStep]:
    """What :func:`oracle.lbfgs_trajectory` does, here."""
    tx, f = lbfgs(**arguments), gradient(loss)
    tree: Any = jax.tree.map(jnp.asarray, params)
    state = tx.init(tree)
    step = jax.jit(stepper(tx, f))
    history = []
    for t in range(steps):
        if lrs and t in lrs:
            state = jo.set_hyperparams(state, lr=lrs[t])
        tree, state, value = step(tree, state)
        history.append(oracle.LBFGSStep(jax.tree.map(np.asarray, tree), float(value), lists(state)))
    assert int(state.count) == steps
    return history


def gradient(loss: Loss) -> Callable[[Any], tuple[Any, Any]]:
    return jax.value_and_grad(lambda p: loss(jnp, p))


def stepper(tx: Any, f: Callable[[Any], tuple[Any, Any]]) -> Callable[[Any, Any], tuple[Any, Any, Any]]:
    def step(params: Any, state: Any) -> tuple[Any, Any, Any]:
        value, grads = f(params)
        updates, state = tx.update(grads, state, params, value=value, value_and_grad_fn=f)
        return jo.apply_updates(params, updates), state, value

    return step


def lists(state: LBFGSState) -> dict[str, Any]:
    """PyTorch's state: the rings unrolled, and nothing that PyTorch would not have made."""
    ours = jax.tree.map(np.asarray, state._asdict())
    length = ours["history_len"]
    rows = (ours["history_start"] + np.arange(length)) % len(ours["ro"])
    ours |= {name: ours[name][rows] for name in ("old_dirs", "old_stps", "ro")}
    ours["al"] = ours["al"][:length]
    begun = ("d", "t", "old_dirs", "old_stps", "ro", "H_diag", "prev_flat_grad", "prev_loss")
    names = (
        "func_evals",
        "n_iter",
        *(begun if ours["n_iter"] else ()),
        *(["al"] if ours["n_iter"] > 1 else []),
    )
    return {name: ours[name] for name in names}


def errors(actual: oracle.LBFGSStep, expected: oracle.LBFGSStep) -> dict[str, float]:
    """Entry -> largest difference, relative to the largest element of PyTorch's array."""
    assert actual.state.keys() == expected.state.keys()
    pairs = {f"params {path}": (actual.params[path], value) for path, value in expected.params.items()}
    pairs |= {name: (actual.state[name], value) for name, value in expected.state.items()}
    return {name: _error(*pair) for name, pair in {**pairs, "loss": (actual.loss, expected.loss)}.items()}


def _error(actual: Any, expected: Any) -> float:
    have, want = np.asarray(actual), np.asarray(expected)
    if have.size == want.size == 0:
        return 0.0
    finite = np.isfinite(want)
    if have.shape != want.shape or not np.array_equal(have[~finite], want[~finite], equal_nan=True):
        return np.inf
    difference = np.abs(have[finite] - want[finite]).max(initial=0)
    scale = np.abs(want[finite]).max(initial=0)
    if not difference:
        return 0.0
    return float(difference / scale) if scale else np.inf
