"""The engine: a rule for ONE parameter becomes a gradient transformation over a pytree.

An optimizer file holds the mathematics of one parameter and nothing else:

    init(param, h)                        -> slots, a dict from PyTorch's slot name to an array
    update(grad, param, slots, h, step)   -> (update, slots)

:func:`leafwise` does everything that is the same for all of them: the tree, what is absent in it, the
step count, the values of the hyperparameters, ``maximize``, weight decay in PyTorch's order, complex
parameters, low precision, sparse gradients, and the errors.

A rule sees real arrays of ``h.compute_dtype`` only: float32 for half-precision parameters, whose state
is rounded to the parameter's dtype at the end (as PyTorch's fused kernels do), and pairs of reals, in a
new last axis, for complex ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import sparse

from jaxopt_core.hyperparams import Hyperparams, Values, is_zero

__all__ = [
    "Leafwise",
    "OptimizerState",
    "Rule",
    "apply_updates",
    "count_per_parameter",
    "filled_like",
    "leafwise",
]

Slots = dict[str, Any]


class OptimizerState(NamedTuple):
    """The state of every per-parameter optimizer.

    Attributes:
      count: int32 scalar, updates made so far; it drives the schedules and stops at its largest value.
      hyperparams: name -> current value of what can change; see ``read_hyperparams``.
      slots: PyTorch's slot name -> a pytree shaped like the parameters, ``None`` where a parameter has
        no such slot. ``slots["step"]`` is there once parameters are at different steps, because one
        had no gradient for a while; otherwise every parameter's step is ``count``.
    """

    count: jax.Array
    hyperparams: dict[str, Any]
    slots: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Rule:
    """An optimizer for one parameter, and what the engine must know about it.

    Attributes:
      name: PyTorch's name of the optimizer, for messages.
      init: ``(param, h) -> slots``.
      update: ``(grad, param, slots, h, step) -> (additive update, slots)``.
      decay: how ``h.weight_decay`` enters: ``"l2"`` adds ``weight_decay * param`` to the gradient after
        ``maximize`` has negated it, ``"decoupled"`` shrinks the parameter by ``lr * weight_decay``.
      complex: whether complex parameters are accepted.
      elementwise: no element of the update depends on another element, so that small parameters may be
        computed together.
      sparse: gradients are sparse rows, and only those rows of the state are touched.
    """

    name: str
    init: Callable[[jax.Array, Values], Slots]
    update: Callable[[jax.Array, jax.Array, Slots, Values, jax.Array], tuple[jax.Array, Slots]]
    decay: Literal["l2", "decoupled"] | None = "l2"
    complex: bool = True
    elementwise: bool = True
    sparse: bool = False


class Leafwise(optax.GradientTransformationExtraArgs):
    """An Optax transformation that also remembers the rule and the hyperparameters it was made of."""

    rule: Rule
    hyperparams: Hyperparams


def leafwise(rule: Rule, hyperparams: Hyperparams) -> Leafwise:
    """Lifts a rule for one parameter to a gradient transformation over pytrees of parameters."""

    def init(params: optax.Params) -> OptimizerState:
        leaves = _flatten(params)
        for path, leaf in leaves.present():
            _check_parameter(rule, path, leaf)
        dtypes = {_compute_dtype(leaf.dtype) for _, leaf in leaves.present()}
        scalar_dtype = np.dtype(np.float64 if np.dtype(np.float64) in dtypes else np.float32)
        hyper = hyperparams.init(leaves.paths, scalar_dtype)
        per_leaf = [
            None if _is_absent(leaf) else _init_leaf(rule, hyperparams, hyper, path, leaf)
            for path, leaf in zip(leaves.paths, leaves.values, strict=True)
        ]
        names = dict.fromkeys(name for slots in per_leaf if slots for name in slots)
        slots = {name: leaves.gather(per_leaf, name) for name in names}
        return OptimizerState(jnp.zeros([], jnp.int32), hyper, slots)

    def update(
        grads: optax.Updates, state: OptimizerState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, OptimizerState]:
        if params is None:
            raise ValueError(
                f"{rule.name} needs the parameters: call tx.update(grads, state, params). "
                f"With flax.nnx.Optimizer or optax.chain they are passed on by themselves."
            )
        leaves = _flatten(params)
        gradients = _match(leaves, grads)
        now, after = hyperparams.advance(state.hyperparams, state.count, extra)
        count = optax.safe_increment(state.count)
        slots = _count_apart(state, leaves, gradients)
        old = leaves.scatter(slots)
        updates, new = [], []
        for path, param, grad, leaf_slots in zip(leaves.paths, leaves.values, gradients, old, strict=True):
            if _is_absent(param) or _is_absent(grad):
                updates.append(grad)
                new.append(leaf_slots)
                continue
            _check_gradient(rule, path, grad, param)
            h = hyperparams.resolve(now, path, param.dtype, _compute_dtype(param.dtype))
            step_count = leaf_slots["step"] + 1 if "step" in leaf_slots else count
            kernel = _rows_step if rule.sparse else _dense_step
            change, changed = kernel(rule, grad, param, leaf_slots, h, step_count.astype(h.compute_dtype))
            updates.append(change)
            new.append(leaf_slots | changed | ({"step": step_count} if "step" in leaf_slots else {}))
        new_slots = {name: leaves.gather(new, name) for name in slots}
        return leaves.unflatten(updates), OptimizerState(count, after, new_slots)

    tx = Leafwise(init, update)
    tx.rule, tx.hyperparams = rule, hyperparams
    return tx


def apply_updates(params: chex.ArrayTree, updates: chex.ArrayTree) -> chex.ArrayTree:
    """Adds updates to parameters: the step itself.

    Args:
      params: a pytree of parameters.
      updates: a pytree of the same structure. ``None`` leaves its parameter as it is, a sparse update
        (``BCOO``, as ``sparse_adam`` returns) is added to the rows it names.

    Returns:
      The new parameters, in the dtypes of the old ones.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> jo.apply_updates({"w": jnp.ones(2)}, {"w": jnp.ones(2)})["w"].tolist()
      [2.0, 2.0]
    """

    def add(param: Any, change: Any) -> Any:
        if _is_absent(param) or _is_absent(change):
            return param
        if isinstance(change, sparse.BCOO):
            return param.at[change.indices[:, 0]].add(change.data, mode="drop")
        return (param + change).astype(param.dtype)

    return jax.tree.map(add, params, updates, is_leaf=_is_leaf)


def count_per_parameter(opt_state: OptimizerState, params: optax.Params) -> OptimizerState:
    """Gives every parameter a step count of its own in ``slots["step"]``.

    The first update in which a parameter has no gradient does this by itself. That changes the
    structure of the state, which ``lax.scan`` does not allow of its carry: call this before.

    Args:
      opt_state: the state of one optimizer of this package.
      params: the parameters that it was made for.
    """
    if "step" in opt_state.slots:
        return opt_state
    leaves = _flatten(params)
    steps = [None if _is_absent(leaf) else {"step": opt_state.count} for leaf in leaves.values]
    return opt_state._replace(slots=opt_state.slots | {"step": leaves.gather(steps, "step")})


def filled_like(param: jax.Array, value: Any) -> jax.Array:
    """A slot like ``param`` with every element, of a complex one both parts, at ``value``."""
    if jnp.issubdtype(param.dtype, jnp.complexfloating):
        value = jax.lax.complex(*[jnp.asarray(value, _compute_dtype(param.dtype))] * 2)
    return jnp.full_like(param, value)


# --- One parameter ------------------------------------------------------------------------------------


def _init_leaf(rule: Rule, hyperparams: Hyperparams, states: dict, path: str, leaf: jax.Array) -> Slots:
    try:
        return rule.init(leaf, hyperparams.resolve(states, path, leaf.dtype, _compute_dtype(leaf.dtype)))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error} (parameter {path!r})") from None


def _dense_step(
    rule: Rule, grad: jax.Array, param: jax.Array, slots: Slots, h: Values, step: jax.Array
) -> tuple[jax.Array, Slots]:
    stored = {name: slot for name, slot in slots.items() if name != "step"}
    g = _to_real(grad, h, conjugate=True)
    p = _to_real(param, h)
    if getattr(h, "maximize", False):
        g = -g
    decay = getattr(h, "weight_decay", 0) if rule.decay else 0
    if rule.decay == "l2" and not is_zero(decay):
        g = g + decay * p
    change, new = rule.update(g, p, {name: _to_real(s, h) for name, s in stored.items()}, h, step)
    if rule.decay == "decoupled" and not is_zero(decay):
        change = change - h.lr * decay * p
    return _to_stored(change, param.dtype), {n: _to_stored(s, stored[n].dtype) for n, s in new.items()}


def _rows_step(
    rule: Rule, grad: sparse.BCOO, param: jax.Array, slots: Slots, h: Values, step: jax.Array
) -> tuple[sparse.BCOO, Slots]:
    """The same rule on the rows that the gradient names, and on no others."""
    total = grad.sum_duplicates(nse=grad.nse, remove_zeros=False)  # padding points beyond the last row
    rows = total.indices[:, 0]
    taken = {n: s.at[rows].get(mode="fill", fill_value=0) for n, s in slots.items() if n != "step"}
    row_params = param.at[rows].get(mode="fill", fill_value=0)
    change, new = _dense_step(rule, total.data, row_params, taken, h, step)
    put = {n: slots[n].at[rows].set(new[n], mode="drop", unique_indices=True) for n in new}
    return sparse.BCOO((change, total.indices), shape=param.shape), put


def _compute_dtype(dtype: Any) -> np.dtype:
    wide = np.dtype(dtype) in (np.dtype(np.float64), np.dtype(np.complex128))
    return np.dtype(np.float64 if wide else np.float32)


def _to_real(x: jax.Array, h: Values, conjugate: bool = False) -> jax.Array:
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        # JAX's gradient with respect to a complex parameter is the conjugate of PyTorch's.
        return jnp.stack([x.real, -x.imag if conjugate else x.imag], axis=-1)
    return x.astype(h.compute_dtype)


def _to_stored(x: jax.Array, dtype: Any) -> jax.Array:
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return jax.lax.complex(x[..., 0], x[..., 1])
    return x.astype(dtype)


# --- The tree -----------------------------------------------------------------------------------------


def _is_absent(leaf: Any) -> bool:
    return leaf is None or isinstance(leaf, optax.MaskedNode)


def _is_leaf(node: Any) -> bool:
    return _is_absent(node) or isinstance(node, sparse.BCOO)


class _Leaves(NamedTuple):
    """A flattened parameter tree; ``None`` and ``MaskedNode`` count as leaves, being absent ones."""

    paths: list[str]
    values: list[Any]
    treedef: Any

    def present(self) -> list[tuple[str, Any]]:
        pairs = zip(self.paths, self.values, strict=True)
        return [(path, leaf) for path, leaf in pairs if not _is_absent(leaf)]

    def unflatten(self, values: list[Any]) -> Any:
        return jax.tree.unflatten(self.treedef, values)

    def gather(self, per_leaf: list[Slots | None], name: str) -> Any:
        """The tree of one slot out of the slots of every leaf."""
        return self.unflatten(
            [
                value if slots is None else slots.get(name)
                for slots, value in zip(per_leaf, self.values, strict=True)
            ]
        )

    def scatter(self, slots: dict[str, Any]) -> list[Slots]:
        """The slots of every leaf out of the tree of every slot."""
        per_leaf: list[Slots] = [{} for _ in self.values]
        for name, tree in slots.items():
            try:
                values = self.treedef.flatten_up_to(tree)
            except ValueError as error:
                raise ValueError(
                    f"The optimizer's state was made for other parameters: slot {name!r} does not have "
                    f"their tree. Call tx.init(params) again, or restore the state that belongs to "
                    f"them. ({error})"
                ) from None
            for leaf_slots, value in zip(per_leaf, values, strict=True):
                if not _is_absent(value):
                    leaf_slots[name] = value
        return per_leaf


def _flatten(params: Any) -> _Leaves:
    pairs, treedef = jax.tree_util.tree_flatten_with_path(params, is_leaf=_is_leaf)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in pairs]
    values = [leaf if _is_leaf(leaf) else jnp.asarray(leaf) for _, leaf in pairs]
    return _Leaves(paths, values, treedef)


def _match(leaves: _Leaves, grads: Any) -> list[Any]:
    """Flattens the gradients along the parameters' tree."""
    pairs, treedef = jax.tree_util.tree_flatten_with_path(grads, is_leaf=_is_leaf)
    if treedef == leaves.treedef:
        return [leaf if _is_leaf(leaf) else jnp.asarray(leaf) for _, leaf in pairs]
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in pairs]
    missing = [path for path in leaves.paths if path not in set(paths)]
    unknown = [path for path in paths if path not in set(leaves.paths)]
    raise ValueError(
        "The gradients do not have the tree of the parameters"
        + (f"; missing: {', '.join(map(repr, missing[:5]))}" if missing else "")
        + (f"; not a parameter: {', '.join(map(repr, unknown[:5]))}" if unknown else "")
        + ("" if missing or unknown else f": expected {leaves.treedef}, got {treedef}")
        + ". A parameter without a gradient must have None in its place."
    )


def _count_apart(state: OptimizerState, leaves: _Leaves, gradients: list[Any]) -> dict[str, Any]:
    """The slots, with a step count for every parameter from the first missing gradient on."""
    pairs = zip(leaves.values, gradients, strict=True)
    if any(_is_absent(grad) and not _is_absent(param) for param, grad in pairs):
        state = count_per_parameter(state, leaves.unflatten(leaves.values))
    return state.slots


def _check_parameter(rule: Rule, path: str, leaf: Any) -> None:
    if not isinstance(leaf, sparse.BCOO) and jnp.issubdtype(leaf.dtype, jnp.inexact):
        if rule.complex or not jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            return
        raise ValueError(f"{rule.name} does not support complex parameters: {path!r} is {leaf.dtype}.")
    raise TypeError(
        f"Parameter {path!r} is {leaf.dtype}; only dense floating-point and complex arrays can be optimized. "
        f"Leave it out with optax.masked or optax.partition, or put None in its place."
    )


def _check_gradient(rule: Rule, path: str, grad: Any, param: jax.Array) -> None:
    if rule.sparse:
        if not isinstance(grad, sparse.BCOO):
            raise TypeError(
                f"{rule.name} does not support dense gradients, please consider Adam instead: "
                f"the gradient of {path!r} is a dense array; expected a BCOO of rows, as "
                f"jaxopt_core.sparse_rows makes."
            )
        if grad.n_sparse != 1 or grad.n_batch != 0:
            raise ValueError(
                f"Gradient of {path!r}: expected a BCOO with one sparse dimension (rows) and no batch "
                f"dimension; got n_sparse={grad.n_sparse}, n_batch={grad.n_batch}."
            )
    elif isinstance(grad, sparse.BCOO):
        advice = ", please consider SparseAdam instead" if rule.name in ("Adam", "AdamW") else ""
        raise TypeError(f"{rule.name} does not support sparse gradients{advice}: {path!r} has one.")
    if grad.shape != param.shape:
        raise ValueError(f"Gradient of {path!r}: expected shape {param.shape}, got {grad.shape}.")
    if grad.dtype != param.dtype:
        raise TypeError(
            f"Gradient of {path!r}: expected {param.dtype}, as the parameter is; got {grad.dtype}. "
            f"Cast the gradient first."
        )
