"""Where the state of an optimizer lives, given where the parameters live."""

from __future__ import annotations

from typing import Any

import jax
import optax
from jax.sharding import NamedSharding, PartitionSpec

__all__ = ["optimizer_shardings"]


def optimizer_shardings(opt_state: Any, params: Any, shardings: Any) -> Any:
    """The shardings of an optimizer's state: a slot shards as its parameter, all else is replicated.

    ``tx.init(params)`` on sharded parameters already puts each slot where its parameter is. This is for
    what must be told beforehand: ``out_shardings`` of a jitted ``init`` or step, and the target of a
    checkpoint that is restored on other devices. Slots sharded over more devices than their parameters
    (ZeRO-1) are had by passing the finer shardings here.

    Args:
      opt_state: the state, or ``jax.eval_shape(tx.init, params)``; any nesting of Optax's states.
      params: the parameters, or their ``jax.ShapeDtypeStruct``.
      shardings: a pytree like ``params`` of ``jax.sharding.NamedSharding``.

    Returns:
      A pytree like ``opt_state`` of shardings. A slot that has an axis of length 1 where its parameter is
      longer (Adafactor's row and column averages) is not sharded along that axis.

    Raises:
      ValueError: ``shardings`` does not have the tree of ``params``, or is empty.

    Example:
      >>> import jax, jax.numpy as jnp, numpy as np, jaxopt_core as jo
      >>> from jaxopt_core.parallel import optimizer_shardings
      >>> mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
      >>> rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
      >>> tx, params = jo.adamw(), {"w": jnp.ones((8 * mesh.size, 4))}
      >>> where = optimizer_shardings(jax.eval_shape(tx.init, params), params, {"w": rows})
      >>> where.slots["exp_avg"]["w"].is_equivalent_to(rows, ndim=2)
      True
      >>> where.count.is_fully_replicated
      True
    """
    treedef: Any
    leaves, treedef = jax.tree.flatten(params, is_leaf=_is_absent)
    places, shardings_treedef = jax.tree.flatten(shardings, is_leaf=_is_absent)
    if shardings_treedef != treedef:
        raise ValueError(
            f"Expected shardings with the tree of the parameters, {treedef}; got {shardings_treedef}."
        )
    meshes = [place.mesh for place in places if not _is_absent(place)]
    if not meshes:
        raise ValueError("There is no parameter to take a mesh from: the shardings are empty.")
    replicated = NamedSharding(meshes[0], PartitionSpec())

    def is_like_params(node: Any) -> bool:
        structure: Any = jax.tree.structure(node, is_leaf=_is_absent)
        return bool(structure == treedef)

    def place(node: Any) -> Any:
        if not is_like_params(node):
            return replicated
        slots = jax.tree.leaves(node, is_leaf=_is_absent)
        placed = [
            slot if _is_absent(slot) else _follow(slot, leaf, where, replicated)
            for slot, leaf, where in zip(slots, leaves, places, strict=True)
        ]
        return jax.tree.unflatten(treedef, placed)

    return jax.tree.map(place, opt_state, is_leaf=is_like_params)


def _follow(slot: Any, param: Any, place: NamedSharding, replicated: NamedSharding) -> NamedSharding:
    if _is_absent(param) or len(slot.shape) != len(param.shape):
        return replicated
    spec = (*place.spec, *[None] * (len(param.shape) - len(place.spec)))
    sizes = zip(slot.shape, param.shape, spec, strict=True)
    return NamedSharding(place.mesh, PartitionSpec(*[axis if n == m else None for n, m, axis in sizes]))


def _is_absent(node: Any) -> bool:
    return node is None or isinstance(node, optax.MaskedNode)
