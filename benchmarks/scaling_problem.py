"""The model of the scaling benchmark, in JAX and in PyTorch, with the same starting values and data."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

__all__ = ["LR", "arrays", "jax_start", "jax_step", "torch_model"]

LR = 1e-3


def arrays(quick: bool) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Kernels ``(in, out)`` of a network without biases, inputs ``(rows, in)``, targets ``(rows, out)``."""
    widths, rows = ((64, 64, 64, 16), 64) if quick else ((512, 1024, 1024, 1024, 256), 512)
    rng = np.random.default_rng(0)
    kernels = [
        (rng.normal(size=(a, b)) / np.sqrt(a)).astype(np.float32) for a, b in itertools.pairwise(widths)
    ]
    x = rng.normal(size=(rows, widths[0])).astype(np.float32)
    return kernels, x, rng.normal(size=(rows, widths[-1])).astype(np.float32)


def jax_start(tx: Any, quick: bool) -> dict[str, Any]:
    """The state before the first step."""
    import jax.numpy as jnp

    params = {str(i): jnp.asarray(kernel) for i, kernel in enumerate(arrays(quick)[0])}
    return {"params": params, "opt_state": tx.init(params)}


def jax_step(tx: Any) -> Any:
    """``(state, batch) -> (state, metrics)``: forward, backward, optimizer."""
    import jax
    import jax.numpy as jnp

    import jaxopt_core as jo
    from jaxopt_core.parallel import gradients

    def loss_fn(params: Any, rest: Any, batch: Any, rng: Any) -> Any:
        del rng
        *hidden, last = params.values()
        y = batch["x"]
        for kernel in hidden:
            y = jax.nn.relu(y @ kernel)
        return jnp.mean(jnp.square(y @ last - batch["y"])), (rest, {})

    def step(state: Any, batch: Any) -> Any:
        got = gradients(loss_fn)(state["params"], {}, batch, jax.random.key(0))
        updates, opt_state = tx.update(got.grads, state["opt_state"], state["params"])
        params = jo.apply_updates(state["params"], updates)
        return {"params": params, "opt_state": opt_state}, {"loss": got.loss}

    return step


def torch_model(quick: bool) -> Any:
    """The same network as a ``torch.nn.Module``."""
    import torch

    kernels = arrays(quick)[0]
    layers: list[Any] = []
    for i, kernel in enumerate(kernels):
        linear = torch.nn.Linear(*kernel.shape, bias=False)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(kernel.T.copy()))
        layers += [linear] if i == len(kernels) - 1 else [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers)
