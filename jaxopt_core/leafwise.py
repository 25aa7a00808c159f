"""The engine: a rule for ONE parameter becomes a gradient transformation over a pytree.

An optimizer file holds the mathematics of one parameter and nothing else:

    init(param, h)                        -> slots, a dict from PyTorch's slot name to an array
    update(grad, param, slots, h, step)   -> (additive update, slots)

:func:`leafwise` does everything that is the same for all of them: the tree, what is absent in it, the
step count, the values of the hyperparameters, ``maximize``, weight decay in PyTorch's order, complex
parameters, low precision, sparse gradients, small parameters in large numbers, and the errors.

What happens to one parameter is in ``leaf.py``; here is what happens to the tree of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import sparse
from jax.sharding import NamedSharding, PartitionSpec

from jaxopt_core.checks import check_gradients, check_parameter, check_slots
from jaxopt_core.describe import note
from jaxopt_core.hyperparams import Hyperparams, Values
from jaxopt_core.leaf import compute_dtype, dense_step, rows_step
from jaxopt_core.rule import Rule
from jaxopt_core.runs import RunSlots, TreeSlots, join, plan, split
from jaxopt_core.tree import Leaves, Slots, flatten, is_absent, is_leaf

__all__ = [
    "Leafwise",
    "OptimizerState",
    "apply_updates",
    "bucketed",
    "count_per_parameter",
    "leafwise",
]


class OptimizerState(NamedTuple):
    """The state of every per-parameter optimizer.

    Attributes:
      count: int32 scalar, updates made so far; it drives the schedules and stops at its largest value.
      hyperparams: name -> current value of what can change; see ``read_hyperparams``.
      slots: PyTorch's slot name -> a pytree shaped like the parameters, ``None`` where a parameter has
        no such slot. ``slots["step"]`` is there once parameters are at different steps, because one
        had no gradient for a while; otherwise every parameter's step is ``count``.
    """

    count: jax.Array  # type: ignore[assignment]  # not tuple.count
    hyperparams: dict[str, Any]
    slots: dict[str, Any]


class Leafwise(optax.GradientTransformationExtraArgs):
    """An Optax transformation that also remembers the rule and the hyperparameters it was made of."""

    rule: Rule
    hyperparams: Hyperparams


def leafwise(rule: Rule, hyperparams: Hyperparams, *, in_runs: bool = False) -> Leafwise:
    """Lifts a rule for one parameter to a gradient transformation over pytrees of parameters.

    Args:
      rule: the optimizer for one parameter.
      hyperparams: its arguments.
      in_runs: keep the slots of small parameters joined; see :func:`bucketed`.
    """

    def one_step(grads: Any, params: Any, slots: Slots, h: Values, step: jax.Array) -> tuple[Any, Slots]:
        """The updates of the members of a run, most often of one parameter, and the run's new slots."""
        kernel = rows_step if rule.sparse else dense_step
        change, new = kernel(rule, join(grads), join(params), slots, h, step)
        return split(change, params), new

    traced_once = jax.jit(one_step)

    def init(params: optax.Params) -> OptimizerState:
        leaves = flatten(params)
        note(rule.name, hyperparams, leaves)
        for path, leaf in leaves.present():
            check_parameter(rule, path, leaf)
        wide = any(compute_dtype(leaf.dtype) == np.float64 for _, leaf in leaves.present())
        states = hyperparams.init(leaves.paths, np.float64 if wide else np.float32)
        per_leaf = [
            {} if is_absent(leaf) else _init_leaf(rule, hyperparams, states, path, leaf)
            for path, leaf in zip(leaves.paths, leaves.values, strict=True)
        ]
        names = dict.fromkeys(name for slots in per_leaf for name in slots)
        trees = {name: leaves.gather(per_leaf, name) for name in names}
        if in_runs:
            runs = plan(hyperparams, leaves, leaves.values, joining=True)
            trees = RunSlots.of(TreeSlots(leaves, trees), runs).state()
        return _placed(OptimizerState(jnp.zeros([], jnp.int32), states, trees), leaves)

    def update(
        grads: optax.Updates, state: OptimizerState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, OptimizerState]:
        if params is None:
            raise ValueError(
                f"{rule.name} needs the parameters: call tx.update(grads, state, params). "
                f"With flax.nnx.Optimizer or optax.chain they are passed on by themselves."
            )
        if not isinstance(state, OptimizerState):
            raise TypeError(
                f"{rule.name} expects the OptimizerState that tx.init(params) returns; "
                f"got {type(state).__name__}."
            )
        leaves = flatten(params)
        gradients = leaves.match(grads)
        if skipped := check_gradients(rule, leaves, gradients):
            if in_runs:
                raise ValueError(
                    f"A bucketed optimizer cannot skip a parameter: {skipped[0]!r} has no gradient."
                )
            state = count_per_parameter(state, params)
        now, after = hyperparams.advance(state.hyperparams, state.count, extra)
        count = optax.safe_increment(state.count)
        slots = RunSlots(state.slots) if in_runs else TreeSlots(leaves, state.slots)
        shared: dict[Any, tuple[Values, Slots]] = {}
        changes = [p if is_absent(p) else g for p, g in zip(leaves.values, gradients, strict=True)]
        for run in plan(hyperparams, leaves, gradients, joining=in_runs):
            like, old, params_of_run = run.like, slots.read(run), run.of(leaves.values)
            key = hyperparams.group(run.path), like.shape, like.dtype
            if key not in shared:
                h = hyperparams.resolve(now, run.path, like.dtype, compute_dtype(like.dtype))
                shared[key] = h, jax.eval_shape(lambda p, h=h: rule.init(p, h), like)
            h, expected = shared[key]
            step = optax.safe_increment(old.pop("step")) if "step" in old else count
            check_slots(run.path, old, expected)
            # In a program, parameters alike are traced once; eagerly, nothing is worth compiling.
            kernel = traced_once if isinstance(params_of_run[0], jax.core.Tracer) else one_step
            parts, new = kernel(run.of(gradients), params_of_run, old, h, step)
            slots.write(run, new | ({"step": step} if "step" in state.slots else {}))
            for i, part in zip(run.members, parts, strict=True):
                changes[i] = part
        return leaves.unflatten(changes), OptimizerState(count, after, slots.state())

    tx = Leafwise(init, update)
    tx.rule, tx.hyperparams = rule, hyperparams
    return tx


def bucketed(tx: optax.GradientTransformation) -> Leafwise:
    """The same optimizer with the slots of small parameters kept together, for trees of many of them.

    Parameters of up to 4096 elements of one shape, dtype and group of hyperparameters share one array a
    slot, 16 parameters at a time. The numbers are the same; a tree of thousands of small leaves steps and
    compiles several times faster, because a program's cost there is its number of buffers. In the state a
    slot is then a dict from the path of the first of such a run to its array, not a tree like the
    parameters, and no parameter can go without a gradient.

    Args:
      tx: an elementwise optimizer of this package: not ``adafactor``, ``muon``, ``sparse_adam``,
        ``lbfgs``, nor ``nadam`` and ``asgd``, which keep scalars.

    Returns:
      An optimizer with the same numbers and a state of its own kind.

    Raises:
      ValueError: the optimizer is not elementwise; in ``update``, a gradient is missing.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> tx = jo.bucketed(jo.adamw())
      >>> state = tx.init([jnp.ones(5) for _ in range(64)])
      >>> [array.shape for array in state.slots["exp_avg"].values()]
      [(80,), (80,), (80,), (80,)]
    """
    if not isinstance(tx, Leafwise) or not tx.rule.elementwise:
        name = tx.rule.name if isinstance(tx, Leafwise) else type(tx).__name__
        raise ValueError(f"bucketed expects an elementwise optimizer of this package; {name} is none.")
    return leafwise(tx.rule, tx.hyperparams, in_runs=True)


def apply_updates(params: Any, updates: Any) -> Any:
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

    def add(path: Any, param: Any, change: Any) -> Any:
        if is_absent(param) or is_absent(change):
            return param
        param, change = jnp.asarray(param), change if is_leaf(change) else jnp.asarray(change)
        if change.shape != param.shape:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ValueError(f"Update of {name!r}: expected shape {param.shape}, got {change.shape}.")
        if isinstance(change, sparse.BCOO):
            return param.at[change.indices[:, 0]].add(change.data, mode="drop")
        return (param + change).astype(param.dtype)

    return jax.tree_util.tree_map_with_path(add, params, updates, is_leaf=is_leaf)


def count_per_parameter(opt_state: OptimizerState, params: optax.Params) -> OptimizerState:
    """Gives every parameter a step count of its own in ``slots["step"]``.

    The first update in which a parameter has no gradient does this by itself. That changes the
    structure of the state, which ``lax.scan`` does not allow of its carry: call this before.

    Args:
      opt_state: the state of one optimizer of this package.
      params: the parameters that it was made for.

    Returns:
      The state, with ``slots["step"]``.

    Raises:
      ValueError: the state is that of other parameters, or of a :func:`bucketed` optimizer.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> params = {"w": jnp.ones(2)}
      >>> jo.count_per_parameter(jo.adam().init(params), params).slots["step"]["w"].item()
      0
    """
    if "step" in opt_state.slots:
        return opt_state
    leaves = flatten(params)
    leaves.scatter(opt_state.slots)  # raises if they belong to other parameters
    # Copies, lest one buffer be donated for all of them.
    steps = leaves.gather([{"step": jnp.copy(opt_state.count)} for _ in leaves.values], "step")
    return opt_state._replace(slots=opt_state.slots | {"step": steps})


def _placed(state: OptimizerState, leaves: Leaves) -> OptimizerState:
    """The state with its scalars where the parameters are, lest the second step compiles again."""
    present = [leaf for _, leaf in leaves.present()]
    if not present or any(isinstance(leaf, jax.core.Tracer) or not leaf.committed for leaf in present):
        return state
    first, *rest = present
    if any(leaf.sharding.device_set != first.sharding.device_set for leaf in rest):
        return state
    place = first.sharding
    if isinstance(place, NamedSharding):
        place = NamedSharding(place.mesh, PartitionSpec())
    elif len(place.device_set) > 1:
        return state

    def put(x: jax.Array) -> jax.Array:
        return x if isinstance(x, jax.core.Tracer) or x.committed else jax.device_put(x, place)

    return jax.tree.map(put, state)


def _init_leaf(
    rule: Rule, hyperparams: Hyperparams, states: dict[str, Any], path: str, leaf: jax.Array
) -> Slots:
    try:
        return rule.init(leaf, hyperparams.resolve(states, path, leaf.dtype, compute_dtype(leaf.dtype)))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error} (parameter {path!r})") from None
