"""PyTorch's param_groups: which parameter, by name, stands in which group under which number."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxopt_core.interop.arrays import as_numpy, is_tensor
from jaxopt_core.interop.layout import Layout, LayoutError
from jaxopt_core.interop.rules import Shape
from jaxopt_core.interop.slots import SCALARS
from jaxopt_core.tree import Leaves

__all__ = ["Names", "TorchGroup", "owned_names", "paths_of", "read_groups", "require_optimizer"]

Names = Sequence[str] | Sequence[Sequence[str]]
_MOST = 4096  # partial assignments that are followed at a time


class TorchGroup(NamedTuple):
    """One of the ``param_groups``.

    Attributes:
      values: what it holds: hyperparameters, flags, what schedulers left there.
      names: its parameters, by PyTorch's names.
      ids: their numbers in ``state``.
    """

    values: Mapping[str, Any]
    names: tuple[str, ...]
    ids: tuple[Any, ...]


def require_optimizer(state_dict: Any) -> None:
    """Raises unless this is the state dict of an optimizer."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= state_dict.keys():
        keys = (
            ", ".join(map(repr, list(state_dict)[:8]))
            if isinstance(state_dict, Mapping)
            else repr(state_dict)
        )
        raise TypeError(
            f"Expected an optimizer's state dict, with 'state' and 'param_groups'; found {keys}. In a "
            "training checkpoint the optimizer's is one of the entries."
        )


def owned_names(layout: Layout, leaves: Leaves, problems: list[str]) -> list[str]:
    """PyTorch's names of the parameters that are there, in the layout's order."""
    present = {path for path, _ in leaves.present()}
    names = []
    for name in layout.tensors:
        paths = layout.paths(name) if name in layout.by_name else []
        if all(path in present for path in paths) and paths:
            names.append(name)
        elif any(path in present for path in paths):
            problems.append(f"of the leaves {paths} that {name!r} is made of, only some are parameters")
    return names


def read_groups(
    state_dict: Mapping[str, Any],
    layout: Layout,
    owned: Sequence[str],
    names: Names | None = None,
    agrees: Callable[[str, Mapping[str, Any]], bool] = lambda *_: True,
) -> list[TorchGroup]:
    """The groups, with names.

    Args:
      state_dict: of the optimizer.
      layout: of the model.
      owned: the names of the parameters that are optimized, in PyTorch's order.
      names: the same in the order of the groups, if the caller knows it.
      agrees: whether a parameter may be in a group with these values.

    Raises:
      LayoutError: names that are not the parameters', or too many or too few.
      ValueError: which parameter is in which group cannot be known.
    """
    groups = state_dict["param_groups"]
    ids = [tuple(group["params"]) for group in groups]
    if names is not None:
        found = _given(names, [len(each) for each in ids])
    elif all("param_names" in group for group in groups):
        found = [list(group["param_names"]) for group in groups]
    else:
        found = _inferred(state_dict, layout, owned, ids, agrees)
    known = [[_in_layout(name, layout) for name in group] for group in found]
    found_names = Counter(name for group in known for name in group)
    mine = dict.fromkeys(owned)
    problems = [f"the optimizer's parameter {n!r} is not one of params" for n in found_names if n not in mine]
    problems += [f"the optimizer has no parameter {name!r}" for name in mine if name not in found_names]
    problems += [f"the optimizer has {name!r} twice" for name, times in found_names.items() if times > 1]
    if problems:
        remedy = "put None into params in place of what the optimizer does not train"
        raise LayoutError(f"The optimizer's parameters are not those of params ({remedy})", problems)
    return [TorchGroup(g, tuple(n), i) for g, n, i in zip(groups, known, ids, strict=True)]


def paths_of(group: TorchGroup, layout: Layout) -> list[str]:
    """The leaves of a group's parameters."""
    return [path for name in group.names for path in layout.paths(name)]


def _given(names: Names, lengths: list[int]) -> list[list[str]]:
    flat: list[str] = []
    for each in names:
        flat += [each] if isinstance(each, str) else each
    if len(flat) != sum(lengths):
        raise ValueError(f"names has {len(flat)} names; the optimizer has {sum(lengths)} parameters.")
    rest = iter(flat)
    return [[next(rest) for _ in range(length)] for length in lengths]


def _in_layout(name: str, layout: Layout) -> str:
    if name not in layout.tensors:
        # torch.compile and DataParallel add prefixes to the names of one side or the other
        bare = {re.sub(r"^(module\.|_orig_mod\.)+", "", known): known for known in layout.tensors}
        name = bare.get(re.sub(r"^(module\.|_orig_mod\.)+", "", name), name)
    return layout.tied.get(name, name)


def _inferred(
    state_dict: Mapping[str, Any],
    layout: Layout,
    owned: Sequence[str],
    ids: Sequence[Sequence[Any]],
    agrees: Callable[[str, Mapping[str, Any]], bool],
) -> list[list[str]]:
    remedy = (
        "Give names=[...], the names in the order of the groups, or make PyTorch's optimizer of "
        "model.named_parameters(), which stores them."
    )
    if layout.order is None:
        raise ValueError(
            "Neither the optimizer's state dict nor the layout knows the order of PyTorch's parameters: "
            f"give the model's state dict to make_layout. {remedy}"
        )
    count = sum(map(len, ids))
    if count != len(owned):
        raise ValueError(
            f"PyTorch's optimizer has {count} parameters, and params has {len(owned)}. Put None into params "
            f"in place of what the optimizer does not train. {remedy}"
        )
    if len(ids) == 1:
        return [list(owned)]
    shapes = {key: _shape(slots) for key, slots in state_dict["state"].items()}
    groups = state_dict["param_groups"]

    def has_shape(name: str, group: int, place: int) -> bool:
        if place >= len(ids[group]):
            return False
        shape = shapes.get(ids[group][place])
        return shape is None or shape == layout.tensors[name]

    def fits(name: str, group: int, place: int) -> bool:
        return has_shape(name, group, place) and agrees(name, groups[group])

    way = _only_way(owned, len(ids), fits)
    if way is None:  # hyperparameters that disagree are found, and named, later
        way = _only_way(owned, len(ids), has_shape)
    if way is None:
        raise ValueError(
            f"PyTorch's optimizer has {len(ids)} parameter groups without names, and shapes and "
            f"hyperparameters do not tell which parameter is in which. {remedy}"
        )
    found: list[list[str]] = [[] for _ in ids]
    for name, group in zip(owned, way, strict=True):
        found[group].append(name)
    return found


def _only_way(names: Sequence[str], groups: int, fits: Callable[[str, int, int], bool]) -> list[int] | None:
    """The group of each name, if there is one assignment only that keeps the model's order in each group."""
    # how many there are of each group so far -> (ways to get there, one of them)
    level: dict[tuple[int, ...], tuple[int, Any]] = {(0,) * groups: (1, None)}
    for name in names:
        after: dict[tuple[int, ...], tuple[int, Any]] = {}
        for taken, (ways, path) in level.items():
            for group in range(groups):
                if fits(name, group, taken[group]):
                    key = (*taken[:group], taken[group] + 1, *taken[group + 1 :])
                    after[key] = after.get(key, (0, None))[0] + ways, (path, group)
        if not 0 < len(after) <= _MOST:
            return None
        level = after
    ((ways, path),) = level.values()  # the groups are full
    if ways != 1:
        return None
    way: list[int] = []
    while path is not None:
        path, group = path
        way.insert(0, group)
    return way


def _shape(slots: Mapping[str, Any]) -> Shape | None:
    """The shape of the parameter that has these slots, where they tell."""
    if "row_var" in slots:
        return (*slots["row_var"].shape[:-1], slots["col_var"].shape[-1])
    arrays = [value for name, value in slots.items() if is_tensor(value) and name not in ("step", *SCALARS)]
    return tuple(as_numpy(arrays[0]).shape) if arrays else None
