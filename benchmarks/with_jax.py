"""The contenders that run in JAX: Optax, and this package."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_core as jo
from benchmarks.parameter_sets import ParameterSet, sample, value

__all__ = ["JaxRun", "optax_recipe", "our_recipe"]


class JaxRun:
    """A jitted step that donates parameters and state and keeps the gradients.

    Args:
      transformation: an Optax transformation.
      apply_updates: ``optax.apply_updates`` or ours.
      parameters: what is stepped.
      compiler_options: of this program, as ``jax.jit`` takes them. Default none.
    """

    def __init__(
        self,
        transformation: optax.GradientTransformationExtraArgs,
        apply_updates: Callable[[Any, Any], Any],
        parameters: ParameterSet,
        compiler_options: Mapping[str, Any] | None = None,
    ) -> None:
        traced = False

        def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
            nonlocal traced
            if traced:
                raise RuntimeError("A step changed a dtype or shape of the state: it was traced twice.")
            traced = True
            updates, state = transformation.update(grads, state, params)
            return apply_updates(params, updates), state

        options = dict(compiler_options) if compiler_options else None
        self._step = jax.jit(step, donate_argnums=(0, 1), compiler_options=options)
        self._grads = _arrays(parameters, gradient=True)
        self._params = _arrays(parameters, gradient=False)
        self._state = jax.block_until_ready(transformation.init(self._params))
        self._last = parameters.leaves[-1].path

    @property
    def state_bytes(self) -> int:
        """Bytes of state, hyperparameters and count included."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self._state))

    def step(self) -> None:
        """Starts one step."""
        self._params, self._state = self._step(self._params, self._state, self._grads)

    def wait(self) -> None:
        """Waits for one output: those of one program become ready together."""
        self._params[self._last].block_until_ready()

    def samples(self) -> dict[str, np.ndarray]:
        """Some elements of every parameter."""
        return {path: sample(np.asarray(leaf)) for path, leaf in self._params.items()}


def _arrays(parameters: ParameterSet, *, gradient: bool) -> dict[str, jax.Array]:
    return {
        leaf.path: jnp.array(value(leaf, i, gradient=gradient)) for i, leaf in enumerate(parameters.leaves)
    }


def optax_recipe(optimizer: str, dtype: Any = jnp.float32) -> optax.GradientTransformationExtraArgs:
    """Optax's optimizer with PyTorch's arguments, as near as it has them, for parameters of ``dtype``."""
    match optimizer:
        case "sgd":
            return optax.sgd(1e-3, momentum=0.9)
        case "adam":
            return optax.adam(1e-3)
        case "adamw":
            return optax.adamw(1e-3, weight_decay=1e-2)
        case "adafactor":
            # PyTorch's relative step size, and its habit of factoring whatever has two axes. Which two
            # cannot be said: Optax takes the largest, PyTorch the last.
            return optax.adafactor(
                lambda count: jnp.minimum(1e-2, jax.lax.rsqrt(count + 1.0)),
                min_dim_size_to_factor=1,
                eps=float(jnp.finfo(dtype).eps) ** 2,
            )
    raise ValueError(f"No recipe for {optimizer!r}")


def our_recipe(optimizer: str, parameters: ParameterSet) -> optax.GradientTransformationExtraArgs:
    """This package's optimizer with PyTorch's arguments."""
    match optimizer:
        case "sgd":
            return jo.sgd(1e-3, momentum=0.9)
        case "adam":
            return jo.adam(1e-3)
        case "adamw":
            return jo.adamw(1e-3)
        case "adafactor":
            axes = {f"^{re.escape(leaf.path)}$": leaf.axes for leaf in parameters.leaves if leaf.axes}
            return jo.adafactor(1e-2, axes=jo.by_path(axes, default=None) if axes else None)
    raise ValueError(f"No recipe for {optimizer!r}")
