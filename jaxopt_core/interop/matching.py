"""Matching names with leaves, and everything that does not fit."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxopt_core.interop.arrays import as_numpy, is_tensor
from jaxopt_core.interop.layout import LayoutError
from jaxopt_core.interop.rules import (
    Piece,
    Rule,
    Shape,
    is_counter,
    is_random,
    natural,
    part_shape,
    tensor_names,
)

__all__ = ["Matching"]

# What torch.nn.MultiheadAttention keeps joined, and Flax apart.
_ATTENTION = tuple(
    rule
    for leaf, weight, joined in (("kernel", ".weight", "_weight"), ("bias", ".bias", "_bias"))
    for rule in (
        Rule(rf"(.*)\.in_proj{joined}", (rf"\1/query/{leaf}", rf"\1/key/{leaf}", rf"\1/value/{leaf}")),
        Rule(rf"(.*)\.out_proj{re.escape(weight)}", rf"\1/out/{leaf}"),
    )
)
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")  # DataParallel, torch.compile
_HINTS = 20  # candidates for more names than that nobody reads, and they take long to find


class Matching:
    """The pieces found so far, and the problems."""

    def __init__(
        self,
        tensors: Mapping[str, Shape],
        leaves: Mapping[str, Shape],
        rules: Sequence[Rule],
        rename: Mapping[str, Any],
        tied: Mapping[str, str],
        values: Mapping[str, Any],
    ):
        self.tensors, self.leaves, self.rules = tensors, leaves, rules
        self.tied, self.values = tied, values
        self.pieces: list[Piece] = []
        self.parts: dict[str, list[tuple[Rule, str]]] = {}
        self.ignored: list[str] = []
        self.problems: list[str] = []
        self.unmatched: list[str] = []
        self.plain = {name: _renamed(name, rename) for name in tensors}
        names = set(self.plain.values())
        self.found: dict[str, list[str]] = {}
        for path in leaves:
            flax, literal = tensor_names(path)
            self.found.setdefault(literal if literal in names else flax, []).append(path)
        for name, plain in self.plain.items():
            if plain not in self.found:
                self.plain[name] = _WRAPPERS.sub("", plain)

    def match(self, name: str) -> None:
        """Finds the leaves of one tensor."""
        for rule in self.rules:
            if found := re.fullmatch(rule.name, name):
                return self._apply(rule, found, name)
        plain = self.plain[name]
        if paths := self.found.get(plain):
            for path in paths:
                self._add(name, path, self.tensors[name], None, None)
            return None
        for rule in _ATTENTION:
            found = re.fullmatch(rule.name, plain)
            if found and all(path in self.leaves for path in _expanded(rule, found)):
                return self._apply(rule, found, name)
        if is_counter(name):  # Flax's own BatchNorm has no such thing
            self.ignored.append(name)
        else:
            self.unmatched.append(name)
        return None

    def _apply(self, rule: Rule, found: re.Match[str], name: str) -> None:
        paths = _expanded(rule, found)
        if not paths:
            self.ignored.append(name)
        missing = [path for path in paths if path not in self.leaves]
        for path in missing:
            self.problems.append(
                f"{name!r}: the rule {rule.name!r} leads to {path!r}, which is no "
                f"leaf{_near(path, self.leaves)}"
            )
        if missing or not paths:
            return
        if rule.part is not None:
            self.parts.setdefault(paths[0], []).append((rule, name))
        elif len(paths) == 1:
            self._add(name, paths[0], self.tensors[name], None, None, rule)
        else:
            self._cut(rule, name, paths)

    def _cut(self, rule: Rule, name: str, paths: Sequence[str]) -> None:
        shape, start = self.tensors[name], 0
        if not _has_axis(shape, rule.axis):
            self.problems.append(f"{name!r} has shape {shape} and no axis {rule.axis} to be cut along")
            return
        rest = math.prod(shape) // max(shape[rule.axis], 1)
        for path in paths:
            stop = start + math.prod(self.leaves[path]) // max(rest, 1)
            self._add(
                name, path, part_shape(shape, (rule.axis, start, stop)), (rule.axis, start, stop), None, rule
            )
            start = stop
        if start != shape[rule.axis]:
            self.problems.append(
                f"{name!r} has {shape[rule.axis]} entries along axis {rule.axis}, and the leaves "
                f"{', '.join(map(repr, paths))} have {start} together"
            )

    def _join(self, path: str) -> None:
        leaf, start = self.leaves[path], 0
        parts = sorted(self.parts[path], key=lambda part: part[0].part or 0)
        axis = parts[0][0].axis
        if [rule.part for rule, _ in parts] != list(range(len(parts))) or not _has_axis(leaf, axis):
            given = ", ".join(f"{name!r} as part {rule.part}" for rule, name in parts)
            self.problems.append(f"{path!r} of shape {leaf} is to be joined along axis {axis} from {given}")
            return
        rest = math.prod(leaf) // max(leaf[axis], 1)
        for rule, name in parts:
            stop = start + math.prod(self.tensors[name]) // max(rest, 1)
            self._add(name, path, self.tensors[name], None, (axis, start, stop), rule)
            start = stop
        if start != leaf[axis]:
            self.problems.append(
                f"{path!r} has {leaf[axis]} entries along axis {axis}, and its parts have {start} together"
            )

    def _add(self, name: str, path: str, tensor: Shape, cut: Any, put: Any, rule: Rule | None = None) -> None:
        leaf = part_shape(self.leaves[path], put)
        how = (
            natural(path, tensor, leaf)
            if rule is None or rule.axes is rule.view is None
            else _given(rule, tensor)
        )
        if how is None or not _reaches(how, leaf):
            by = (
                "by Flax's convention"
                if how is None or rule is None
                else f"with view {how[0]} and axes {how[1]}"
            )
            part = " in this part" if cut or put else ""
            self.problems.append(
                f"{name!r} has shape {tensor}{part}, which does not fit {path!r} of shape {leaf} {by}"
            )
            how = tensor, tuple(range(len(tensor)))  # so that it counts as matched
        self.pieces.append(Piece(name, path, self.tensors[name], self.leaves[path], *how, cut, put))

    def finish(self) -> None:
        """Joins the parts; raises a LayoutError if anything does not fit."""
        for path in self.parts:
            self._join(path)
        matched = {piece.path for piece in self.pieces} | self.parts.keys()
        mentioned = " ".join(self.problems)
        needless = {p for p in self.leaves if is_random(p) or is_counter(p)}
        free = [p for p in self.leaves if not (p in matched or p in needless or repr(p) in mentioned)]
        paths = {tensor_names(path)[0]: path for path in free or self.leaves}
        for i, name in enumerate(self.unmatched):
            hint = _near(self.plain[name], paths, paths) + self._twin(name) if i < _HINTS else ""
            self.problems.append(f"{name!r} of shape {self.tensors[name]} matches no leaf{hint}")
        for i, path in enumerate(free):
            hint = self._tie(path) + _near(tensor_names(path)[0], self.unmatched) if i < _HINTS else ""
            self.problems.append(f"no tensor matches the leaf {path!r} of shape {self.leaves[path]}{hint}")
        self._find_twice()
        if self.problems:
            raise LayoutError("PyTorch's tensors and the tree do not fit each other", self.problems)

    def _tie(self, path: str) -> str:
        for name, other in self.tied.items():
            if self.plain[name] in tensor_names(path):
                return f"; in PyTorch {name!r} is tied to {other!r}, so that here there is one leaf for both"
        return ""

    def _twin(self, name: str) -> str:
        value = self.values[name]
        for other in dict.fromkeys(piece.name for piece in self.pieces):
            same_shape = self.tensors[other] == self.tensors[name] != () and is_tensor(value)
            if same_shape and np.array_equal(as_numpy(self.values[other]), as_numpy(value)):
                return f"; it is equal to {other!r}: for tied weights give tied={{{name!r}: {other!r}}}"
        return ""

    def _find_twice(self) -> None:
        for key, other, part, kind in (("path", "name", "put", "leaf"), ("name", "path", "cut", "tensor")):
            groups: dict[str, list[Piece]] = {}
            for piece in self.pieces:
                groups.setdefault(getattr(piece, key), []).append(piece)
            for value, pieces in groups.items():
                if len(pieces) > 1 and any(getattr(piece, part) is None for piece in pieces):
                    matches = ", ".join(repr(getattr(piece, other)) for piece in pieces)
                    hint = "; for tied weights give tied={...}" if key == "path" else ""
                    self.problems.append(
                        f"the {kind} {value!r} is matched {len(pieces)} times, by {matches}{hint}"
                    )


def _renamed(name: str, rename: Mapping[str, Any]) -> str:
    for pattern, replacement in rename.items():
        name = re.sub(pattern, replacement, name)
    return name


def _expanded(rule: Rule, found: re.Match[str]) -> list[str]:
    if rule.path is None:
        return []
    return [found.expand(path) for path in ((rule.path,) if isinstance(rule.path, str) else rule.path)]


def _given(rule: Rule, tensor: Shape) -> tuple[Shape, tuple[int, ...]]:
    view = tensor
    if rule.view is not None:
        known = math.prod(n for n in rule.view if n != -1)
        view = tuple(math.prod(tensor) // max(known, 1) if n == -1 else n for n in rule.view)
    return view, tuple(range(len(view))) if rule.axes is None else tuple(rule.axes)


def _reaches(how: tuple[Shape, tuple[int, ...]], leaf: Shape) -> bool:
    view, axes = how
    if sorted(axes) != list(range(len(view))) or math.prod(view) != math.prod(leaf):
        return False
    permuted = tuple(view[axis] for axis in axes)
    return len(permuted) != len(leaf) or permuted == leaf


def _has_axis(shape: Shape, axis: int) -> bool:
    return 0 <= axis < len(shape)


def _near(name: str, candidates: Iterable[str], shown: Mapping[str, str] | None = None) -> str:
    near = difflib.get_close_matches(name, list(candidates), n=3, cutoff=0.5)
    return f" (nearest: {', '.join(repr(shown[n] if shown else n) for n in near)})" if near else ""
