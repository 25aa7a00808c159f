"""An optimizer's slots: from PyTorch's state into trees, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxopt_core.interop.arrays import as_numpy, in_place_of, is_tensor
from jaxopt_core.interop.layout import Layout
from jaxopt_core.interop.nested import Found
from jaxopt_core.interop.patterns import some
from jaxopt_core.interop.rules import Shape
from jaxopt_core.optimizers._axes import torch_axes
from jaxopt_core.tree import Leaves, Slots, is_absent

__all__ = ["NO_STEP", "SCALARS", "check_axes", "slots_from_torch", "slots_to_torch"]

SCALARS = ("mu_product", "eta", "mu")  # float32 for each parameter
NO_STEP = ("SGD", "Muon")  # whose state has no step
_MATRIX = ("Adafactor", "Muon")  # whose update depends on which axes are rows and columns
_REDUCED = {"row_var": -1, "col_var": -2}  # PyTorch's axis that has length 1
_MAY_LACK = ("momentum_buffer", "momentum_buffer_set")  # PyTorch makes it when momentum is first used
_EAGER = ("Adagrad",)  # whose constructor makes the state

State = Mapping[str, Mapping[str, Any]]


def check_axes(found: Found, leaves: Leaves, layout: Layout) -> list[str]:
    """What is wrong with the argument ``axes``, or with a layout under an optimizer that sees matrices."""
    problems = []
    for path, leaf in leaves.present():
        pieces = layout.by_path[path]
        same_rows = len(pieces) == 1 and pieces[0].is_permutation and pieces[0].axes[:1] == (0,)
        if found.kind == "SparseAdam" and not same_rows:
            problems.append(
                f"SparseAdam works on rows, and the rows of {path!r} are not those of PyTorch's tensor"
            )
        if found.kind not in _MATRIX:
            continue
        whole = len(pieces) == 1 and pieces[0].cut is None
        rank = len(pieces[0].tensor_shape)
        theirs = layout.matrix_axes(path) if rank > 1 else None
        if not whole or (rank > 1 and theirs is None) or (rank < 2 and leaf.ndim > 1):
            problems.append(
                f"{found.kind} treats {path!r} as a whole, and it is no tensor of PyTorch's with its axes "
                "moved"
            )
        elif theirs is not None:
            argument = found.hyperparams.resolve({}, path, leaf.dtype, leaf.dtype).axes
            if torch_axes(leaf, argument)[-2:] != theirs[-2:]:
                problems.append(
                    f"axes of {path!r}: tx has {argument!r}, and by the layout it is {theirs!r}. Construct "
                    "tx with axes=layout.torch_axes()"
                )
    return problems


def slots_from_torch(
    found: Found, slots: Slots, leaves: Leaves, layout: Layout, state: State
) -> tuple[Slots, dict[str, int | None], list[str]]:
    """The slots of all parameters, out of PyTorch's state.

    Args:
      found: the optimizer.
      slots: as ``tx.init`` makes them; they give dtype and place, and what PyTorch has not made.
      leaves: the parameters.
      layout: of the model.
      state: PyTorch's name -> its slots.

    Returns:
      The slots; path -> step (0 where PyTorch has no state, ``None`` where it has one without a step); and
      what cannot be carried.
    """
    problems: list[str] = []
    steps: dict[str, int | None] = {}
    others: dict[tuple[str, ...], list[str]] = {}
    per_leaf = _scattered(leaves, slots)
    for path, param, mine in zip(leaves.paths, leaves.values, per_leaf, strict=True):
        if is_absent(param):
            continue
        theirs = {n: {k: v for k, v in state.get(n, {}).items() if v is not None} for n in layout.names(path)}
        if not any(theirs.values()):
            steps[path] = 0
            continue
        kept = [sorted(each.keys() - {"step"}) for each in theirs.values()]
        made = [{k: int(as_numpy(v)) for k, v in each.items() if k == "step"} for each in theirs.values()]
        if any(each != kept[0] for each in kept) or any(each != made[0] for each in made):
            problems.append(f"{path!r} is made of {list(theirs)}, which have different slots or steps")
            continue
        if not made[0] and found.kind not in NO_STEP:
            problems.append(f"the state of {path!r} has no step")
            continue
        steps[path] = made[0].get("step")
        more, less = set(kept[0]) - set(mine), set(mine) - set(kept[0]) - set(_MAY_LACK)
        if more or less:
            others.setdefault((*sorted(more), "/", *sorted(less)), []).append(path)
            continue
        for slot, old in mine.items():
            if slot == "momentum_buffer_set":
                mine[slot] = in_place_of(old, np.asarray("momentum_buffer" in kept[0]))
            elif slot in kept[0]:
                value = _slot_leaf(
                    slot, path, layout, {n: each[slot] for n, each in theirs.items()}, old.shape
                )
                if isinstance(value, str):
                    problems.append(value)
                elif value.dtype != old.dtype and slot not in SCALARS:
                    problems.append(
                        f"slot {slot!r} of {path!r} is {old.dtype}, as the parameter is; PyTorch's is "
                        f"{value.dtype}. Cast the one or the other first"
                    )
                else:
                    mine[slot] = in_place_of(old, value)
    problems += [_of_another(found, names, paths) for names, paths in others.items()]
    return {name: leaves.gather(per_leaf, name) for name in slots}, steps, problems


def slots_to_torch(
    found: Found,
    slots: Slots,
    leaves: Leaves,
    layout: Layout,
    steps: Mapping[str, int],
    names: Sequence[str],
    step_dtype: Any,
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """PyTorch's name -> its slots, of the parameters that PyTorch would have made a state for.

    Args:
      found: the optimizer.
      slots: the trees.
      leaves: the parameters.
      layout: of the model.
      steps: path -> step.
      names: the parameters that the optimizer has.
      step_dtype: of PyTorch's ``step``.

    Returns:
      The state, and what cannot be carried.
    """
    problems = []
    per_leaf = dict(zip(leaves.paths, _scattered(leaves, slots), strict=True))
    state: dict[str, dict[str, Any]] = {}
    for name in names:
        paths = layout.paths(name)
        if len({steps[path] for path in paths}) > 1:
            problems.append(f"the leaves {paths} that {name!r} is made of are at different steps")
            continue
        step = steps[paths[0]]
        if step == 0 and found.kind not in _EAGER:
            continue
        mine: dict[str, Any] = {}
        if found.kind not in NO_STEP:
            mine["step"] = step if found.kind == "SparseAdam" else np.asarray(step, step_dtype)
        for slot in per_leaf[paths[0]]:
            if slot == "momentum_buffer_set":
                continue
            value = _slot_tensor(slot, name, layout, {path: per_leaf[path][slot] for path in paths})
            if isinstance(value, str):
                problems.append(value)
            else:
                mine[slot] = value
        if not np.all([per_leaf[path].get("momentum_buffer_set", True) for path in paths]):
            del mine["momentum_buffer"]
        if mine:
            state[name] = mine
    return state, problems


def _scattered(leaves: Leaves, slots: Slots) -> list[Slots]:
    try:
        return leaves.scatter(slots)
    except ValueError as error:
        raise ValueError(
            f"The slots are no trees like the parameters, as those of a bucketed optimizer are not. Carry "
            f"the state over with the optimizer that it was made of, whose numbers are the same. ({error})"
        ) from None


def _of_another(found: Found, names: tuple[str, ...], paths: list[str]) -> str:
    more, less = names[: names.index("/")], names[names.index("/") + 1 :]
    has = ([f"has {', '.join(more)}"] if more else []) + ([f"lacks {', '.join(less)}"] if less else [])
    return (
        f"{some(paths)}: compared with tx, which is {found.kind}, the checkpoint {' and '.join(has)}. It was "
        f"made by another optimizer, or with other arguments"
    )


def _slot_leaf(
    slot: str, path: str, layout: Layout, values: Mapping[str, Any], shape: Shape
) -> np.ndarray[Any, Any] | str:
    tensors = {name: as_numpy(value) for name, value in values.items()}
    if shape == () != layout.leaves[path]:
        first, *others = [np.reshape(value, ()) for value in tensors.values() if value.size == 1]
        if len(others) + 1 < len(tensors) or any(other != first for other in others):
            return (
                f"slot {slot!r} of {path!r} is one number here; in the checkpoint {list(tensors)} have "
                "several"
            )
        return first
    full = {}
    for name, value in tensors.items():
        expected = _reduced(slot, layout.tensors[name])
        if not is_tensor(values[name]) or value.shape != expected:
            return f"slot {slot!r} of {name!r} has shape {value.shape}, expected {expected}"
        full[name] = np.broadcast_to(value, layout.tensors[name])
    leaf = layout.leaf(path, full)
    return leaf[tuple(slice(0, n) for n in shape)] if leaf.shape != shape else leaf


def _slot_tensor(
    slot: str, name: str, layout: Layout, leaves: Mapping[str, Any]
) -> np.ndarray[Any, Any] | str:
    arrays = {path: np.asarray(leaf) for path, leaf in leaves.items()}
    if all(array.shape == () != layout.leaves[path] for path, array in arrays.items()):
        first, *others = arrays.values()
        if any(other != first for other in others):
            return (
                f"slot {slot!r} of {name!r} is one number in PyTorch; the leaves {list(arrays)} have several"
            )
        return np.array(first)
    full = {path: np.broadcast_to(array, layout.leaves[path]) for path, array in arrays.items()}
    tensor = layout.tensor(name, full)
    return np.array(tensor[tuple(slice(0, n) for n in _reduced(slot, tensor.shape))], order="C")


def _reduced(slot: str, shape: Shape) -> Shape:
    axis = _REDUCED.get(slot)
    if axis is None or len(shape) < 2:
        return shape
    at = len(shape) + axis
    return (*shape[:at], 1, *shape[at + 1 :])
