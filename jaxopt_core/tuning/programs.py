"""A function of one trial as one program over many: in turn, or side by side, on one device or several."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from jaxopt_core.tuning.keys import as_data, as_keys, blank
from jaxopt_core.tuning.memory import kept_and_temporary

__all__ = [
    "How",
    "Lifted",
    "MemoryLimitError",
    "choose_how",
    "collector_paused",
    "count_lanes",
]

How = Literal["auto", "map", "vmap"]
_AXIS = "trials"


class MemoryLimitError(ValueError):
    """Not even one trial fits into the memory that was given."""


def choose_how(how: How, device: jax.Device) -> Literal["map", "vmap"]:
    """In turn on a CPU, side by side elsewhere; ``benchmarks.tuning`` measures both.

    A CPU that runs one small trial keeps its matrices in the cache; a batch of them does not. An
    accelerator needs the batch to be busy at all.
    """
    if how not in ("auto", "map", "vmap"):
        raise ValueError(f"how: expected 'auto', 'map' or 'vmap', got {how!r}")
    if how == "auto":
        return "map" if device.platform == "cpu" else "vmap"
    return how


def count_lanes(how: Literal["map", "vmap"], devices: Sequence[jax.Device]) -> int:
    """How many parts the trials are dealt into: one for each device, or, in turn on one CPU, for each core.

    A small trial keeps one core busy. Several run at a time if threads call the same program.
    """
    if how == "map" and len(devices) == 1 and devices[0].platform == "cpu":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return len(devices)


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Python's garbage collector does not run.

    Tracing and lowering make very many objects that stay. They start the collector again and again, and it
    goes through everything that was ever imported: a sixth of the time that a small sweep takes.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Lifted:
    """``fn(numbers, state, *args) -> state`` of one trial, compiled for many slots of them.

    In a slot lies the state of one trial. A call works on the slots that it is told to, however many,
    without another compilation: in turn the number is an argument of the program, side by side it is
    rounded up to a power of two.

    Args:
      fn: of one trial, pure.
      shapes: of one state, as ``jax.eval_shape`` gives them.
      how: ``"map"``, in turn, or ``"vmap"``, side by side.
      devices: over which the slots are spread.
      lanes: into how many equal parts the slots are dealt; see :func:`count_lanes`.
      memory: bytes that the program may use on one device.
      args: of ``fn``, the same for every trial; put on the devices once.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        shapes: Any,
        how: Literal["map", "vmap"],
        devices: Sequence[jax.Device],
        lanes: int,
        memory: int,
        args: tuple[Any, ...] = (),
    ) -> None:
        self.fn, self.shapes, self.how, self.devices = fn, shapes, how, list(devices)
        self.lanes, self.memory = lanes, memory
        self.calls = lanes if len(self.devices) == 1 else 1  # of the program, from threads
        # Put there here and not by a call: threads do not know what `jax.enable_x64` says in this one.
        self.spread: Any = SingleDeviceSharding(self.devices[0])
        self.same: Any = self.spread
        if len(self.devices) > 1:
            mesh = Mesh(np.asarray(self.devices), (_AXIS,))
            self.spread, self.same = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((_AXIS,), ()))
        self.args = jax.device_put(args, self.same)
        self.compile_seconds = 0.0
        self._compiled: dict[Any, tuple[Any, int]] = {}

    @property
    def programs(self) -> int:
        """How many were compiled."""
        return len(self._compiled)

    def blank(self, slots: int) -> list[Any]:
        """The state of ``slots`` trials that have not begun, a pytree for each call of the program."""
        return [blank(self.shapes, slots // self.calls) for _ in range(self.calls)]

    def __call__(self, slots: Sequence[int], numbers: Any, state: Sequence[Any]) -> list[Any]:
        """Runs the trials in ``slots``.

        Args:
          slots: indices, different ones.
          numbers: pytree of NumPy arrays, ``(slots in all, ...)``; equally many for each lane.
          state: as :meth:`blank` makes it; given up to the program.

        Returns:
          The state with the given slots replaced.
        """
        order, counts = self._deal(slots, len(jax.tree.leaves(numbers)[0]))
        leaves, structure = jax.tree.flatten((order, counts, numbers))
        lanes = zip(*(np.split(leaf, self.calls) for leaf in leaves), strict=True)
        inputs = []
        for own, part in zip(lanes, state, strict=True):
            of_lane = (*jax.tree.unflatten(structure, own), part)
            inputs.append((*jax.device_put(of_lane, self.spread), self.args))
        leaves, structure = jax.tree.flatten(inputs[0])
        key = structure, tuple((each.shape, each.dtype) for each in map(jax.typeof, leaves))
        if key not in self._compiled:
            start = time.perf_counter()
            with collector_paused():
                self._compiled[key] = self._compile(inputs[0])
            self.compile_seconds += time.perf_counter() - start
        program, threads = self._compiled[key]
        if threads == 1:
            return [program(*each) for each in inputs]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda each: jax.block_until_ready(program(*each)), inputs))

    def _deal(self, slots: Sequence[int], total: int) -> tuple[Any, Any]:
        """For each lane the places, among its own, of the trials to run, and how many these are."""
        each = total // self.lanes
        own = [[s - lane * each for s in slots if s // each == lane] for lane in range(self.lanes)]
        longest = max(map(len, own))
        length = each if self.how == "map" else min(each, 1 << max(longest - 1, 0).bit_length())
        # Behind the last one stands a place that does not exist: reading it is clipped, writing dropped.
        order = [places + [each] * (length - len(places)) for places in own]
        return np.asarray(order, np.int32).reshape(-1), np.asarray([len(p) for p in own], np.int32)

    def _compile(self, inputs: Any) -> tuple[Any, int]:
        """The program, and how many threads may run it at a time."""
        chunk = len(inputs[0]) // len(self.devices) if self.how == "vmap" else 1
        while True:
            compiled = jax.jit(self._program(chunk), donate_argnums=3).lower(*inputs).compile()
            kept, temporary = kept_and_temporary(compiled)
            shared = sum(getattr(x, "nbytes", 0) for x in jax.tree.leaves(inputs[4]))
            kept += (self.calls - 1) * max(kept - shared, 0)
            if kept + temporary <= self.memory:
                return compiled, max(1, min(self.calls, (self.memory - kept) // max(temporary, 1)))
            if chunk == 1:
                raise MemoryLimitError(
                    f"one trial at a time needs {(kept + temporary) / 2**20:.1f} MiB, with the states of "
                    f"all, on a device; {self.memory / 2**20:.1f} MiB are allowed. Give fewer trials, or "
                    "memory="
                )
            chunk = max(1, chunk // 2)

    def _program(self, chunk: int) -> Callable[..., Any]:
        many = self._in_turn if self.how == "map" else lambda *a: self._side_by_side(chunk, *a)
        if len(self.devices) == 1:
            return many
        spread, same = self.spread.spec, self.same.spec
        return jax.shard_map(
            many,
            mesh=self.spread.mesh,
            in_specs=(spread, spread, spread, spread, same),
            out_specs=spread,
            check_vma=False,
        )

    def _run(self, numbers: Any, state: Any, args: Any) -> Any:
        return as_data(self.fn(numbers, as_keys(state, self.shapes), *args))

    def _in_turn(self, order: Any, counts: Any, numbers: Any, state: Any, args: Any) -> Any:
        def body(i: Any, state: Any) -> Any:
            def pick(x: Any) -> Any:
                return lax.dynamic_index_in_dim(x, order[i], keepdims=False)

            new = self._run(jax.tree.map(pick, numbers), jax.tree.map(pick, state), args)
            put = lax.dynamic_update_index_in_dim
            return jax.tree.map(lambda all_, one: put(all_, one, order[i], 0), state, new)

        return lax.fori_loop(0, counts[0], body, state)

    def _side_by_side(self, chunk: int, order: Any, counts: Any, numbers: Any, state: Any, args: Any) -> Any:
        del counts

        def pick(x: Any) -> Any:
            return jnp.take(x, order, axis=0, mode="clip")

        def run(one: Any) -> Any:
            numbers, state = one
            return self._run(numbers, state, args)

        picked = jax.tree.map(pick, (numbers, state))
        new = jax.vmap(run)(picked) if chunk >= len(order) else lax.map(run, picked, batch_size=chunk)
        return jax.tree.map(lambda x, y: x.at[order].set(y, mode="drop"), state, new)
