"""Which arrays share memory, so that a file holds shared memory once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Placement(NamedTuple):
    """Where a tensor lies: index of its storage, offset and strides in elements."""

    storage: int
    offset: int
    strides: tuple[int, ...]


def plan(arrays: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[Placement]]:
    """Storages for arrays, in the order of their first arrays.

    Arrays of one dtype that overlap in memory share a storage, and are views of it with their own strides,
    as in PyTorch. Any other array gets its own storage, without the gaps that a view may have. A view that
    PyTorch cannot express (negative strides) or that has another dtype than what it overlaps gets a copy.

    Returns:
        Storages, to be written in C order, and a placement for each array.

    Example:
        >>> x = np.arange(12.0).reshape(3, 4)
        >>> storages, placements = plan([x, x.T[1:]])
        >>> len(storages), placements[1]
        (1, Placement(storage=0, offset=1, strides=(1, 4)))
    """
    shared = {index: group for group in _overlapping(arrays) for index in group.members}
    storages: list[np.ndarray] = []
    placements: list[Placement] = []
    places: dict[int, int] = {}
    for index, array in enumerate(arrays):
        group = shared.get(index)
        if group is None:
            placements.append(Placement(len(storages), 0, _dense(array.shape)))
            storages.append(array)
            continue
        if id(group) not in places:
            places[id(group)] = len(storages)
            storages.append(group.memory)
        offset = (_bounds(array)[0] - group.start) // array.itemsize
        strides = tuple(step // array.itemsize for step in array.strides)
        placements.append(Placement(places[id(group)], offset, strides))
    return storages, placements


class _Group(NamedTuple):
    members: list[int]
    start: int  # address
    memory: np.ndarray  # (n,), all of it


def _dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    # A dimension of size 0 counts as 1, as in PyTorch.
    sizes = [max(size, 1) for size in shape[1:]]
    return tuple(reversed(list(itertools.accumulate(reversed(sizes), int.__mul__, initial=1))))[: len(shape)]


def _bounds(array: np.ndarray) -> tuple[int, int]:
    return np.lib.array_utils.byte_bounds(array)


def _overlapping(arrays: Sequence[np.ndarray]) -> list[_Group]:
    groups = []
    views = [index for index, array in enumerate(arrays) if array.size and _is_torch_view(array)]
    views.sort(key=lambda index: (arrays[index].dtype.str, arrays[index].dtype.name, _bounds(arrays[index])))
    members: list[int] = []
    end = 0
    for index in [*views, None]:
        array = None if index is None else arrays[index]
        first = None if not members else arrays[members[0]]
        apart = array is None or first is None or array.dtype != first.dtype or _bounds(array)[0] >= end
        if apart and len(members) > 1:
            group = _make_group(arrays, sorted(members), end)
            groups += [group] if group else []
        if index is not None and array is not None:
            members, end = ([], 0) if apart else (members, end)
            members.append(index)
            end = max(end, _bounds(array)[1])
    return groups


def _is_torch_view(array: np.ndarray) -> bool:
    return all(step >= 0 and step % array.itemsize == 0 for step in array.strides)


def _make_group(arrays: Sequence[np.ndarray], members: list[int], end: int) -> _Group | None:
    start = min(_bounds(arrays[index])[0] for index in members)
    size = arrays[members[0]].itemsize
    if any((_bounds(arrays[index])[0] - start) % size for index in members):
        return None
    for index in members:
        owner = arrays[index]
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        low, high = _bounds(owner) if owner.size else (0, 0)
        if owner.flags.forc and low <= start and end <= high:
            flat = np.asarray(owner).reshape(-1, order="A").view(np.uint8)
            memory = flat[start - low : end - low].view(arrays[members[0]].dtype)
            return _Group(members, start, memory)
    return None
