"""Training steps in JAX: Flax and Optax as their documentation shows them, and ours."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxopt_core as jo
from benchmarks.training_workloads import Workload
from jaxopt_core import interop
from jaxopt_core.losses import bce_with_logits, cross_entropy
from jaxopt_core.models import pure

__all__ = ["FlaxTraining", "OurTraining"]


class FlaxTraining:
    """``nnx.jit``, ``nnx.value_and_grad`` and ``nnx.Optimizer``, as Flax's tutorials have them."""

    steps_per_call = 1

    def __init__(self, workload: Workload, quick: bool, state: dict[str, Any]) -> None:
        if workload.flax:
            self._model = workload.flax(quick, state)
        else:
            self._model = workload.ours(quick)
            _, params, rest = pure(self._model)
            nnx.update(self._model, *_loaded(params, rest, state))
        self._model.train()
        self._optimizer = nnx.Optimizer(self._model, optax.sgd(1e-3, momentum=0.9), wrt=nnx.Param)
        self._batch = _on_device(workload, quick)

        @nnx.jit
        def step(model: Any, optimizer: Any, inputs: Any, labels: jax.Array) -> jax.Array:
            def loss_fn(model: Any) -> jax.Array:
                outputs = model(*inputs)
                if workload.classes:
                    losses = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
                else:
                    losses = optax.sigmoid_binary_cross_entropy(outputs, labels)
                return losses.mean()

            loss, grads = nnx.value_and_grad(loss_fn)(model)
            optimizer.update(model, grads)
            return loss

        self._step = step

    def step(self) -> None:
        """Starts one step."""
        self._loss = self._step(self._model, self._optimizer, *self._batch)

    def wait(self) -> None:
        """Waits for the loss: what comes out of one program becomes ready together."""
        self._loss.block_until_ready()

    def losses(self) -> list[float]:
        """Of the steps of the last call."""
        return [float(self._loss)]


class OurTraining:
    """``jax.jit`` over the pure triple, everything donated.

    Args:
      workload: what is trained.
      quick: a tiny one.
      state: PyTorch's weights.
      scanned: steps in one program, by ``jax.lax.scan``.
    """

    def __init__(self, workload: Workload, quick: bool, state: dict[str, Any], *, scanned: int = 1) -> None:
        self.steps_per_call = scanned
        apply, params, rest = pure(nnx.eval_shape(lambda: workload.ours(quick)))
        # An abstract model draws no numbers, for which XLA would compile a program for each shape.
        params, rest = _loaded(*jax.tree.map(jnp.zeros_like, (params, rest)), state)
        tx = jo.sgd(lr=1e-3, momentum=0.9)
        self._state = params, rest, tx.init(params)
        self._batch = _on_device(workload, quick)

        def one(state: Any, inputs: Any, labels: jax.Array) -> tuple[Any, jax.Array]:
            params, rest, opt_state = state

            def loss_fn(params: Any) -> tuple[jax.Array, Any]:
                logits, new = apply(params, rest, *inputs, train=True)
                if workload.classes:
                    return cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.ravel()), new
                return bce_with_logits(logits, labels), new

            (loss, rest), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
            updates, opt_state = tx.update(grads, opt_state, params)
            return (jo.apply_updates(params, updates), rest, opt_state), loss

        def many(state: Any, inputs: Any, labels: jax.Array) -> tuple[Any, jax.Array]:
            return jax.lax.scan(lambda state, _: one(state, inputs, labels), state, length=scanned)

        self._step = jax.jit(one if scanned == 1 else many, donate_argnums=0)

    def step(self) -> None:
        """Starts the steps of one program."""
        self._state, self._loss = self._step(self._state, *self._batch)

    def wait(self) -> None:
        """Waits for the loss: what comes out of one program becomes ready together."""
        self._loss.block_until_ready()

    def losses(self) -> list[float]:
        """Of the steps of the last call."""
        return [float(loss) for loss in jnp.atleast_1d(self._loss)]


def _on_device(workload: Workload, quick: bool) -> Any:
    inputs, labels = workload.batch(quick)
    return jax.tree.map(jnp.asarray, jax.tree.map(_narrow, (inputs, labels)))


def _narrow(array: np.ndarray) -> np.ndarray:
    return array.astype(np.int32) if array.dtype == np.int64 else array


def _loaded(params: Any, rest: Any, state: dict[str, Any]) -> tuple[Any, Any]:
    layout = interop.make_layout(params, state, rest=rest)
    return tuple(  # type: ignore[return-value]
        jax.tree.map(jnp.array, interop.params_from_torch(state, layout, like=tree))
        for tree in (params, rest)
    )
