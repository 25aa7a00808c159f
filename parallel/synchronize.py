"""One optimizer for every strategy: gradients are averaged, divided, used and put together again."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax import lax
from jax.experimental import sparse
from jax.sharding import NamedSharding, PartitionSpec

from jaxopt_core.describe import listening
from jaxopt_core.gradients import ClipNormState, SkipNonfiniteState
from jaxopt_core.gradients.advance import count_as
from jaxopt_core.parallel.hooks import Hook
from jaxopt_core.parallel.parts import division, gathered_leaf, part_shape, sliced_leaf
from jaxopt_core.parallel.scope import Part, Scope, current, divided, shards
from jaxopt_core.precision import LossScaledState
from jaxopt_core.tree import Leaves, flatten, is_absent

__all__ = ["SynchronizedState", "synchronized"]

# Their update of an element depends on other elements of the same parameter.
_WHOLE = ("Adafactor", "Muon", "LBFGS", "SparseAdam")


class SynchronizedState(NamedTuple):
    """The state of :func:`synchronized`: what the hook remembers, and the optimizer's state."""

    hook_state: Any
    inner_state: Any


def synchronized(
    tx: optax.GradientTransformation, hook: Hook | None = None
) -> optax.GradientTransformationExtraArgs:
    """An optimizer that averages the gradients of all devices first, as DistributedDataParallel does.

    Put it around everything that must see the gradients of the whole batch: clipping, loss scaling (so that
    all devices skip a step together), accumulation apart. In the global view, and outside of
    ``data_parallel``, gradients are averages already, and this only places them as the strategy says. Where
    a step communicates itself, it is

    ============  =================  ==========================  ====================
    strategy      gradients          optimizer                   afterwards
    ============  =================  ==========================  ====================
    replicate     all-reduce         on whole parameters         nothing
    zero1, zero2  reduce-scatter     on this device's part       all-gather of updates
    fsdp          reduce-scatter     on this device's part       nothing
    ============  =================  ==========================  ====================

    for every parameter that can be divided; the others are all-reduced and updated whole. Adafactor, Muon,
    LBFGS and SparseAdam mix the elements of a parameter, so theirs are all-reduced, their slots are
    all-gathered for the step, and only this device's part of them is kept.

    Args:
      tx: the optimizer, or a chain. Norms in it (``clip_grad_norm``, ``with_loss_scale``,
        ``skip_nonfinite``) need ``axis_name=jaxopt_core.parallel.shards`` if the strategy divides slots.
        The extra arguments ``value`` and ``value_and_grad_fn`` (schedules that follow the loss, LBFGS) are
        averaged like the gradients.
      hook: how gradients travel; such as ``fp16_compress``. Default: as they are.

    Returns:
      A transformation with a :class:`SynchronizedState`.

    Raises:
      ValueError: when traced: a hook in the global view, where there is nothing to compress, or with
        divided slots; a norm without ``shards``.

    Example:
      >>> import jax, jax.numpy as jnp, jaxopt_core as jo
      >>> from jaxopt_core.parallel import data_parallel_shard_map, mesh, synchronized
      >>> tx = synchronized(jo.sgd(lr=1.0))
      >>> def step(state, batch):
      ...     grads = jax.grad(lambda w: jnp.mean(w * batch["x"]))(state["params"])
      ...     updates, opt_state = tx.update(grads, state["opt_state"], state["params"])
      ...     return {"params": jo.apply_updates(state["params"], updates), "opt_state": opt_state}, {}
      >>> params = jnp.zeros(())
      >>> state = {"params": params, "opt_state": tx.init(params)}
      >>> state, _ = data_parallel_shard_map(step, mesh())(state, {"x": jnp.arange(8.0)})
      >>> print(state["params"])
      -3.5
    """
    inner = optax.with_extra_args_support(tx)

    def init(params: optax.Params) -> SynchronizedState:
        return SynchronizedState(() if hook is None else hook.init(params), inner.init(params))

    def update(
        grads: optax.Updates, state: SynchronizedState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, SynchronizedState]:
        scope = current()
        if scope is not None:
            scope.synchronized = True
        if scope is None or not scope.explicit:
            if hook is not None and scope is not None:
                raise ValueError(
                    "A communication hook needs a step that communicates itself: use "
                    "data_parallel_shard_map. In the global view the compiler averages the gradients "
                    "before they can be compressed."
                )
            updates, inner_state = inner.update(
                _constrained(scope, grads), state.inner_state, params, **extra
            )
            return updates, SynchronizedState(state.hook_state, inner_state)
        if params is None:
            raise ValueError("synchronized needs the parameters: call tx.update(grads, state, params).")
        extra = _of_all_devices(scope, extra)
        if not any(division(part.slots) for part in scope.parts.values()):
            reduced, hook_state = _all_reduced(scope, grads, state.hook_state, hook)
            updates, inner_state = inner.update(reduced, state.inner_state, params, **extra)
            return updates, SynchronizedState(hook_state, inner_state)
        if hook is not None:
            raise ValueError("A communication hook works with whole slots: choose the strategy replicate().")
        updates, inner_state = _on_parts(scope, inner, grads, state.inner_state, params, extra)
        return updates, SynchronizedState(state.hook_state, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _of_all_devices(scope: Scope, extra: dict[str, Any]) -> dict[str, Any]:
    """What schedules and LBFGS are told of the loss: its mean, or each device would follow its own."""
    extra = dict(extra)
    if extra.get("value") is not None:
        extra["value"] = lax.pmean(extra["value"], scope.axes)
    if (fn := extra.get("value_and_grad_fn")) is not None:
        extra["value_and_grad_fn"] = lambda params: lax.pmean(fn(params), scope.axes)
    return extra


def _constrained(scope: Scope | None, grads: Any) -> Any:
    if scope is None or not any(division(part.grads) for part in scope.parts.values()):
        return grads
    leaves = flatten(grads)
    placed = [
        g
        if is_absent(g) or isinstance(g, sparse.BCOO)
        else lax.with_sharding_constraint(g, NamedSharding(scope.mesh, scope.parts[path].grads))
        for path, g in zip(leaves.paths, leaves.values, strict=True)
    ]
    return leaves.unflatten(placed)


def _all_reduced(scope: Scope, grads: Any, hook_state: Any, hook: Hook | None) -> tuple[Any, Any]:
    leaves = flatten(grads)
    dense = [i for i, g in enumerate(leaves.values) if not is_absent(g) and not isinstance(g, sparse.BCOO)]
    local = {leaves.paths[i]: leaves.values[i] for i in dense}
    if hook is None:
        mean, state = lax.pmean(local, scope.axes), hook_state
    else:
        mean, state = hook.reduce(local, hook_state, scope.axes)
    values = [
        _gathered_rows(scope, g) if isinstance(g, sparse.BCOO) else mean.get(path, g)
        for path, g in zip(leaves.paths, leaves.values, strict=True)
    ]
    return leaves.unflatten(values), state


def _gathered_rows(scope: Scope, grad: sparse.BCOO) -> sparse.BCOO:
    """The mean of sparse gradients: the rows of all of them, each divided by their number."""
    data, indices = (lax.all_gather(x, scope.axes, tiled=True) for x in (grad.data, grad.indices))
    return sparse.BCOO((data / np.asarray(scope.size, data.dtype), indices), shape=grad.shape)


def _on_parts(
    scope: Scope, inner: Any, grads: Any, state: Any, params: Any, extra: dict[str, Any]
) -> tuple[Any, Any]:
    """The step on this device's parts of the parameters."""
    leaves = flatten(params)
    gradients = leaves.match(grads)
    whole_tree = leaves.unflatten(
        [
            p if is_absent(p) else jax.ShapeDtypeStruct(scope.parts[path].shape, p.dtype)
            for path, p in zip(leaves.paths, leaves.values, strict=True)
        ]
    )
    with listening() as notes:
        whole_state = _counted(inner, state, whole_tree)
    mixing = {path for name, _, noted in notes if name in _WHOLE for path, _ in noted.present()}
    cut = {
        path: part
        for path, part in scope.parts.items()
        if path not in mixing and division(part.slots) is not None
    }
    mine_grads, mine_params = [], []
    for path, p, g in zip(leaves.paths, leaves.values, gradients, strict=True):
        part = scope.parts.get(path)
        mine_grads.append(g if is_absent(g) or part is None else _mean_part(scope, g, part, path in cut))
        mine_params.append(p if is_absent(p) or part is None else _my_part(p, part, path in cut))
    gathered = _slots(scope, leaves, state, whole_state, mixing, gathered_leaf)
    before = shards.uses
    with divided({path: division(part.slots)[1] for path, part in cut.items()}):  # type: ignore[index]
        updates, new_state = inner.update(
            leaves.unflatten(mine_grads), gathered, leaves.unflatten(mine_params), **extra
        )
    if shards.uses == before and _has_norm(state):
        raise ValueError(
            "A norm in the optimizer sees one device's part of the gradients: give clip_grad_norm, "
            "with_loss_scale and skip_nonfinite axis_name=jaxopt_core.parallel.shards."
        )
    whole_state = _counted(inner, new_state, whole_tree)
    kept = _slots(scope, leaves, new_state, whole_state, mixing, sliced_leaf)
    changes = leaves.treedef.flatten_up_to(updates)
    changes = [
        u if is_absent(u) or path not in scope.parts else _as_parameter(scope, u, scope.parts[path])
        for path, u in zip(leaves.paths, changes, strict=True)
    ]
    return leaves.unflatten(changes), kept


def _counted(inner: Any, state: Any, whole_tree: Any) -> Any:
    """The shapes of the whole state, with a step count for every parameter if ``state`` has that."""
    return jax.eval_shape(lambda params: count_as(state, inner.init(params)), whole_tree)


def _mean_part(scope: Scope, grad: Any, part: Part, is_cut: bool) -> Any:
    if isinstance(grad, sparse.BCOO):
        return _gathered_rows(scope, grad)
    size = np.asarray(scope.size, grad.dtype)
    spec = division(part.slots) if grad.shape == part.shape else division(part.grads)
    if grad.shape != part.shape:  # scattered already, as a sum: the transpose of an all-gather
        assert spec is not None
        rest = tuple(axis for axis in scope.axes if axis not in spec[1])
        mine = (lax.psum(grad, rest) if rest else grad) / size
        return mine if is_cut else gathered_leaf(mine, part.grads)
    if not is_cut or spec is None:
        return lax.pmean(grad, scope.axes)
    dimension, axes = spec
    rest = tuple(axis for axis in scope.axes if axis not in axes)
    mine = lax.psum_scatter(grad, axes, scatter_dimension=dimension, tiled=True)
    return (lax.psum(mine, rest) if rest else mine) / size


def _my_part(param: jax.Array, part: Part, is_cut: bool) -> jax.Array:
    is_whole = param.shape == part.shape
    if is_cut:
        return sliced_leaf(param, part.slots) if is_whole else param
    return param if is_whole else gathered_leaf(param, part.params)


def _as_parameter(scope: Scope, update: Any, part: Part) -> Any:
    """An update in the shape in which this device holds the parameter."""
    if isinstance(update, sparse.BCOO):
        if division(part.params) is None:
            return update
        update = update.todense()
    wanted = part_shape(part.shape, part.params, scope.mesh)
    if update.shape == wanted:
        return update
    return (
        sliced_leaf(update, part.params) if update.shape == part.shape else gathered_leaf(update, part.slots)
    )


def _slots(scope: Scope, leaves: Leaves, state: Any, whole: Any, mixing: set[str], convert: Any) -> Any:
    """The state with the slots of parameters that are updated whole put together, or taken apart."""

    def is_like_params(node: Any) -> bool:
        structure: Any = jax.tree.structure(node, is_leaf=is_absent)
        return bool(structure == leaves.treedef)

    def each(like: Any, node: Any) -> Any:
        if not is_like_params(like):
            return node
        slots = jax.tree.leaves(node, is_leaf=is_absent)
        wholes = jax.tree.leaves(like, is_leaf=is_absent)
        converted = [
            convert(slot, _slot_spec(scope.parts[path], w.shape))
            if path in mixing and not is_absent(slot)
            else slot
            for path, slot, w in zip(leaves.paths, slots, wholes, strict=True)
        ]
        return leaves.unflatten(converted)

    return jax.tree.map(each, whole, state, is_leaf=is_like_params)


def _slot_spec(part: Part, shape: tuple[int, ...]) -> PartitionSpec:
    """How a slot is divided: as its parameter, but not along an axis that it has averaged away."""
    if len(shape) != len(part.shape):
        return PartitionSpec()
    spec = (*part.slots, *[None] * (len(shape) - len(part.slots)))
    return PartitionSpec(*[a if n == m else None for a, n, m in zip(spec, shape, part.shape, strict=True)])


def _has_norm(state: Any) -> bool:
    kinds = (ClipNormState, LossScaledState, SkipNonfiniteState)
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kinds))
    return any(isinstance(node, kinds) for node in nodes)
