"""Our side of ``training_features``."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_core as jo
from benchmarks.parameter_sets import ParameterSet
from benchmarks.with_jax import JaxRun

__all__ = ["NetworkRun", "make"]


class FeatureRun(JaxRun):
    """A step that also says how much temporary memory its program takes."""

    @property
    def temporary_bytes(self) -> int:
        """Bytes that the compiled step allocates besides its arguments and results."""
        compiled = self._step.lower(self._params, self._state, self._grads).compile()
        return int(compiled.memory_analysis().temp_size_in_bytes)


def make(feature: str, parameters: ParameterSet) -> FeatureRun:
    """The step of a feature."""
    adamw, clip = jo.adamw(), jo.gradients.clip_grad_norm(1.0)
    # A scale of 1, so that the gradients, which stay the same, stay usable; the work is the same.
    scale = jo.precision.dynamic_loss_scale(init_scale=1.0)
    transformations: dict[str, optax.GradientTransformation] = {
        "bare": adamw,
        "clip": optax.chain(clip, adamw),
        "loss scale": jo.precision.with_loss_scale(adamw, scale),
        "ema": optax.chain(adamw, jo.averaging.ema(0.999)),
        "accumulate 4": jo.gradients.accumulate(adamw, 4),
        # The average outermost, as PyTorch's loops update it: after the step, skipped or not.
        "clip, loss scale, ema": optax.chain(
            jo.precision.with_loss_scale(optax.chain(clip, adamw), scale), jo.averaging.ema(0.999)
        ),
    }
    tx = optax.with_extra_args_support(transformations[feature])
    return FeatureRun(tx, jo.apply_updates, parameters)


class NetworkRun:
    """Forward, backward and AdamW of a stack of layers.

    Args:
      feature: ``bare``, ``autocast`` (in bfloat16), or ``clip, loss scale, ema``.
      quick: tiny.
    """

    def __init__(self, feature: str, quick: bool):
        width, batch, layers = (16, 8, 3) if quick else (512, 256, 12)
        rng = np.random.default_rng(0)
        weights = rng.normal(size=(layers, width, width)).astype(np.float32) / np.sqrt(width)
        params = {f"layer{i}": jnp.asarray(w) for i, w in enumerate(weights)}
        x, target = (jnp.asarray(rng.normal(size=(batch, width)), jnp.float32) for _ in range(2))
        tx: Any = jo.adamw()
        everything = feature == "clip, loss scale, ema"
        if everything:
            scaled = jo.precision.with_loss_scale(optax.chain(jo.gradients.clip_grad_norm(1.0), tx))
            tx = optax.chain(scaled, jo.averaging.ema(0.999))

        def loss(params: Any, x: Any, target: Any) -> Any:
            for i in range(layers):
                x = x + jax.nn.gelu(x @ params[f"layer{i}"])
            return jnp.mean(jnp.square(x - target))

        objective = jo.precision.autocast(loss, jnp.bfloat16) if feature == "autocast" else loss

        def step(params: Any, state: Any, x: Any, target: Any) -> Any:
            def scaled_loss(params: Any) -> Any:
                value = objective(params, x, target)
                return scaled.scale(value, state[0]) if everything else value

            grads = jax.grad(scaled_loss)(params)
            updates, state = tx.update(grads, state, params)
            return jo.apply_updates(params, updates), state

        self._data, self._carry = (x, target), (params, tx.init(params))
        self._step = jax.jit(step, donate_argnums=(0, 1)).lower(*self._carry, *self._data).compile()

    def step(self) -> None:
        """Starts one step."""
        self._carry = self._step(*self._carry, *self._data)

    def wait(self) -> None:
        """Waits for it."""
        jax.block_until_ready(self._carry)

    @property
    def state_bytes(self) -> int:
        """Bytes of the optimizer's state."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self._carry[1]))

    @property
    def temporary_bytes(self) -> int:
        """Bytes of activations and whatever else the program holds for a while."""
        return int(self._step.memory_analysis().temp_size_in_bytes)
