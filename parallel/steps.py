"""One step function, compiled for many devices in three ways."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxopt_core.gradients import AccumulateState
from jaxopt_core.parallel.meshes import batch_axes, batch_shards, replicated_sharding
from jaxopt_core.parallel.padding import pad_batch, rows_of
from jaxopt_core.parallel.placement import field, parts_of, place, state_shardings
from jaxopt_core.parallel.rules import Strategy, replicate
from jaxopt_core.parallel.scope import Scope, entered
from jaxopt_core.parallel.synchronize import SynchronizedState

__all__ = ["ParallelStep"]

Way = Literal["jit", "shard_map", "pmap"]
_MOVES = (
    "broadcast_in_dim", "convert_element_type", "dynamic_slice", "gather", "reshape", "sharding_constraint",
    "slice", "squeeze", "transpose",
)  # fmt: skip
StepFn = Callable[[Any, Any], tuple[Any, Any]]


class ParallelStep:
    """A compiled step over the devices of a mesh; what :func:`data_parallel` and its siblings return.

    Calling it places the state (once) and the batch, and runs the step. In a run of several processes every
    one calls it with the same state and with its own rows of the batch, the same number in each.
    """

    def __init__(
        self,
        step_fn: StepFn,
        mesh: Mesh,
        strategy: Strategy | None,
        way: Way,
        *,
        donate: bool,
        pad: str | None,
        trains: bool,
    ) -> None:
        # A jitted function may have been traced elsewhere, and would not be traced again here.
        self._step_fn = getattr(step_fn, "__wrapped__", step_fn) if hasattr(step_fn, "lower") else step_fn
        self._mesh, self._way, self._trains = mesh, way, trains
        self._strategy = replicate() if strategy is None else strategy
        self._donate, self._pad = donate, pad
        self._axes = batch_axes(mesh)
        self._programs: dict[Any, tuple[Any, Any]] = {}
        self._calls = itertools.count(1)
        self._waits = _must_wait(mesh)

    def __call__(self, state: Any, batch: Any) -> tuple[Any, Any]:
        """One step: ``(state, batch) -> (state, metrics)``."""
        result: tuple[Any, Any] = self._with(state, batch, lambda program, *args: program(*args))
        if self._waits and next(self._calls) % 8 == 0:
            jax.block_until_ready(result)
        return result

    def lower(self, state: Any, batch: Any) -> Any:
        """The program, lowered; ``.compile().as_text()`` shows what it communicates."""
        return self._with(state, batch, lambda program, *args: program.lower(*args))

    def shardings(self, state: Any) -> Any:
        """Where the arrays of a state live; see :func:`~jaxopt_core.parallel.state_shardings`."""
        return state_shardings(state, self._mesh, self._strategy)

    def place(self, state: Any) -> Any:
        """The state where its arrays live; a step does this itself with what is not there."""
        return place(state, self.shardings(state))

    def _with(self, state: Any, batch: Any, run: Any) -> Any:
        batch = self._placed_batch(batch)
        key = jax.tree.structure((state, batch))
        if key not in self._programs:
            shardings = self.shardings(state)
            placed = place(state, shardings)
            program = self._program(placed, batch, shardings)
            if self._pad is not None:
                _check_weight(program, placed, batch, self._pad)
            self._programs[key] = program, shardings
        program, shardings = self._programs[key]
        return run(program, place(state, shardings), batch)

    def _placed_batch(self, batch: Any) -> Any:
        axes, mesh = self._axes, self._mesh
        where, whole = NamedSharding(mesh, PartitionSpec(axes)), replicated_sharding(mesh)
        local = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
        shards = batch_shards(mesh)
        is_alone = len(local) == mesh.size
        here = shards if is_alone else max(1, shards * len(local) // mesh.size)
        is_placed = any(
            isinstance(x, jax.Array) and not x.is_fully_addressable for x in jax.tree.leaves(batch)
        )
        count = rows_of(batch)
        if self._pad is not None and not is_placed:
            batch = pad_batch(batch, here, name=self._pad)
        elif not is_placed and count % here:
            raise ValueError(
                f"A batch of {count} rows cannot be divided over {here} devices: drop {count % here} rows, "
                f"or use pad='weight' and multiply the losses by batch['weight'], so that no row is lost."
            )

        def put(x: Any) -> Any:
            sharding = where if np.ndim(x) > 0 else whole
            if is_alone or (isinstance(x, jax.Array) and not x.is_fully_addressable):
                return jax.device_put(x, sharding)
            return jax.make_array_from_process_local_data(sharding, np.asarray(x))

        return jax.tree.map(put, batch)

    def _program(self, state: Any, batch: Any, shardings: Any) -> Any:
        _refuse_local_accumulation(state, self._way)
        parts = parts_of(state, self._mesh, self._strategy)
        donated = (0,) if self._donate else ()
        if self._way == "jit":
            scope = Scope(self._mesh, self._axes, batch_shards(self._mesh), False, parts)
            whole = replicated_sharding(self._mesh)
            placed = jax.tree.map(lambda x: x.sharding, batch)
            traced = self._traced(scope)
            return jax.jit(traced, in_shardings=(shardings, placed), out_shardings=(shardings, whole),
                           donate_argnums=donated)  # fmt: skip
        if self._way == "shard_map":
            scope = Scope(self._mesh, self._axes, batch_shards(self._mesh), True, parts)
            specs = jax.tree.map(lambda s: s.spec, shardings)
            rows = jax.tree.map(lambda x: x.sharding.spec, batch)
            # Values that differ between devices are tracked by the checks here, not by check_vma: under it
            # jax.grad adds up the gradients of all devices before a hook or an accumulator sees them.
            mapped = jax.shard_map(
                self._traced(scope), mesh=self._mesh, in_specs=(specs, rows),
                out_specs=(specs, PartitionSpec()), check_vma=False,
            )  # fmt: skip
            return jax.jit(mapped, donate_argnums=donated)
        return self._pmapped(Scope(self._mesh, ("data",), batch_shards(self._mesh), True, parts), shardings)

    def _traced(self, scope: Scope) -> StepFn:
        def traced(state: Any, batch: Any) -> tuple[Any, Any]:
            scope.synchronized = False
            with entered(scope):
                new, metrics = self._step_fn(state, batch)
            if not scope.explicit:
                return new, metrics
            if self._trains and not scope.synchronized:
                raise ValueError(
                    "The step never averaged its gradients, so every device would go its own way: put "
                    "jaxopt_core.parallel.synchronized(...) around the optimizer. For a step that does not "
                    "train, pass trains=False."
                )
            return _rest_of_first(new, scope), _averaged(metrics, scope)

        return traced

    def _pmapped(self, scope: Scope, shardings: Any) -> Any:
        traced = self._traced(scope)
        specs, treedef = jax.tree.flatten(shardings)
        axes = [0 if any(sharding.spec) else None for sharding in specs]
        in_state = jax.tree.unflatten(treedef, axes)

        def one(state: Any, batch: Any) -> tuple[Any, Any]:
            # A device's own arrays keep their first axis, at length 1, as under shard_map.
            leaves = [x if a is None else x[None] for x, a in zip(jax.tree.leaves(state), axes, strict=True)]
            new, metrics = traced(jax.tree.unflatten(treedef, leaves), batch)
            leaves = [x if a is None else x[0] for x, a in zip(jax.tree.leaves(new), axes, strict=True)]
            return jax.tree.unflatten(treedef, leaves), metrics

        mapped = jax.pmap(
            one, axis_name="data", in_axes=(in_state, 0), out_axes=(in_state, None),
            devices=list(self._mesh.devices.flat), donate_argnums=(0,) if self._donate else (),
        )  # fmt: skip

        def split(batch: Any) -> Any:
            def rows(x: Any) -> Any:
                return (
                    jnp.broadcast_to(x, (scope.size,))
                    if x.ndim == 0
                    else x.reshape(scope.size, -1, *x.shape[1:])
                )

            return jax.tree.map(rows, batch)

        return _Pmapped(mapped, split)


class _Pmapped(NamedTuple):
    """A pmapped program that takes batches without a device axis, as the others do."""

    mapped: Any
    split: Callable[[Any], Any]

    def __call__(self, state: Any, batch: Any) -> Any:
        return self.mapped(state, self.split(batch))

    def lower(self, state: Any, batch: Any) -> Any:
        return self.mapped.lower(state, self.split(batch))


def _check_weight(program: Any, state: Any, batch: Any, name: str) -> None:
    """Refuses a step that reads no weights of a padded batch."""
    closed = jax.make_jaxpr(program)(state, batch)
    names = [path[0].key for path, _ in jax.tree_util.tree_leaves_with_path(batch)]
    index = len(jax.tree.leaves(state)) + names.index(name)
    if not _is_read(closed.jaxpr, closed.jaxpr.invars[index]):
        raise ValueError(
            f"The batch was padded, but the step never reads batch[{name!r}]: multiply the losses by it "
            f"before their mean is taken."
        )


def _averaged(metrics: Any, scope: Scope) -> Any:
    for path, leaf in jax.tree_util.tree_leaves_with_path(metrics):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise TypeError(
                f"Metric {name!r} is {jnp.result_type(leaf)}: metrics are averaged over the devices. Of a "
                f"count, return jaxopt_core.parallel.total(count).astype(float)."
            )
    return lax.pmean(metrics, scope.axes)


def _rest_of_first(state: Any, scope: Scope) -> Any:
    """Buffers such as running statistics are the first device's, as DDP broadcasts those of rank 0."""
    if field(state, "params") is None:
        return state
    is_first = lax.axis_index(scope.axes) == 0

    def first(path: Any, x: Any) -> Any:
        name = jax.tree_util.keystr(path[:1], simple=True)
        # Counts and random streams advance alike everywhere.
        if name in ("params", "opt_state") or not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        return lax.psum(jnp.where(is_first, x, jnp.zeros_like(x)), scope.axes)

    return jax.tree_util.tree_map_with_path(first, state)


def _refuse_local_accumulation(state: Any, way: Way) -> None:
    kinds = (AccumulateState, optax.MultiStepsState)
    if way == "jit":
        return
    for node in jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kinds)):
        inner = (
            node.inner_state if isinstance(node, AccumulateState) else getattr(node, "inner_opt_state", None)
        )
        nodes = jax.tree.leaves(inner, is_leaf=lambda n: isinstance(n, SynchronizedState))
        if any(isinstance(n, SynchronizedState) for n in nodes):
            raise ValueError(
                "accumulate around synchronized would add up gradients that differ between devices, in a "
                "state that they share. Use gradients(loss_fn, micro_batches=K) for one all-reduce in K "
                "micro-batches, or synchronized(accumulate(...)), which averages every time."
            )


def _is_read(jaxpr: Any, var: Any) -> bool:
    """Whether a program computes anything with a variable, other than to move it about."""
    for eqn in jaxpr.eqns:
        for i in (i for i, atom in enumerate(eqn.invars) if atom is var):
            inner = next((p for p in eqn.params.values() if hasattr(p, "eqns") or hasattr(p, "jaxpr")), None)
            inner = getattr(inner, "jaxpr", inner)
            if inner is not None and len(inner.invars) == len(eqn.invars):
                if _is_read(inner, inner.invars[i]):
                    return True
            elif eqn.primitive.name not in _MOVES or _is_read(jaxpr, eqn.outvars[0]):
                return True
    return False


def _must_wait(mesh: Mesh) -> bool:
    """Whether many steps in flight can wait for each other forever: fewer threads than devices, on CPU."""
    if mesh.devices.flat[0].platform != "cpu":
        return False
    threads = int(os.environ.get("NPROC") or os.cpu_count() or 1)
    return threads < 2 * len(jax.local_devices())
