"""Runs a row with this package."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import sparse

import jaxopt_core as jo
from tests import oracle
from tests.compiling import AS_USERS
from tests.equivalence import trees
from tests.equivalence.rows import By, Given, Row, Schedule, real_dtype, value_at

__all__ = ["Record", "run_ours"]

# "params" or slot name -> path -> value per step, as `measure.series` gives it; and "count".
Record = dict[str, dict[str, list[Any]]]


def run_ours(row: Row, params: Mapping[str, np.ndarray], grads: Any) -> Record:
    tx = getattr(jo, row.optimizer)(**our_arguments(row))
    if row.bucketed:
        tx = jo.bucketed(tx)
    axes = row.axes or {}
    state_params = _tree({p: _untransposed(v, axes.get(p)) for p, v in params.items()})
    state = tx.init(state_params)
    settings = [_our_settings(row, t) for t in range(row.steps)]
    # Rounding is compared with PyTorch's, and Muon makes small singular values large, those of rounding too.
    options = AS_USERS if row.dtype != "float64" or row.optimizer == "muon" else None
    history = _stepwise(tx, state_params, state, params, grads, settings, axes, options)
    if row.bucketed:  # its slots are not trees like the parameters
        history = [(params, {}, *rest) for params, _, *rest in history]
    return _record(history, axes)


def _stepwise(
    tx: Any,
    params: Any,
    state: Any,
    flat: Mapping,
    grads: Any,
    settings: Sequence,
    axes: Mapping,
    options: Mapping | None,
) -> list:
    update = jax.jit(functools.partial(_update, tx), compiler_options=options)
    shapes = {path: leaf.shape for path, leaf in flat.items()}
    history: list[Any] = []
    for t, setting in enumerate(settings):
        current = grads(t, flat) if callable(grads) else grads[t]
        params, state = update(params, state, _our_grads(current, shapes, axes), setting)
        flat = {path: _transposed(np.asarray(leaf), axes.get(path)) for path, leaf in _flat(params).items()}
        kept = (params, state.slots, state.count, jo.read_hyperparams(state))
        history.append(jax.tree.map(np.asarray, kept))
    _check_settings(settings, [step[3] for step in history])
    return history


def _update(tx: Any, params: Any, state: Any, grads: Any, setting: Mapping[str, Any]) -> tuple[Any, Any]:
    if setting:
        state = jo.set_hyperparams(state, **setting)
    updates, state = tx.update(grads, state, params)
    return jo.apply_updates(params, updates), state


def our_arguments(row: Row) -> dict[str, Any]:
    def ours(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(ours, value))
        if isinstance(value, By):
            return jo.by_path({p: ours(v) for p, v in value.patterns.items()}, default=ours(value.default))
        if isinstance(value, Given):
            return jnp.asarray(value.value, real_dtype(row.dtype))
        if isinstance(value, Schedule):
            table = np.asarray([value.function(t) for t in range(row.steps)], real_dtype(row.dtype))
            return lambda count: jnp.asarray(table)[count]
        return value

    arguments = {name: ours(value) for name, value in row.arguments.items()}
    if row.axes:
        patterns = {f"^{re.escape(path)}$": axes for path, axes in row.axes.items()}
        arguments["axes"] = jo.by_path(patterns, default=None)
    return arguments


def _our_settings(row: Row, t: int) -> dict[str, Any]:
    """What to give to `set_hyperparams` before step `t`; a tuple's fixed elements are ``None``."""

    def ours(argument: Any, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(
                ours(a, v) if isinstance(a, Given) else None for a, v in zip(argument, value, strict=True)
            )
        if isinstance(value, dict):
            return {pattern: np.asarray(v, real_dtype(row.dtype)) for pattern, v in value.items()}
        return np.asarray(value, real_dtype(row.dtype))

    return {name: ours(row.arguments.get(name), value_at(when, t)) for name, when in row.changes.items()}


def _our_grads(step: Mapping[str, Any], shapes: Mapping[str, Any], axes: Mapping[str, Any]) -> Any:
    def ours(path: str, grad: Any) -> Any:
        if grad is None:
            # Both spellings of "no gradient"; optax.masked uses the second.
            return optax.MaskedNode() if path.endswith("kernel") else None
        if isinstance(grad, oracle.Rows):
            return sparse.BCOO(
                (jnp.asarray(grad.values), jnp.asarray(grad.indices)[:, None]), shape=shapes[path]
            )
        grad = _untransposed(grad, axes.get(path))
        return np.conj(grad) if np.iscomplexobj(grad) else grad

    return trees.nested({path: ours(path, grad) for path, grad in step.items()})


def _record(history: Sequence[Any], axes: Mapping[str, tuple[int, ...]]) -> Record:
    """Turns our history around, in PyTorch's layout."""
    record: Record = {"params": {}}
    for t, (params, slots, _, _) in enumerate(history):
        for name, tree in {"params": params, **slots}.items():
            for path, leaf in _flat(tree).items():
                series = record.setdefault(name, {}).setdefault(path, [None] * len(history))
                series[t] = _transposed(leaf, axes.get(path)) if np.ndim(leaf) > 1 else leaf
    record["count"] = {"": [count for _, _, count, _ in history]}
    return record


def _check_settings(settings: Sequence[Mapping], read: Sequence[Mapping]) -> None:
    for t, setting in enumerate(settings):
        for name, value in setting.items():
            jax.tree.map(np.testing.assert_array_equal, read[t][name], value, is_leaf=lambda x: x is None)


def _tree(flat: Mapping[str, Any]) -> Any:
    return jax.tree.map(jnp.asarray, trees.nested(flat))


def _flat(tree: Any) -> dict[str, Any]:
    pairs, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in pairs}


def _transposed(leaf: Any, axes: tuple[int, ...] | None) -> Any:
    return leaf if axes is None else np.transpose(leaf, axes)


def _untransposed(leaf: Any, axes: tuple[int, ...] | None) -> Any:
    return leaf if axes is None else np.transpose(leaf, np.argsort(axes))
