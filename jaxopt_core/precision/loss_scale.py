"""Loss scaling for float16, as ``torch.amp.GradScaler``.

Small gradients vanish in float16, so the loss is multiplied by a scale before the backward pass and the
gradients are divided by it afterwards. The largest scale that does not overflow is found by trying::

    if the gradients are finite:
        make the step;  tracker += 1
        if tracker == growth_interval:  scale *= growth_factor, if that is finite;  tracker = 0
    otherwise:
        skip the step;  scale *= backoff_factor;  tracker = 0

Source: Micikevicius et al., "Mixed Precision Training", 2018, section 3.2, in PyTorch's form.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_core.checks import is_count
from jaxopt_core.gradients.advance import advance_if
from jaxopt_core.gradients.nonfinite import all_finite
from jaxopt_core.gradients.norm import times, working_dtype
from jaxopt_core.gradients.shards import AxisName
from jaxopt_core.tree import flatten, is_absent, is_leaf

__all__ = [
    "LossScale",
    "LossScaleState",
    "LossScaledState",
    "Unscaled",
    "dynamic_loss_scale",
    "static_loss_scale",
    "with_loss_scale",
]


class LossScaleState(NamedTuple):
    """What ``scaler.state_dict()`` holds in PyTorch, as scalar arrays; all of it can be changed in a run.

    Attributes:
      scale: float32, what the next loss is multiplied by.
      growth_factor: float32.
      backoff_factor: float32.
      growth_interval: int32, finite steps in a row before the scale grows.
      growth_tracker: int32, finite steps since it last changed: PyTorch's ``_growth_tracker``.
    """

    scale: jax.Array
    growth_factor: jax.Array
    backoff_factor: jax.Array
    growth_interval: jax.Array
    growth_tracker: jax.Array

    def state_dict(self) -> dict[str, float | int]:
        """The entries of PyTorch's ``scaler.state_dict()``, which ``scaler.load_state_dict`` takes."""
        return {
            "scale": float(self.scale),
            "growth_factor": float(self.growth_factor),
            "backoff_factor": float(self.backoff_factor),
            "growth_interval": int(self.growth_interval),
            "_growth_tracker": int(self.growth_tracker),
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> LossScaleState:
        """The state that PyTorch's ``scaler.state_dict()`` describes."""
        return cls(
            scale=jnp.asarray(state["scale"], jnp.float32),
            growth_factor=jnp.asarray(state["growth_factor"], jnp.float32),
            backoff_factor=jnp.asarray(state["backoff_factor"], jnp.float32),
            growth_interval=jnp.asarray(state["growth_interval"], jnp.int32),
            growth_tracker=jnp.asarray(state["_growth_tracker"], jnp.int32),
        )


class Unscaled(NamedTuple):
    """What :meth:`LossScale.unscale` returns: the gradients, and whether they are finite."""

    grads: Any
    finite: jax.Array


class LossScaledState(NamedTuple):
    """The state of :func:`with_loss_scale`.

    Attributes:
      loss_scale: a :class:`LossScaleState`.
      skipped: int32 scalar, steps that were left out so far.
      inner_state: the state of the optimizer inside.
    """

    loss_scale: LossScaleState
    skipped: jax.Array
    inner_state: Any


@dataclasses.dataclass(frozen=True)
class LossScale:
    """The pieces of loss scaling as pure functions; made by :func:`dynamic_loss_scale`.

    Attributes:
      init_scale: the scale at the start.
      growth_factor: what it is multiplied by after ``growth_interval`` finite steps in a row.
      backoff_factor: what it is multiplied by after gradients that are not finite.
      growth_interval: see ``growth_factor``.
    """

    init_scale: float
    growth_factor: float
    backoff_factor: float
    growth_interval: int

    def init(self) -> LossScaleState:
        """The state at the start of a run."""
        return LossScaleState.from_state_dict(
            {
                "scale": self.init_scale,
                "growth_factor": self.growth_factor,
                "backoff_factor": self.backoff_factor,
                "growth_interval": self.growth_interval,
                "_growth_tracker": 0,
            }
        )

    def scale(self, loss: Any, state: Any) -> Any:
        """Multiplies a loss, or a pytree of them, by the scale.

        Args:
          loss: floating-point arrays. Compute the loss in float32: the gradient of one in float16 is the
            scale itself in float16, where 65536 is infinite.
          state: a :class:`LossScaleState`, or an optimizer's state with one anywhere inside.
        """
        scale = _find(state).scale

        def scaled(value: Any) -> jax.Array:
            value = jnp.asarray(value)
            wide = working_dtype(value.dtype)
            return value.astype(wide) * scale.astype(wide)

        return jax.tree.map(scaled, loss)

    def unscale(self, grads: Any, state: Any, *, axis_name: AxisName = None) -> Unscaled:
        """Divides gradients by the scale, and looks whether they are finite.

        Args:
          grads: the gradients of the scaled loss; ``None`` stays ``None``.
          state: as for :meth:`scale`.
          axis_name: mesh axes over which leaves are sharded inside ``shard_map``, as for
            :func:`~jaxopt_core.gradients.global_norm`.

        Raises:
          RuntimeError: ``grads`` is what :meth:`unscale` returned.
          ValueError: a gradient is float16: keep the parameters in float32 and cast them in the loss.
        """
        if isinstance(grads, Unscaled):
            raise RuntimeError(
                "unscale() has already been called on these gradients since the last update()."
            )
        flat = flatten(grads)
        for path, grad in zip(flat.paths, flat.values, strict=True):
            if not is_absent(grad) and grad.dtype == jnp.float16:
                raise ValueError(
                    f"Attempting to unscale FP16 gradients: {path!r} is float16, in which the unscaled "
                    f"gradient would vanish. Keep the parameters in float32 and cast them inside the loss, "
                    f"as autocast does."
                )
        scale = _find(state).scale
        # In two steps, both exact but the reciprocal: that of 2**127 is subnormal, and XLA would take 0.
        part = jnp.where(scale > 1, np.float32(0.25), np.float32(1))
        inverse = 1 / (scale * part)
        unscaled = jax.tree.map(lambda g: times(times(g, inverse), part), grads, is_leaf=is_leaf)
        return Unscaled(unscaled, all_finite(grads, axis_name=axis_name, norm_of=grads))

    def update(self, state: LossScaleState, finite: Any) -> LossScaleState:
        """The scale for the next step, given whether this step's gradients were finite."""
        grown = state.scale * state.growth_factor
        tracker = state.growth_tracker + 1
        is_time = tracker == state.growth_interval
        after_good = jnp.where(is_time & jnp.isfinite(grown), grown, state.scale)
        return state._replace(
            scale=jnp.where(finite, after_good, state.scale * state.backoff_factor),
            growth_tracker=jnp.where(finite & ~is_time, tracker, 0),
        )


def dynamic_loss_scale(
    init_scale: float = 2.0**16,
    growth_factor: float = 2.0,
    backoff_factor: float = 0.5,
    growth_interval: int = 2000,
) -> LossScale:
    """A loss scale that follows the gradients, as ``torch.amp.GradScaler``.

    Args:
      init_scale: the scale at the start. Default 65536.
      growth_factor: what it is multiplied by after ``growth_interval`` finite steps in a row, if the result
        is finite. Default 2.
      backoff_factor: what it is multiplied by after gradients that are not finite. Default 0.5.
      growth_interval: see ``growth_factor``. Default 2000.

    Returns:
      A :class:`LossScale`, for :func:`with_loss_scale` or to be used piece by piece.

    Raises:
      ValueError: a factor on the wrong side of 1, or a number that is not positive.

    Example:
      >>> import jaxopt_core as jo
      >>> scaler = jo.precision.dynamic_loss_scale(growth_interval=2)
      >>> state = scaler.init()
      >>> for finite in (True, True, False):
      ...     state = scaler.update(state, finite)
      ...     print(float(state.scale), int(state.growth_tracker))
      65536.0 1
      131072.0 0
      65536.0 0
    """
    if not growth_factor > 1.0:
        raise ValueError(f"The growth factor must be > 1.0; got {growth_factor!r}.")
    if not 0.0 < backoff_factor < 1.0:
        raise ValueError(f"The backoff factor must be < 1.0 and positive; got {backoff_factor!r}.")
    if not is_count(growth_interval) or growth_interval < 1:
        raise ValueError(f"The growth interval must be an integer of at least 1; got {growth_interval!r}.")
    return LossScale(_positive(init_scale), growth_factor, backoff_factor, growth_interval)


def static_loss_scale(scale: float) -> LossScale:
    """A loss scale that stays as it is; steps whose gradients are not finite are still left out.

    Args:
      scale: what losses are multiplied by; 1 to have no scaling, and the skipping alone.

    Raises:
      ValueError: the scale is not positive and finite.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> scaler = jo.precision.static_loss_scale(128.0)
      >>> float(scaler.scale(jnp.float16(0.5), scaler.update(scaler.init(), finite=False)))
      64.0
    """
    return LossScale(_positive(scale), growth_factor=1.0, backoff_factor=1.0, growth_interval=2000)


class LossScaled(optax.GradientTransformationExtraArgs):
    """What :func:`with_loss_scale` returns: a gradient transformation that can also scale the loss.

    Attributes:
      scale: ``(loss, opt_state) -> scaled loss``, :meth:`LossScale.scale` of its loss scale.
    """

    scale: Any


def with_loss_scale(
    tx: optax.GradientTransformation, loss_scale: LossScale | None = None, *, axis_name: AxisName = None
) -> LossScaled:
    """An optimizer that takes the gradients of a scaled loss.

    One ``update`` is all of PyTorch's ``scaler.unscale_(optimizer)``, clipping, ``scaler.step(optimizer)``
    and ``scaler.update()``: it unscales, passes the gradients on to ``tx`` and adapts the scale. If they are
    not finite the update is zero, and ``tx``'s state, its count and schedules included, stays as it was. All
    of it runs inside ``jit``.

    Args:
      tx: the optimizer, or a chain that begins with what PyTorch does after ``unscale_``:
        ``optax.chain(jo.gradients.clip_grad_norm(1.0), jo.adamw())``. To accumulate gradients, put
        :func:`~jaxopt_core.gradients.accumulate` around the result.
      loss_scale: default :func:`dynamic_loss_scale`.
      axis_name: mesh axes over which leaves are sharded inside ``shard_map``, so that all devices skip
        together. Default: leaves are whole.

    Returns:
      A transformation with a :class:`LossScaledState`, and with ``scale(loss, opt_state)``, which finds the
      scale in any nesting of states.

    Raises:
      RuntimeError: ``tx`` scales a loss itself, so gradients would be unscaled twice.
      ValueError: a gradient is float16.

    Example:
      >>> import jax, jax.numpy as jnp, jaxopt_core as jo
      >>> tx = jo.precision.with_loss_scale(jo.sgd(lr=1.0))
      >>> params = jnp.ones(2)
      >>> opt_state = tx.init(params)
      >>> def scaled_loss(params):
      ...     squares = params.astype(jnp.float16) ** 2
      ...     loss = jnp.sum(squares.astype(jnp.float32)) / 1024
      ...     return tx.scale(loss, opt_state), loss
      >>> (_, loss), grads = jax.value_and_grad(scaled_loss, has_aux=True)(params)
      >>> updates, opt_state = tx.update(grads, opt_state, params)
      >>> print(f"{loss:.4f}", updates, opt_state.loss_scale.scale)
      0.0020 [-0.00195312 -0.00195312] 65536.0
    """
    scaler = dynamic_loss_scale() if loss_scale is None else loss_scale
    inner = optax.with_extra_args_support(tx)

    def init(params: optax.Params) -> LossScaledState:
        inner_state = inner.init(params)
        if _states(inner_state):
            raise RuntimeError(
                "unscale() would be called twice: the optimizer given has a loss scale already."
            )
        return LossScaledState(scaler.init(), jnp.zeros([], jnp.int32), inner_state)

    def update(
        grads: optax.Updates, state: LossScaledState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, LossScaledState]:
        _, finite = scaler.unscale(grads, state.loss_scale, axis_name=axis_name)

        def step(grads: Any, inner_state: Any, params: Any) -> tuple[Any, Any]:
            unscaled, _ = scaler.unscale(grads, state.loss_scale, axis_name=axis_name)
            return inner.update(unscaled, inner_state, params, **extra)

        updates, inner_state = advance_if(finite, step, grads, state.inner_state, params)
        return updates, LossScaledState(
            scaler.update(state.loss_scale, finite),
            jnp.where(finite, state.skipped, optax.safe_increment(state.skipped)),
            inner_state,
        )

    result = LossScaled(init, update)
    result.scale = scaler.scale
    return result


def _positive(scale: float) -> float:
    if not 0.0 < scale <= float(np.finfo(np.float32).max):
        raise ValueError(f"The scale must be positive and finite in float32; got {scale!r}.")
    return scale


def _states(state: Any) -> list[LossScaleState]:
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, LossScaleState))
    return [node for node in nodes if isinstance(node, LossScaleState)]


def _find(state: Any) -> LossScaleState:
    found = _states(state)
    if len(found) != 1:
        raise ValueError(f"Expected a state with one loss scale in it; found {len(found)}.")
    return found[0]
