"""Draws ``same_name.svg``: how far optimizers are from PyTorch's of the same name, step by step.

Run ``python -m docs.pictures.same_name`` in the checkout; it needs PyTorch. The numbers are those of
``python -m benchmarks.equality`` before the largest over all steps is taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

import jaxopt_core as jo
from benchmarks.equality import OPTIMIZERS, problem, trajectory
from tests import oracle
from tests.equivalence import measure

NAMES = ("adam", "rmsprop", "nadam", "adagrad")
STEPS = 100
OURS, OPTAX = "#3b6fb6", "#d1495b"
ROUNDING = np.finfo(np.float64).eps


def errors(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps,) largest relative error so far in float64, ours and Optax's."""
    torch_name, optax_optimizer = OPTIMIZERS[name]
    params, grads = problem(name, STEPS, np.float64)
    expected = measure.series(oracle.run(torch_name, params, grads))["params"]

    def worst(tx: Any) -> np.ndarray:
        actual = trajectory(tx, params, grads)
        each = [measure.relative_errors(actual[path], expected[path], params[path]) for path in expected]
        return np.maximum.accumulate(np.max(each, axis=0))

    with jax.enable_x64(True):
        return worst(getattr(jo, name)()), worst(optax_optimizer())


def main() -> None:
    """Writes the picture beside this script."""
    mpl.rcParams |= {"svg.hashsalt": "same_name", "svg.fonttype": "path", "font.size": 9.5}
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    steps = np.arange(1, STEPS + 1)
    for axes, name in zip(figure.subplots(1, len(NAMES), sharey=True), NAMES, strict=True):
        ours, optaxs = errors(name)
        # An error of 0 has no place on this axis; it is drawn at the unit of rounding.
        axes.semilogy(steps, np.maximum(optaxs, ROUNDING), color=OPTAX, lw=2, label=f"optax.{name}")
        axes.semilogy(steps, np.maximum(ours, ROUNDING), color=OURS, lw=2, ls="--", label=f"jo.{name}")
        axes.axhline(1e-12, color="#999999", lw=0.8, ls=":")
        axes.set(ylim=(1e-16, 10), xlabel="step", xlim=(0, STEPS))
        axes.set_title(OPTIMIZERS[name][0], loc="left", fontweight="bold")
        axes.legend(frameon=False, loc="center right", fontsize=8.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e4e4", lw=0.6)
    figure.axes[0].set_ylabel("largest relative error so far")
    figure.axes[0].text(2, 1.8e-12, "tolerance of the tests", fontsize=8, color="#777777")
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
