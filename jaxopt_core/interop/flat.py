"""LBFGS, whose state is vectors over all parameters, in PyTorch's order and layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxopt_core.interop.arrays import as_numpy, in_place_of, number
from jaxopt_core.interop.layout import Layout
from jaxopt_core.optimizers.lbfgs import LBFGSState
from jaxopt_core.tree import Leaves

__all__ = ["lbfgs_from_torch", "lbfgs_to_torch"]

Array = np.ndarray[Any, Any]


class _Vectors:
    """PyTorch's order of elements and ours."""

    def __init__(self, layout: Layout, leaves: Leaves, names: Sequence[str]):
        self.layout, self.names = layout, names
        self.leaves = dict(leaves.present())

    def ours(self, vector: Array) -> Array:
        tensors, start = {}, 0
        for name in self.names:
            paired = self._is_complex(name)
            shape = (*self.layout.tensors[name], 2) if paired else self.layout.tensors[name]
            stop = start + int(np.prod(shape))
            tensors[name] = self._complex(vector[start:stop].reshape(shape), paired)
            start = stop
        return self._join([self.layout.leaf(path, tensors) for path in self.leaves], vector.dtype)

    def theirs(self, vector: Array) -> Array:
        values, start = {}, 0
        for path, leaf in self.leaves.items():
            paired = leaf.dtype.kind == "c"
            shape = (*leaf.shape, 2) if paired else leaf.shape
            stop = start + int(np.prod(shape))
            values[path] = self._complex(vector[start:stop].reshape(shape), paired)
            start = stop
        return self._join([self.layout.tensor(name, values) for name in self.names], vector.dtype)

    def size(self) -> int:
        return sum(leaf.size * (2 if leaf.dtype.kind == "c" else 1) for leaf in self.leaves.values())

    def _is_complex(self, name: str) -> bool:
        return bool(self.leaves[self.layout.paths(name)[0]].dtype.kind == "c")

    def _complex(self, values: Array, paired: bool) -> Array:
        return np.asarray(values[..., 0] + 1j * values[..., 1]) if paired else values

    def _join(self, parts: Sequence[Array], dtype: Any) -> Array:
        reals = [np.stack([p.real, p.imag], axis=-1) if p.dtype.kind == "c" else p for p in parts]
        return np.concatenate([np.ravel(part) for part in reals]).astype(dtype, copy=False)


def lbfgs_from_torch(
    state: LBFGSState,
    layout: Layout,
    leaves: Leaves,
    names: Sequence[str],
    theirs: Mapping[str, Any],
    count: int,
) -> tuple[LBFGSState, list[str]]:
    """The state of LBFGS out of PyTorch's.

    Args:
      state: as ``tx.init`` makes it.
      layout: of the model.
      leaves: the parameters.
      names: PyTorch's names of them in its order.
      theirs: the slots of PyTorch's first parameter.
      count: updates made so far, which PyTorch does not keep.

    Returns:
      The state, and what cannot be carried.
    """
    vectors = _Vectors(layout, leaves, names)
    new: dict[str, Any] = {
        "count": count,
        "func_evals": theirs.get("func_evals", 0),
        "n_iter": theirs.get("n_iter", 0),
    }
    if "d" in theirs:
        history = len(theirs["old_dirs"])
        if history > state.ro.size:
            return state, [
                f"the checkpoint has {history} pairs; tx with history_size={state.ro.size} keeps fewer"
            ]
        wrong = [
            f"the vector {name!r} has {np.size(as_numpy(each))} numbers, the parameters have {vectors.size()}"
            for name in ("d", "prev_flat_grad", "old_dirs", "old_stps")
            for each in (theirs[name] if isinstance(theirs[name], list | tuple) else [theirs[name]])
            if np.size(as_numpy(each)) != vectors.size()
        ]
        if wrong:
            return state, wrong
        for name in ("d", "prev_flat_grad"):
            new[name] = vectors.ours(as_numpy(theirs[name]))
        for name in ("old_dirs", "old_stps"):
            rows = [vectors.ours(as_numpy(each)) for each in theirs[name]]
            new[name] = _padded(rows, getattr(state, name))
        new["ro"] = _padded([as_numpy(each) for each in theirs["ro"]], state.ro)
        # PyTorch's list is as long as the history may become
        al = [each for each in theirs.get("al") or () if each is not None]
        new["al"] = _padded([as_numpy(each) for each in al], state.al)
        new |= {name: number(theirs[name]) for name in ("t", "H_diag", "prev_loss")}
        new |= {"history_start": 0, "history_len": history}
    made: dict[str, Any] = {n: in_place_of(getattr(state, n), np.asarray(v)) for n, v in new.items()}
    return state._replace(**made), []


def lbfgs_to_torch(state: LBFGSState, layout: Layout, leaves: Leaves, names: Sequence[str]) -> dict[str, Any]:
    """The slots of PyTorch's first parameter."""
    theirs: dict[str, Any] = {"func_evals": int(state.func_evals), "n_iter": int(state.n_iter)}
    if theirs["n_iter"] == 0:
        return theirs
    vectors = _Vectors(layout, leaves, names)
    size, length = state.ro.size, int(state.history_len)
    rows = [(int(state.history_start) + i) % size for i in range(length)]
    ro, al = np.asarray(state.ro), np.asarray(state.al)
    theirs["d"] = vectors.theirs(np.asarray(state.d))
    theirs["t"] = np.asarray(state.t).item()
    for name in ("old_dirs", "old_stps"):
        ring = np.asarray(getattr(state, name))
        theirs[name] = [vectors.theirs(ring[row]) for row in rows]
    theirs["ro"] = [np.array(ro[row]) for row in rows]
    theirs["H_diag"] = np.array(state.H_diag)
    theirs["prev_flat_grad"] = vectors.theirs(np.asarray(state.prev_flat_grad))
    theirs["prev_loss"] = np.asarray(state.prev_loss).item()
    if theirs["n_iter"] > 1:
        theirs["al"] = [np.array(al[i]) if i < length else None for i in range(size)]
    return theirs


def _padded(rows: Sequence[Array], like: Any) -> Array:
    whole = np.zeros(like.shape, like.dtype)
    for i, row in enumerate(rows):
        whole[i] = row
    return whole
