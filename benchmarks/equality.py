"""How far every optimizer is from PyTorch's, beside PyTorch's own noise and Optax's distance.

    python -m benchmarks.equality [--steps 100]

Each optimizer runs for 100 steps on the same parameters (a matrix, a vector and a 3x3 convolution
kernel; for Muon two matrices; for SparseAdam a table) and the same random gradients; LBFGS makes 5
steps of 4 iterations on Rosenbrock's function. ``tests/oracle.py`` runs PyTorch. An error is relative
to the largest magnitude that the element has had. A second table has the error of a single float32
Adam update against float64 at early and late steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_core as jo
from benchmarks.tables import markdown
from benchmarks.with_jax import optax_recipe
from tests import oracle
from tests.equivalence import measure as measurement

# optimizer -> (PyTorch's class, Optax's optimizer with the arguments that PyTorch's defaults mean)
OPTIMIZERS: dict[str, tuple[str, Any]] = {
    "sgd": ("SGD", lambda: optax.sgd(1e-3)),
    "adam": ("Adam", lambda: optax.adam(1e-3)),
    "adamw": ("AdamW", lambda: optax.adamw(1e-3, weight_decay=1e-2)),
    "nadam": ("NAdam", lambda: optax.nadam(2e-3)),
    "radam": ("RAdam", lambda: optax.radam(1e-3)),
    "adamax": ("Adamax", lambda: optax.adamax(2e-3)),
    "adadelta": ("Adadelta", lambda: optax.adadelta(1.0, rho=0.9, eps=1e-6)),
    "adagrad": ("Adagrad", lambda: optax.adagrad(1e-2, initial_accumulator_value=0.0, eps=1e-10)),
    "rmsprop": ("RMSprop", lambda: optax.rmsprop(1e-2, decay=0.99, eps=1e-8)),
    "rprop": ("Rprop", lambda: optax.rprop(1e-2)),
    "asgd": ("ASGD", None),
    "adafactor": ("Adafactor", lambda: optax_recipe("adafactor", np.float64)),
    "muon": ("Muon", lambda: optax.contrib.muon(1e-3, weight_decay=0.1, eps=1e-7)),
    "sparse_adam": ("SparseAdam", None),
    "lbfgs": ("LBFGS", None),
}


def problem(name: str, steps: int, dtype: Any) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Parameters, and the gradients of every step."""
    rng = np.random.default_rng(0)
    shapes = {"matrix": (32, 16), "vector": (16,), "kernel": (8, 4, 3, 3)}
    shapes = {"muon": {"wide": (16, 32), "tall": (32, 16)}, "sparse_adam": {"table": (64, 8)}}.get(
        name, shapes
    )
    params = {path: rng.normal(size=shape).astype(dtype) for path, shape in shapes.items()}
    grads: list[dict[str, Any]] = []
    for _ in range(steps):
        if name == "sparse_adam":
            values = rng.normal(size=(12, 8)).astype(dtype)
            grads.append({"table": oracle.Rows(rng.integers(0, 64, 12), values)})
        else:
            grads.append({path: rng.normal(size=shape).astype(dtype) for path, shape in shapes.items()})
    return params, grads


def trajectory(tx: optax.GradientTransformation, params: Any, grads: Any) -> dict[str, list[np.ndarray]]:
    """Our or Optax's parameters after every step, in the form that the oracle compares."""

    def ours(grad: Any) -> Any:
        if isinstance(grad, oracle.Rows):
            return jo.sparse_rows(jnp.asarray(grad.indices), jnp.asarray(grad.values), num_rows=64)
        return grad

    @jax.jit
    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return jo.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, params)
    state, out = tx.init(params), {path: [] for path in params}
    for each in grads:
        params, state = step(params, state, {path: ours(grad) for path, grad in each.items()})
        for path, value in params.items():
            out[path].append(np.asarray(value))
    return out


def worst(actual: Mapping[str, Any], expected: Mapping[str, Any], start: Mapping[str, Any]) -> float:
    """The largest relative error over parameters, elements and steps."""
    return max(
        measurement.relative_errors(actual[path], expected[path], start[path]).max() for path in expected
    )


def rosenbrock(module: Any, params: Any) -> Any:
    """Rosenbrock's function, in ``torch`` or ``jax.numpy``."""
    x = params["x"]
    return module.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def lbfgs_errors(steps: int) -> list[float]:
    """L-BFGS with line search on Rosenbrock's function; its noise is PyTorch from a start moved by an ulp."""
    errors = []
    for dtype, x64 in ((np.float64, True), (np.float32, False)):
        with jax.enable_x64(x64):
            start = {"x": np.array([-1.2, 1.0], dtype)}
            arguments: dict[str, Any] = {"line_search_fn": "strong_wolfe", "max_iter": 4}
            runs = [
                oracle.lbfgs_trajectory(rosenbrock, start, steps, arguments, nudge=nudge) for nudge in (0, 1)
            ]
            expected, nudged = ({"x": [step.params["x"] for step in run]} for run in runs)
            tx = jo.lbfgs(**arguments)
            value_and_grad = jax.value_and_grad(lambda params: rosenbrock(jnp, params))
            params = jax.tree.map(jnp.asarray, start)
            state, path = tx.init(params), []
            for _ in range(steps):
                value, grads = value_and_grad(params)
                updates, state = tx.update(
                    grads, state, params, value=value, value_and_grad_fn=value_and_grad
                )
                params = jo.apply_updates(params, updates)
                path.append(np.asarray(params["x"]))
            errors += [worst({"x": path}, expected, start), worst(nudged, expected, start)]
    return [errors[0], errors[2], errors[3]]


def measure(name: str, steps: int) -> list[float | None]:
    """Our error in float64 and in float32, PyTorch's noise in float32, Optax's error in float64."""
    torch_name, optax_optimizer = OPTIMIZERS[name]
    if name == "lbfgs":
        return [*lbfgs_errors(5), None]
    row: list[float | None] = []
    for dtype, x64 in ((np.float64, True), (np.float32, False)):
        params, grads = problem(name, steps, dtype)
        expected = measurement.series(oracle.run(torch_name, params, grads))["params"]
        with jax.enable_x64(x64):
            row.append(worst(trajectory(getattr(jo, name)(), params, grads), expected, params))
            if x64 and optax_optimizer:
                optax_error = worst(trajectory(optax_optimizer(), params, grads), expected, params)
    arguments = oracle.signature(torch_name)
    variants = ["wide"]
    if "foreach" in arguments and name != "muon":
        variants.append("foreach")
    if "fused" in arguments:
        variants.append("fused")
    histories = {v: oracle.run(torch_name, params, grads, variant=v) for v in ["loop", *variants]}
    if name == "muon":  # invariant to the gradients' scale, but for rounding
        scaled = [{path: 3 * grad for path, grad in each.items()} for each in grads]
        histories["scaled"] = oracle.run(torch_name, params, scaled, {"eps": 3e-7})
    row.append(float(measurement.noise(histories, params)["params"].max()))
    return [*row, optax_error if optax_optimizer else None]


def one_update_errors(step: int, beta2: float) -> list[float]:
    """Relative errors of one float32 Adam update at a step, ours and Optax's, against float64."""
    rng = np.random.default_rng(step)
    # Of one sign, so that the average of gradients itself does not cancel.
    names = ("grad", "exp_avg", "exp_avg_sq")
    arrays = {name: rng.uniform(0.5, 2, size=1000).astype(np.float32) for name in names}

    def update(tx: optax.GradientTransformation, moments: Any, dtype: Any) -> np.ndarray:
        grad, m, v = (jnp.asarray(arrays[name], dtype) for name in names)
        return np.asarray(tx.update(grad, moments(tx.init(grad), m, v), grad)[0], np.float64)

    def ours(state: jo.OptimizerState, m: jax.Array, v: jax.Array) -> jo.OptimizerState:
        return state._replace(count=jnp.int32(step - 1), slots={"exp_avg": m, "exp_avg_sq": v})

    def optaxs(state: Any, m: jax.Array, v: jax.Array) -> Any:
        return (state[0]._replace(count=jnp.int32(step - 1), mu=m, nu=v), *state[1:])

    tx = jo.adam(lr=1e-3, betas=(0.9, beta2))
    with jax.enable_x64(True):
        exact = update(tx, ours, np.float64)
    found = [update(tx, ours, np.float32), update(optax.adam(1e-3, b2=beta2), optaxs, np.float32)]
    return [float(np.abs(each / exact - 1).max()) for each in found]


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100, help="steps of each optimizer (default: 100)")
    arguments = parser.parse_args()
    header = [
        "optimizer",
        "torch.optim",
        "ours, float64",
        "ours, float32",
        "PyTorch's noise, float32",
        "Optax, float64",
    ]
    rows = []
    for name in OPTIMIZERS:
        numbers = ["" if x is None else f"{x:.0e}" for x in measure(name, arguments.steps)]
        rows.append([f"jo.{name}", OPTIMIZERS[name][0], *numbers])
    print(markdown(header, rows, text=2), end="\n\n")
    rows = [
        [f"{step:,}", f"{beta2}", *(f"{error:.0e}" for error in one_update_errors(step, beta2))]
        for beta2 in (0.999, 0.9999)
        for step in (1, 10, 1_000, 100_000)
    ]
    print(markdown(["one float32 Adam update at step", "beta2", "ours", "Optax"], rows))


if __name__ == "__main__":
    main()
