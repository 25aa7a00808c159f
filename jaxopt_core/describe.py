"""What an optimizer will do to which parameter, as a table to read before the run."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
import optax

from jaxopt_core.groups import ByPath
from jaxopt_core.hyperparams import Hyperparams
from jaxopt_core.tree import Leaves, flatten

__all__ = ["Description", "Group", "describe", "listening", "note"]

_notes: ContextVar[list[tuple[str, Hyperparams, Leaves]] | None] = ContextVar("describe", default=None)


def note(optimizer: str, hyperparams: Hyperparams, leaves: Leaves) -> None:
    """Called by the ``init`` of every optimizer; only :func:`describe` listens."""
    if (notes := _notes.get()) is not None:
        notes.append((optimizer, hyperparams, leaves))


@contextlib.contextmanager
def listening() -> Iterator[list[tuple[str, Hyperparams, Leaves]]]:
    """Collects what the optimizers note whose ``init`` runs inside."""
    notes: list[tuple[str, Hyperparams, Leaves]] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


@dataclasses.dataclass(frozen=True)
class Group:
    """Parameters that one optimizer treats alike.

    Attributes:
      optimizer: PyTorch's name of it; ``None`` for parameters that no optimizer of this package updates.
      values: argument -> its value in words.
      shapes: path -> shape of each parameter.
    """

    optimizer: str | None
    values: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def size(self) -> int:
        """Number of elements."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values())


@dataclasses.dataclass(frozen=True)
class Description:
    """The groups of an optimizer; printed, a table of them."""

    groups: tuple[Group, ...]

    def __str__(self) -> str:
        optimizers = dict.fromkeys(group.optimizer for group in self.groups)
        return "\n\n".join(
            _section(name, [g for g in self.groups if g.optimizer == name]) for name in optimizers
        )

    __repr__ = __str__


def describe(tx: optax.GradientTransformation, params: optax.Params) -> Description:
    """Says which parameter gets which values from an optimizer, before anything runs.

    Parameters with the same optimizer and the same values form a group, as in PyTorch's ``param_groups``.
    What no optimizer of this package updates (frozen, or Optax's own business) is listed last. Nothing is
    computed and no state is allocated.

    Args:
      tx: an optimizer of this package, alone or inside ``optax.chain``, ``masked``, ``partition``, ...
      params: a pytree of parameters, or of ``jax.ShapeDtypeStruct``.

    Returns:
      A :class:`Description`: print it, or look into its ``groups``.

    Raises:
      ValueError: as ``tx.init(params)``, for example because a :func:`by_path` pattern matches nothing.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> tx = jo.sgd(lr=0.1, weight_decay=jo.by_path({"bias$": 0.0}, default=0.01))
      >>> print(jo.describe(tx, {"dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}))
      SGD: lr=0.1, momentum=0, dampening=0, nesterov=False, maximize=False
        weight_decay  tensors  elements  parameters
                   0        1         3  dense/bias
                0.01        1         6  dense/kernel
    """
    with listening() as notes:
        jax.eval_shape(tx.init, params)
    groups: dict[Any, Group] = {}
    updated = set()
    for place, (optimizer, hyperparams, leaves) in enumerate(notes):
        for path, leaf in leaves.present():
            updated.add(path)
            values = {name: _in_words(value, path) for name, value in hyperparams.arguments.items()}
            _add(groups, (place, *values.values()), Group(optimizer, values, {path: leaf.shape}))
    for path, leaf in jax.eval_shape(_present, params).items():
        if path not in updated:
            _add(groups, None, Group(None, {}, {path: leaf.shape}))
    # An optimizer's groups together, what nothing updates last.
    ordered = sorted(groups.items(), key=lambda item: (item[0] is None, item[0] and item[0][0]))
    return Description(tuple(group for _, group in ordered))


def _present(params: Any) -> dict[str, jax.Array]:
    return dict(flatten(params).present())


def _add(groups: dict[Any, Group], key: Any, group: Group) -> None:
    if key in groups:
        group = dataclasses.replace(group, shapes={**groups[key].shapes, **group.shapes})
    groups[key] = group


def _in_words(value: Any, path: str) -> str:
    if isinstance(value, ByPath):
        return _in_words(value.choices()[value.match(path)], path)
    if callable(value):
        return getattr(value, "__name__", type(value).__name__).strip("<>")
    if isinstance(value, tuple):
        return f"({', '.join(_in_words(each, path) for each in value)})"
    if isinstance(value, jax.core.Tracer):
        return "traced"
    if isinstance(value, jax.Array | np.ndarray | float):
        return f"{float(value):.7g}"
    return repr(value)


def _section(optimizer: str | None, groups: list[Group]) -> str:
    if optimizer is None:
        title, varying = "Not updated by any optimizer of jaxopt_core", []
    else:
        names = list(groups[0].values)
        varying = [name for name in names if len({group.values.get(name) for group in groups}) > 1]
        shared = (f"{name}={groups[0].values[name]}" for name in names if name not in varying)
        title = f"{optimizer}: {', '.join(shared)}"
    rows = [[*varying, "tensors", "elements", "parameters"]]
    for group in groups:
        values = [group.values.get(name, "") for name in varying]
        rows.append([*values, str(len(group.shapes)), f"{group.size:,}", _some(list(group.shapes))])
    *widths, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = (
        "  ".join(["", *(cell.rjust(w) for cell, w in zip(row[:-1], widths, strict=True)), row[-1]])
        for row in rows
    )
    return "\n".join([title, *lines])


def _some(paths: list[str]) -> str:
    shown = ", ".join(paths[:3])
    return shown if len(paths) <= 3 else f"{shown}, ... {paths[-1]}"
