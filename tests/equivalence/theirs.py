"""Runs a row with PyTorch, in all the arithmetics that its tolerance asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests import oracle
from tests.equivalence.rows import By, Given, Row, Schedule, real_dtype, value_at

__all__ = ["CLASSES", "run_torch"]

CLASSES = {
    "sgd": "SGD",
    "adam": "Adam",
    "adamw": "AdamW",
    "nadam": "NAdam",
    "radam": "RAdam",
    "adamax": "Adamax",
    "adadelta": "Adadelta",
    "adagrad": "Adagrad",
    "rmsprop": "RMSprop",
    "rprop": "Rprop",
    "asgd": "ASGD",
    "adafactor": "Adafactor",
    "muon": "Muon",
    "sparse_adam": "SparseAdam",
}
FUSED = ("SGD", "Adam", "AdamW", "Adagrad")
HALVES = ("bfloat16", "float16")


def run_torch(row: Row, params: Mapping[str, np.ndarray], grads: Any) -> dict[str, list[oracle.Step]]:
    """The reference run of the row, and the others that measure PyTorch's noise."""
    optimizer = CLASSES[row.optimizer]
    fixed = {name: _theirs(row, value) for name, value in row.arguments.items() if not _grouped(value)}
    grouped = {name: value for name, value in row.arguments.items() if _grouped(value)}
    groups = None
    if grouped:
        groups = {path: {n: _theirs(row, _chosen(v, path)) for n, v in grouped.items()} for path in params}
    changes = [_their_settings(row, t, params) for t in range(row.steps)]

    def run(variant: str) -> list[oracle.Step]:
        return oracle.run(
            optimizer, params, grads, fixed, groups=groups, changes=changes, variant=variant, steps=row.steps
        )

    wanted = dict.fromkeys((row.tolerance.reference, *row.tolerance.variants))
    return {variant: run(variant) for variant in wanted if _exists(variant, optimizer, row, params)}


def _exists(variant: str, optimizer: str, row: Row, params: Mapping[str, np.ndarray]) -> bool:
    if variant == "fused":
        # torch 2.13's fused SGD is wrong in half precision on the CPU (by 0.5 for a step of 0.1).
        broken = optimizer == "SGD" and row.dtype in HALVES
        return optimizer in FUSED and not broken and not any(map(np.iscomplexobj, params.values()))
    if variant == "foreach":
        return "foreach" in oracle.signature(optimizer)
    return variant != "wide" or row.dtype != "float64"


def _grouped(value: Any) -> bool:
    return isinstance(value, By) or (isinstance(value, tuple) and any(map(_grouped, value)))


def _chosen(value: Any, path: str) -> Any:
    if isinstance(value, tuple):
        return tuple(_chosen(each, path) for each in value)
    if isinstance(value, By):
        return next((v for p, v in value.patterns.items() if re.search(p, path)), value.default)
    return value


def _theirs(row: Row, value: Any, t: int = 0) -> Any:
    if isinstance(value, tuple):
        return tuple(_theirs(row, each, t) for each in value)
    if isinstance(value, Given):
        return _rounded(row, value.value)
    return _rounded(row, value.function(t)) if isinstance(value, Schedule) else value


def _their_settings(row: Row, t: int, params: Mapping[str, Any]) -> dict[str, Any]:
    """What to write into PyTorch's groups before step `t`; a dict is path -> value."""
    settings = {
        name: _their_change(row, name, value_at(when, t), params) for name, when in row.changes.items()
    }
    for name, value in row.arguments.items():
        if _grouped(value) and name not in settings:
            settings[name] = {path: _theirs(row, _chosen(value, path), t) for path in params}
        elif _scheduled(value):
            settings[name] = _theirs(row, value, t)
    return settings


def _their_change(row: Row, name: str, value: Any, params: Mapping[str, Any]) -> Any:
    argument = row.arguments.get(name)
    if isinstance(value, tuple):
        pairs = zip(argument, value, strict=True)
        return tuple(_rounded(row, v) if isinstance(a, Given) else v for a, v in pairs)
    if isinstance(value, dict):
        chosen = By({p: v for p, v in value.items() if p != "default"}, value["default"])
        return {path: _rounded(row, _chosen(chosen, path)) for path in params}
    return _rounded(row, value)


def _scheduled(value: Any) -> bool:
    return isinstance(value, Schedule) or (isinstance(value, tuple) and any(map(_scheduled, value)))


def _rounded(row: Row, value: float) -> float:
    """PyTorch gets the number that our array holds."""
    return float(np.asarray(value, real_dtype(row.dtype)))
