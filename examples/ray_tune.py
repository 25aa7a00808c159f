"""Ray Tune where each trial is a sweep: many learning rates in one program, many programs on a cluster.

``pip install 'ray[tune]' 'jaxopt-core[tune]'``, then ``python examples/ray_tune.py``.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import ray
from ray import tune

import jaxopt_core as jo
from jaxopt_core.training import init_state, make_step
from jaxopt_core.tuning import Setup, Trainable, minibatch_trainable, sweep

CHUNKS, EACH = 4, 8


def trainable() -> Trainable:
    """A linear regression; yours comes here."""
    x = np.random.default_rng(0).normal(size=(256, 4)).astype(np.float32)
    data = {"x": x, "y": x @ np.float32([1, -2, 3, 0.5])}

    def loss_fn(params: Any, rest: Any, batch: Any, rng: jax.Array) -> Any:
        del rng
        return jnp.mean((batch["x"] @ params - batch["y"]) ** 2), (rest, {})

    def setup(config: Any, updates: int) -> Setup:
        del updates
        tx = jo.adamw(lr=config["lr"])
        state = init_state(jnp.zeros(4), {}, tx)
        return Setup(state, make_step(loss_fn, tx), lambda s, d: {"loss": loss_fn(s.params, {}, d, s.rng)[0]})

    return minibatch_trainable(setup, data, data)


def configurations(chunk: int) -> list[dict[str, float]]:
    """One trial's share of the learning rates."""
    rates = np.geomspace(1e-4, 1, CHUNKS * EACH).reshape(CHUNKS, EACH)
    return [{"lr": float(lr)} for lr in rates[chunk]]


def trial(config: dict[str, int]) -> None:
    """What Ray runs, in a process of its own."""
    best = sweep(trainable(), configurations(config["chunk"])).best("loss")
    tune.report({"loss": best.metrics["loss"], **best.config})


def main() -> None:
    """Runs all chunks and prints the best learning rate."""
    ray.init(include_dashboard=False)
    found = tune.Tuner(trial, param_space={"chunk": tune.grid_search(list(range(CHUNKS)))}).fit()
    best = found.get_best_result("loss", "min").metrics
    print(f"best: lr={best['lr']:.4g}, loss={best['loss']:.3g}")


if __name__ == "__main__":
    main()
