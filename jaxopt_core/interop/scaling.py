"""The states of GradScaler and AveragedModel, from PyTorch and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_core.averaging import Averaged
from jaxopt_core.interop.arrays import as_numpy, in_place_of, number
from jaxopt_core.interop.layout import Layout, LayoutError
from jaxopt_core.interop.parameters import params_from_torch, params_to_torch
from jaxopt_core.precision.loss_scale import LossScaleState

__all__ = ["average_from_torch", "average_to_torch", "scaler_from_torch", "scaler_to_torch"]

_COUNT = "n_averaged"
_WRAPPED = "module."


def scaler_from_torch(state_dict: Mapping[str, Any], opt_state: Any = None) -> Any:
    """The loss scale with which a run goes on, out of ``torch.amp.GradScaler``'s state dict.

    Args:
      state_dict: PyTorch's ``scaler.state_dict()``.
      opt_state: a state with one loss scale somewhere inside, as ``with_loss_scale`` makes it.

    Returns:
      ``opt_state`` with PyTorch's loss scale; without it, the loss scale's state alone.

    Raises:
      LayoutError: an entry is missing: the state dict of a disabled scaler is empty.
      ValueError: ``opt_state`` has no loss scale, or several.

    Example:
      >>> from jaxopt_core import interop
      >>> theirs = {"scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5}
      >>> state = interop.scaler_from_torch(theirs | {"growth_interval": 2000, "_growth_tracker": 7})
      >>> print(state.scale, state.growth_tracker)
      1024.0 7
    """
    entries = ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")
    if missing := [f"{name!r} is missing" for name in entries if name not in state_dict]:
        raise LayoutError("This is no state of an enabled GradScaler", missing)
    new = LossScaleState.from_state_dict({name: number(state_dict[name]) for name in entries})
    if opt_state is None:
        return new
    _scale_in(opt_state)
    return jax.tree.map(
        lambda node: jax.tree.map(in_place_of, node, new) if isinstance(node, LossScaleState) else node,
        opt_state,
        is_leaf=lambda node: isinstance(node, LossScaleState),
    )


def scaler_to_torch(opt_state: Any) -> dict[str, float | int]:
    """The state dict that ``torch.amp.GradScaler.load_state_dict`` takes.

    Args:
      opt_state: a loss scale's state, or a state with one somewhere inside.

    Raises:
      ValueError: there is none, or there are several.
    """
    return _scale_in(opt_state).state_dict()


def average_from_torch(
    state_dict: Mapping[str, Any], layout: Layout, params: Any, rest: Any = None
) -> Averaged:
    """The average out of ``torch.optim.swa_utils.AveragedModel``'s state dict.

    Args:
      state_dict: PyTorch's ``averaged_model.state_dict()``.
      layout: of the model itself, or made of this state dict.
      params: the parameters; they give dtypes and shardings.
      rest: what else the model holds, if the average is to hold it.

    Returns:
      The average, with ``rest``'s counterpart as its buffers.

    Raises:
      LayoutError: as :func:`params_from_torch`; or the state dict is no averaged model's.

    Example:
      >>> import jax.numpy as jnp, numpy as np
      >>> from jaxopt_core import interop
      >>> params = {"fc": {"bias": jnp.zeros(2)}}
      >>> layout = interop.make_layout(params, {"fc.bias": (2,)})
      >>> theirs = {"n_averaged": np.asarray(3), "module.fc.bias": np.ones(2, np.float32)}
      >>> interop.average_from_torch(theirs, layout, params).n_averaged.item()
      3
    """
    if _COUNT not in state_dict:
        raise LayoutError("This is no state of an AveragedModel", [f"{_COUNT!r} is missing"])
    model = {_in_layout(name, layout): value for name, value in state_dict.items() if name != _COUNT}
    return Averaged(
        jnp.asarray(int(as_numpy(state_dict[_COUNT])), jnp.int32),
        params_from_torch(model, layout, like=params),
        None if rest is None else params_from_torch(model, layout, like=rest),
    )


def average_to_torch(
    averaged: Averaged, layout: Layout, rest: Any = None, *, like: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """The state dict that ``AveragedModel.load_state_dict`` takes.

    Args:
      averaged: the average.
      layout: of the model itself, or made of an averaged model's state dict.
      rest: what else the model holds. Default: the average's buffers.
      like: a state dict of the averaged model, as for :func:`params_to_torch`.

    Raises:
      LayoutError: as :func:`params_to_torch`.
    """
    inside = {_in_layout(name, layout): value for name, value in (like or {}).items() if name != _COUNT}
    buffers = averaged.buffers if rest is None else rest
    model = params_to_torch(averaged.params, layout, rest=buffers, like=inside)
    named = {name if name.startswith(_WRAPPED) else _WRAPPED + name: value for name, value in model.items()}
    return {_COUNT: np.asarray(averaged.n_averaged, np.int64)} | named


def _in_layout(name: str, layout: Layout) -> str:
    return name if name in layout.tensors else name.removeprefix(_WRAPPED)


def _scale_in(opt_state: Any) -> LossScaleState:
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, LossScaleState))
    scales = [node for node in nodes if isinstance(node, LossScaleState)]
    if len(scales) != 1:
        raise ValueError(f"Expected a state with one loss scale in it; found {len(scales)}.")
    return scales[0]
