"""How many steps were made: of a run, and of each parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxopt_core.groups import ByPath
from jaxopt_core.hyperparams import Scheduled
from jaxopt_core.interop.arrays import as_numpy, in_place_of, is_tensor
from jaxopt_core.interop.nested import Found
from jaxopt_core.interop.scheduler import scheduler_count
from jaxopt_core.leafwise import OptimizerState, count_per_parameter
from jaxopt_core.tree import Leaves

__all__ = ["step_dtype", "steps_of", "uncounted", "with_steps"]


def uncounted(found: Found, state: Any, otherwise: int, scheduler: Mapping[str, Any] | None) -> int | None:
    """Steps made so far where PyTorch's optimizer does not count; ``None`` if a schedule needs to know."""
    nodes = jax.tree.leaves(state.hyperparams, is_leaf=lambda node: isinstance(node, Scheduled))
    if not any(isinstance(node, Scheduled) for node in nodes):
        return otherwise
    schedule = found.hyperparams.arguments["lr"]
    while isinstance(schedule, ByPath):
        schedule = schedule.default
    return scheduler_count(schedule, scheduler) if scheduler is not None else None


def with_steps(state: OptimizerState, leaves: Leaves, steps: Mapping[str, int]) -> OptimizerState:
    """The state, with a step for each parameter if they differ."""
    if set(steps.values()) <= {int(state.count)}:
        return state
    state = count_per_parameter(state, leaves.unflatten(leaves.values))
    per_leaf = leaves.scatter({"step": state.slots["step"]})
    for path, mine in zip(leaves.paths, per_leaf, strict=True):
        if mine:
            mine["step"] = in_place_of(mine["step"], np.asarray(steps[path]))
    return state._replace(slots=state.slots | {"step": leaves.gather(per_leaf, "step")})


def steps_of(state: OptimizerState, leaves: Leaves) -> dict[str, int]:
    """Path -> step."""
    if "step" not in state.slots:
        return {path: int(state.count) for path, _ in leaves.present()}
    per_leaf = leaves.scatter({"step": state.slots["step"]})
    return {path: int(s["step"]) for path, s in zip(leaves.paths, per_leaf, strict=True) if s}


def step_dtype(like: Mapping[str, Any] | None) -> np.dtype[Any]:
    """The dtype of PyTorch's ``step``, which follows its default dtype."""
    slots = like["state"].values() if like is not None else ()
    steps = [as_numpy(each["step"]) for each in slots if is_tensor(each.get("step"))]
    return steps[0].dtype if steps else np.dtype(np.float32)
