"""Where every array of a training state lives, and putting it there."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxopt_core.parallel.meshes import batch_axes, replicated_sharding
from jaxopt_core.parallel.rules import Strategy, replicate, spec_of
from jaxopt_core.parallel.scope import Part
from jaxopt_core.parallel.sharding import optimizer_shardings
from jaxopt_core.tree import flatten, is_absent

__all__ = [
    "PerDevice",
    "assert_replicas_equal",
    "bytes_per_device",
    "field",
    "parts_of",
    "place",
    "state_shardings",
]


class PerDevice(NamedTuple):
    """Arrays of which every device that shares a batch has its own, along a first axis of that length."""

    value: Any


def state_shardings(state: Any, mesh: Mesh, strategy: Strategy | None = None) -> Any:
    """The shardings of a training state.

    ``state.params`` follows the strategy's rule of parameters, whatever in ``state.opt_state`` is shaped
    like the parameters that of slots, :class:`PerDevice` is divided, and all else is replicated.

    Args:
      state: a pytree, or the ``jax.ShapeDtypeStruct`` of one. To divide anything it must have ``params``
        and ``opt_state``, as attributes or keys.
      mesh: the devices.
      strategy: default :func:`~jaxopt_core.parallel.replicate`.

    Returns:
      A pytree like ``state`` of ``jax.sharding.NamedSharding``: ``out_shardings`` of a jitted
      initialisation, or the target of a checkpoint.

    Raises:
      TypeError: the strategy divides something and the state has no ``params`` and ``opt_state``.

    Example:
      >>> import jax, jax.numpy as jnp, jaxopt_core as jo
      >>> from jaxopt_core.parallel import state_shardings, zero1
      >>> params = {"w": jnp.ones((8, 4))}
      >>> state = {"params": params, "opt_state": jo.adamw().init(params)}
      >>> four = jax.sharding.AbstractMesh((4, 1), ("data", "fsdp"))
      >>> where = state_shardings(state, four, zero1())
      >>> where["params"]["w"].spec, where["opt_state"].slots["exp_avg"]["w"].spec
      (P(), P('data', None))
    """
    strategy = replicate() if strategy is None else strategy
    own = NamedSharding(mesh, PartitionSpec(batch_axes(mesh)))
    whole = replicated_sharding(mesh)

    def everywhere(node: Any) -> Any:
        if isinstance(node, PerDevice):
            return PerDevice(jax.tree.map(lambda _: own, node.value))
        return whole

    placed = jax.tree.map(everywhere, state, is_leaf=_is_per_device)
    if strategy == replicate():
        return placed
    params, opt_state = field(state, "params"), field(state, "opt_state")
    if params is None or opt_state is None:
        raise TypeError(
            f"To divide a state over devices it must have 'params' and 'opt_state', as attributes or keys; "
            f"got {type(state).__name__}."
        )
    leaves = flatten_shapes(params)

    def by_rule(rule: Any) -> Any:
        places = [
            x if is_absent(x) else NamedSharding(mesh, spec_of(rule, path, tuple(x.shape), mesh))
            for path, x in zip(leaves.paths, leaves.values, strict=True)
        ]
        return leaves.unflatten(places)

    like = leaves.unflatten(leaves.values)
    slots = optimizer_shardings(_shapes(opt_state), like, by_rule(strategy.slots))
    slots = jax.tree.map(
        lambda old, new: old if isinstance(old, PerDevice) else new,
        field(placed, "opt_state"),
        slots,
        is_leaf=_is_per_device,
    )
    return _with(placed, params=by_rule(strategy.params), opt_state=slots)


def parts_of(state: Any, mesh: Mesh, strategy: Strategy) -> dict[str, Part]:
    """Path of every parameter -> how it, its gradient and its slots are divided."""
    params = field(state, "params")
    if params is None:
        return {}
    leaves = flatten_shapes(params)
    return {
        path: Part(tuple(x.shape), *[spec_of(rule, path, tuple(x.shape), mesh) for rule in strategy])
        for path, x in zip(leaves.paths, leaves.values, strict=True)
        if not is_absent(x)
    }


def place(tree: Any, shardings: Any) -> Any:
    """Puts arrays, the same on every process, where they belong; what is there already stays.

    Args:
      tree: a pytree of arrays.
      shardings: a pytree like it.
    """

    def put(x: Any, sharding: NamedSharding) -> Any:
        if isinstance(x, jax.Array) and x.sharding == sharding:
            return x
        if sharding.is_fully_addressable or (isinstance(x, jax.Array) and not x.is_fully_addressable):
            return jax.device_put(x, sharding)
        if isinstance(x, jax.Array) and jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = put(jax.random.key_data(x), NamedSharding(sharding.mesh, sharding.spec))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        local = np.asarray(x)
        return jax.make_array_from_callback(local.shape, sharding, lambda index: local[index])

    return jax.tree.map(put, tree, shardings)


def bytes_per_device(tree: Any) -> dict[Any, int]:
    """Bytes that each device of this process holds of a tree of arrays.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxopt_core.parallel import batch_sharding, bytes_per_device, mesh
      >>> many = mesh()
      >>> rows = jax.device_put(jnp.ones((8 * many.size, 2)), batch_sharding(many))
      >>> set(bytes_per_device(rows).values())
      {64}
    """
    held: dict[Any, int] = {}
    for leaf in jax.tree.leaves(tree):
        for part in leaf.addressable_shards:
            held[part.device] = held.get(part.device, 0) + part.data.nbytes
    return held


def assert_replicas_equal(tree: Any) -> None:
    """Raises if devices of this process that should hold the same numbers do not.

    DDP verifies parameters when it is made; this can be called whenever there is doubt. NaN equals NaN.

    Raises:
      AssertionError: with the path of the first array that differs, and the devices.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = leaf
        if jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
            array = jax.random.key_data(array)
        seen: dict[str, Any] = {}
        for part in array.addressable_shards:
            first = seen.setdefault(str(part.index), part)
            if not np.array_equal(first.data, part.data, equal_nan=part.data.dtype.kind in "fc"):
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise AssertionError(f"{name!r} differs between {first.device} and {part.device}.")


def field(state: Any, name: str) -> Any:
    """``state.name`` or ``state[name]``; None if there is neither."""
    if isinstance(state, dict):
        return state.get(name)
    return getattr(state, name, None)


def flatten_shapes(params: Any) -> Any:
    """:func:`~jaxopt_core.tree.flatten` of the shapes of parameters, which may be shapes themselves."""
    box: list[Any] = []

    def note(tree: Any) -> Any:
        box.append(flatten(tree))
        return [x for x in box[0].values if not is_absent(x)]

    shapes = iter(jax.eval_shape(note, _shapes(params)))
    (leaves,) = box
    return leaves._replace(values=[x if is_absent(x) else next(shapes) for x in leaves.values])


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), jax.numpy.result_type(x)), tree)


def _is_per_device(node: Any) -> bool:
    return isinstance(node, PerDevice)


def _with(state: Any, **fields: Any) -> Any:
    if isinstance(state, dict):
        return {**state, **fields}
    if hasattr(state, "_replace"):
        return state._replace(**fields)
    if hasattr(state, "replace"):
        return state.replace(**fields)
    import dataclasses

    return dataclasses.replace(state, **fields)
