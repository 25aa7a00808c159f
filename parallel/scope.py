"""What a step knows, while it is traced, of the devices that it will run on.

One step function serves the global view, ``shard_map`` and ``pmap``, because the few functions in it that
communicate look here first: in the global view they do nothing, since there the compiler communicates.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from jaxopt_core.groups import ByPath

__all__ = [
    "Part",
    "Scope",
    "all_reduce",
    "current",
    "device_key",
    "divided",
    "entered",
    "example_keys",
    "micro_batch",
    "shards",
    "total",
]


class Part(NamedTuple):
    """A parameter: its whole shape, and how it, its gradient and its slots are divided."""

    shape: tuple[int, ...]
    params: PartitionSpec
    grads: PartitionSpec
    slots: PartitionSpec


@dataclasses.dataclass
class Scope:
    """Where a step is being traced.

    Attributes:
      mesh: the devices.
      axes: the axes over which the batch is divided.
      size: number of parts of the batch.
      explicit: whether the step sees one device's part and communicates itself.
      parts: path of a parameter -> how it is divided.
      synchronized: whether gradients have been averaged.
    """

    mesh: Mesh
    axes: tuple[str, ...]
    size: int
    explicit: bool
    parts: dict[str, Part]
    synchronized: bool = False


_scope: ContextVar[Scope | None] = ContextVar("scope", default=None)
_divided: ContextVar[dict[str, tuple[str, ...]]] = ContextVar("divided", default={})  # noqa: B039 - never changed
_micro: ContextVar[tuple[Any, int]] = ContextVar("micro_batch", default=(0, 1))


def current() -> Scope | None:
    """The scope of the step that is being traced; None outside of this package's steps."""
    return _scope.get()


@contextlib.contextmanager
def entered(scope: Scope) -> Iterator[Scope]:
    """Traces a step in a scope."""
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(token)


@contextlib.contextmanager
def divided(axes: dict[str, tuple[str, ...]]) -> Iterator[None]:
    """Traces an optimizer that sees parts of these gradients; what is not named is whole."""
    token = _divided.set(axes)
    try:
        yield
    finally:
        _divided.reset(token)


@contextlib.contextmanager
def micro_batch(index: Any, count: int) -> Iterator[None]:
    """Traces micro-batch ``index`` of ``count``: rows ``index``, ``index + count``, ... of a part."""
    token = _micro.set((index, count))
    try:
        yield
    finally:
        _micro.reset(token)


def all_reduce(tree: Any) -> Any:
    """The mean over the devices that share a batch: ``all_reduce(..., AVG)`` of PyTorch.

    Where a step communicates itself this is one collective; in the global view, and outside of
    ``data_parallel``, values are those of the whole batch already, and it does nothing.
    """
    scope = current()
    return jax.lax.pmean(tree, scope.axes) if scope is not None and scope.explicit else tree


def total(tree: Any) -> Any:
    """The sum over the devices that share a batch, of what was summed over a part: counts, for example.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxopt_core.parallel import data_parallel, data_parallel_shard_map, mesh, total
      >>> def step(state, batch):
      ...     return state, {"positive": total(jnp.sum(batch["x"] > 0)).astype(jnp.float32)}
      >>> for way in (data_parallel, data_parallel_shard_map):
      ...     print(way(step, mesh(), trains=False)({}, {"x": jnp.arange(16.0)})[1]["positive"])
      15.0
      15.0
    """
    scope = current()
    return jax.lax.psum(tree, scope.axes) if scope is not None and scope.explicit else tree


def example_keys(key: jax.Array, rows: int) -> jax.Array:
    """One random key for every row of the batch, the same however the batch is divided.

    ``jax.vmap(model)(inputs, example_keys(rng, rows))`` drops the same elements on 1 and on 8 devices, in
    one batch and in micro-batches, because a row's key depends on its place in the whole batch only.

    Args:
      key: a key, the same on all devices.
      rows: rows of the batch that the loss sees, ``len(batch["x"])``.

    Returns:
      Keys ``(rows,)``.
    """
    scope, (index, count) = current(), _micro.get()
    first = jax.lax.axis_index(scope.axes) * rows * count if scope is not None and scope.explicit else 0
    places = first + jnp.arange(rows, dtype=jnp.int32) * count + index
    return jax.vmap(lambda place: jax.random.fold_in(key, place))(places)


def device_key(key: jax.Array) -> jax.Array:
    """A key of this device's own (and this micro-batch's), as every rank of PyTorch has its own generator.

    For a model that draws for the whole batch at once where a step communicates itself: without it every
    device would drop the same elements. In the global view there is one batch, and one key.
    """
    scope, (index, count) = current(), _micro.get()
    key = jax.random.fold_in(key, index) if count > 1 else key
    if scope is None or not scope.explicit:
        return key
    return jax.random.fold_in(key, jax.lax.axis_index(scope.axes))


@dataclasses.dataclass(frozen=True)
class _Shards(ByPath):
    """The mesh axes over which the gradient at a path is divided where the optimizer is traced."""

    patterns: tuple[tuple[str, Any], ...] = ()
    default: Any = None
    _asked: list[int] = dataclasses.field(default_factory=lambda: [0], compare=False, repr=False)

    @property
    def uses(self) -> int:
        """How often it was asked for a path; tells whether a norm has used it."""
        return self._asked[0]

    def choices(self) -> Any:
        return _divided.get() | {"whole": ()}

    def match(self, path: str) -> str:
        self._asked[0] += 1
        return path if path in _divided.get() else "whole"


shards = _Shards()
"""``axis_name=shards`` for norms inside of :func:`~jaxopt_core.parallel.synchronized`: the right one for
every parameter in every strategy, and none where gradients are whole."""
