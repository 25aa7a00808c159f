"""Small problems that are trained on one device and on many."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_core as jo
from jaxopt_core.parallel import gradients, mesh
from tests.engine.cases import make

__all__ = [
    "ELEMENTWISE",
    "all_optimizers",
    "assert_close",
    "batches",
    "bowl_loss",
    "bowl_params",
    "devices",
    "make_step",
    "run",
    "start",
]

ELEMENTWISE = (
    "sgd", "adam", "adamw", "nadam", "radam", "adamax", "adadelta", "adagrad", "rmsprop", "rprop", "asgd",
)  # fmt: skip
NAMES = (*ELEMENTWISE, "adafactor", "muon")
ROWS = 32


def devices(count: int, fsdp: int = 1) -> Any:
    return mesh(fsdp=fsdp, devices=jax.devices()[:count])


def bowl_params(dtype: Any = jnp.float32) -> dict[str, Any]:
    """A little regression for every optimizer; a kernel that can be divided, a bias that cannot."""
    params = {}
    for i, name in enumerate(NAMES):
        rng = np.random.default_rng(i)
        params[name] = {"kernel": jnp.asarray(rng.normal(size=(16, 8)), dtype)}
        if name != "muon":
            params[name]["bias"] = jnp.asarray(rng.normal(size=3), dtype)
    return params


def bowl_loss(params: Any, rest: Any, batch: Any, rng: Any) -> Any:
    del rng
    losses = []
    for own in params.values():
        y = jnp.tanh(batch["x"] @ own["kernel"])
        y = y.at[:, :3].add(own["bias"][None]) if "bias" in own else y
        losses.append(jnp.mean(jnp.square(y - batch["y"]), axis=1))
    rows = sum(losses[1:], start=losses[0])
    weight = batch.get("weight")
    return jnp.mean(rows if weight is None else rows * weight), (rest, {})


def all_optimizers() -> optax.GradientTransformation:
    """Each of them for the parameters of its name, in one program."""
    return optax.partition(
        {name: make(name) for name in NAMES},
        lambda params: {n: jax.tree.map(lambda _, n=n: n, own) for n, own in params.items()},
    )


def batches(count: int = 3, rows: int = ROWS, dtype: Any = np.float32) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(100)
    return [
        {"x": rng.normal(size=(rows, 16)).astype(dtype), "y": rng.normal(size=(rows, 8)).astype(dtype)}
        for _ in range(count)
    ]


def start(params: Any, tx: Any, rest: Any = None) -> dict[str, Any]:
    return {
        "params": params,
        "opt_state": tx.init(params),
        "rest": {} if rest is None else rest,
        "rng": jax.random.key(3),
        "step": jnp.zeros([], jnp.int32),
    }


def make_step(loss_fn: Any, tx: Any, micro_batches: int = 1, scaled: bool = False) -> Any:
    def step(state: Any, batch: Any) -> Any:
        scale = functools.partial(scaler.scale, state=state["opt_state"]) if scaled else None
        grad_fn = gradients(loss_fn, micro_batches=micro_batches, scale=scale)
        rng = jax.random.fold_in(state["rng"], state["step"])
        got = grad_fn(state["params"], state["rest"], batch, rng)
        updates, opt_state = tx.update(got.grads, state["opt_state"], state["params"])
        new = {
            "params": jo.apply_updates(state["params"], updates),
            "opt_state": opt_state,
            "rest": got.rest,
            "rng": state["rng"],
            "step": state["step"] + 1,
        }
        return new, {"loss": got.loss, **got.metrics}

    scaler = jo.precision.dynamic_loss_scale()
    return step


def run(step: Any, state: Any, data: Any) -> tuple[Any, list[float]]:
    losses = []
    for batch in data:
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return state, losses


def assert_close(got: Any, expected: Any, tolerance: float) -> None:
    """Within ``tolerance`` of the larger of 1 and the array's largest element."""
    leaves = jax.tree_util.tree_leaves_with_path(expected)
    for (path, want), value in zip(leaves, jax.tree.leaves(got), strict=True):
        if jnp.issubdtype(want.dtype, jax.dtypes.prng_key):
            continue
        a, b = np.asarray(value, np.float64), np.asarray(want, np.float64)
        worst = np.max(np.abs(a - b), initial=0.0)
        bound = tolerance * max(1.0, np.max(np.abs(b), initial=0.0))
        assert worst <= bound, f"{jax.tree_util.keystr(path)}: {worst:.2e} off, allowed {bound:.2e}"
