"""From a loss and an optimizer to the pure step that the loop runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxopt_core.access import read_hyperparams
from jaxopt_core.gradients import global_norm
from jaxopt_core.leafwise import apply_updates
from jaxopt_core.precision import LossScale, autocast
from jaxopt_core.training.state import TrainState

__all__ = ["Batch", "LossFn", "Metrics", "StepFn", "make_step"]

Batch = Mapping[str, Any]
Metrics = dict[str, jax.Array]
StepFn = Callable[[TrainState, Any], tuple[TrainState, Metrics]]
LossFn = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, tuple[Any, Metrics]]]


def make_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    *,
    autocast_dtype: Any = None,
    loss_scale: LossScale | None = None,
) -> StepFn:
    """One update: loss, gradients, optimizer.

    Accumulation, clipping and averages are links of ``tx`` (:mod:`jaxopt_core.gradients`,
    :mod:`jaxopt_core.averaging`), so the step stays these few lines.

    Args:
      loss_fn: ``(params, rest, batch, rng) -> (loss, (rest, metrics))``: a scalar loss, what else the model
        changed, and a dict of scalars to be shown beside it.
      tx: the optimizer, or a chain.
      autocast_dtype: ``bfloat16`` or ``float16`` to run the loss under
        :func:`~jaxopt_core.precision.autocast`. Default None: float32.
      loss_scale: the scale given to :func:`~jaxopt_core.precision.with_loss_scale` in ``tx``, for float16.
        Default None.

    Returns:
      ``(state, batch) -> (state, metrics)``, pure. Metrics are the loss, those of ``loss_fn``,
      ``grad_norm`` (the 2-norm of all gradients before any clipping) and the learning rates.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> from jaxopt_core.training import init_state
      >>> def loss_fn(params, rest, batch, rng):
      ...     return jnp.mean((params * batch["x"] - batch["y"]) ** 2), (rest, {})
      >>> tx = jo.sgd(lr=0.5)
      >>> step = make_step(loss_fn, tx)
      >>> batch = {"x": jnp.ones(4), "y": jnp.zeros(4)}
      >>> state, metrics = step(init_state(jnp.ones(()), {}, tx), batch)
      >>> print({name: round(float(value), 2) for name, value in metrics.items()})
      {'loss': 1.0, 'grad_norm': 2.0, 'lr': 0.5}
    """
    tx = optax.with_extra_args_support(tx)
    loss_of = loss_fn if autocast_dtype is None else autocast(loss_fn, autocast_dtype)

    def objective(params: Any, state: TrainState, batch: Any, rng: jax.Array) -> Any:
        loss, (rest, metrics) = loss_of(params, state.rest, batch, rng)
        scaled = loss if loss_scale is None else loss_scale.scale(loss, state.opt_state)
        return scaled, (loss, rest, metrics)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        rng = jax.random.fold_in(state.rng, state.step)
        grads, (loss, rest, metrics) = jax.grad(objective, has_aux=True)(state.params, state, batch, rng)
        norm = global_norm(grads)
        if loss_scale is not None:
            norm = norm / loss_scale.scale(jnp.ones([], norm.dtype), state.opt_state)
        updates, opt_state = tx.update(grads, state.opt_state, state.params, value=loss)
        params = apply_updates(state.params, updates)
        shown = {"loss": loss, **metrics, "grad_norm": norm, **_rates(opt_state)}
        return TrainState(state.step + 1, params, rest, opt_state, state.rng), shown

    return step


def _rates(opt_state: Any) -> Metrics:
    """The learning rate of the last update; one for each group where there are several."""
    rates = read_hyperparams(opt_state).get("lr", {})
    if not isinstance(rates, dict):
        return {"lr": rates}
    named = jax.tree_util.tree_leaves_with_path(rates)
    return {f"lr/{jax.tree_util.keystr(path, simple=True, separator='/')}": rate for path, rate in named}
