"""Reading and setting hyperparameters in the state of an optimizer, however deeply it is nested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_core.hyperparams import Scheduled

__all__ = ["read_hyperparams", "set_hyperparams"]


def _has_hyperparams(node: Any) -> bool:
    return hasattr(node, "_replace") and hasattr(node, "hyperparams")


def _found(opt_state: Any) -> dict[str, Any]:
    nodes, _ = jax.tree_util.tree_flatten_with_path(opt_state, is_leaf=_has_hyperparams)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): node.hyperparams
        for path, node in nodes
        if _has_hyperparams(node)
    }


def read_hyperparams(opt_state: Any) -> dict[str, Any]:
    """Reads the current hyperparameters out of an optimizer state, however deeply it is nested.

    Args:
      opt_state: the state of any optimizer of this package (or of ``optax.inject_hyperparams``),
        alone or inside ``optax.chain``, ``masked``, ``partition``, ``MultiSteps``, ...

    Returns:
      name -> the value used by the last update (before the first: that the first will use), a scalar
      array. Tuples stay tuples, with ``None`` for an element that is fixed. A hyperparameter given by
      :func:`by_path` is a dict pattern -> value. If several optimizers in the state have one of the
      same name, it is a dict place in the state -> value. Fixed numbers other than the learning rate
      are compiled into the program and not in the state.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> float(jo.read_hyperparams(jo.sgd(lr=0.5).init(jnp.ones(3)))["lr"])
      0.5
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Scheduled):
            return value.value
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if jax.tree.leaves(v)}
        if isinstance(value, tuple):
            return tuple(plain(v) for v in value)
        return value if value is None else jax.tree.leaves(value)[0]  # flax.nnx wraps arrays

    found = _found(opt_state)
    names = dict.fromkeys(name for hyperparams in found.values() for name in hyperparams)
    values: dict[str, Any] = {}
    for name in names:
        places = {place: plain(h[name]) for place, h in found.items() if name in h}
        values[name] = places if len(places) > 1 else next(iter(places.values()))
    return values


def set_hyperparams(opt_state: Any, **values: Any) -> Any:
    """Sets hyperparameters in an optimizer state, however deeply it is nested. Never recompiles.

    Args:
      opt_state: as for :func:`read_hyperparams`.
      **values: name -> new value, in the shape in which :func:`read_hyperparams` shows it. A scalar
        given for a dict or for several optimizers goes to all of them, as the loop over
        ``param_groups`` in PyTorch does; a dict need not name every entry; ``None`` leaves one alone.

    Returns:
      A new state of the same structure, shapes, dtypes and shardings.

    Raises:
      ValueError: no optimizer in the state can change that hyperparameter, or it follows a schedule.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> state = jo.set_hyperparams(jo.sgd(lr=0.5).init(jnp.ones(3)), lr=0.1)
      >>> round(float(jo.read_hyperparams(state)["lr"]), 6)
      0.1
    """
    found = _found(opt_state)
    for name, value in values.items():
        holders = {place: h for place, h in found.items() if name in h}
        if not holders:
            names = sorted({n for h in found.values() for n in h})
            raise ValueError(
                f"No optimizer in this state can change {name!r}; what can change is: "
                f"{', '.join(names) or 'nothing'}. A number given to a constructor is compiled into the "
                f"program: give {name}=jnp.asarray(...) there to change it during the run."
            )
        by_place = len(holders) > 1 and isinstance(value, Mapping) and set(value) <= set(holders)
        for place, hyperparams in holders.items():
            new = value.get(place) if by_place else value
            found[place] = {**found[place], name: _replaced(name, hyperparams[name], new)}

    def rebuilt(path: Any, node: Any) -> Any:
        if not _has_hyperparams(node):
            return node
        return node._replace(hyperparams=found[jax.tree_util.keystr(path, simple=True, separator="/")])

    return jax.tree_util.tree_map_with_path(rebuilt, opt_state, is_leaf=_has_hyperparams)


def _replaced(name: str, old: Any, new: Any) -> Any:
    if new is None:
        return old
    if isinstance(old, Scheduled):
        raise ValueError(
            f"{name} follows a schedule, which would overwrite {new!r} at the next update. "
            f"Construct the optimizer with a number or an array to set {name} by hand."
        )
    if isinstance(old, dict):
        if not isinstance(new, Mapping):
            new = dict.fromkeys((key for key in old if jax.tree.leaves(old[key])), new)
        if unknown := [key for key in new if key not in old]:
            raise ValueError(f"{name} has no entry {unknown[0]!r}; it has: {', '.join(old)}.")
        return {key: _replaced(f"{name}[{key!r}]", old[key], new.get(key)) for key in old}
    if isinstance(old, tuple):
        if not isinstance(new, tuple | list) or len(new) != len(old):
            raise ValueError(f"{name} has {len(old)} elements; got {new!r}.")
        pairs = enumerate(zip(old, new, strict=True))
        return tuple(_replaced(f"{name}[{i}]", o, n) for i, (o, n) in pairs)
    if old is None:
        raise ValueError(
            f"{name} is a fixed number, compiled into the program; leave it None here, or construct the "
            f"optimizer with jnp.asarray(...) in its place to change it during the run."
        )
    return jax.tree.map(lambda leaf: _in_place_of(name, leaf, new), old)


def _in_place_of(name: str, old: jax.Array, new: Any) -> jax.Array:
    """An array that jit takes for the old one, and that shares its buffer with none of the user's."""
    if not isinstance(new, int | float | np.number | np.ndarray | jax.Array):
        raise TypeError(f"{name} must be a real number; got {new!r}.")
    if jnp.iscomplexobj(new):
        raise TypeError(f"{name} must be a real number; got {new!r}.")
    if np.ndim(new) != 0 and np.shape(new) != old.shape:
        raise ValueError(f"{name} must be a scalar; got an array of shape {np.shape(new)}.")
    value = jnp.broadcast_to(jnp.array(new, old.dtype, copy=True), old.shape)
    is_free = isinstance(old, jax.core.Tracer) or not old.committed
    return value if is_free else jax.device_put(value, old.sharding)
