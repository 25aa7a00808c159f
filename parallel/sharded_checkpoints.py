"""Checkpoints that all processes write together and any number of them reads."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from jaxopt_core.extras import needs_extra

__all__ = ["Resumed", "ShardedCheckpoints"]

T = TypeVar("T")


class Resumed(NamedTuple):
    """What a checkpoint held.

    Attributes:
      step: of the checkpoint.
      state: as it was saved, placed as the state given to :meth:`ShardedCheckpoints.restore`.
      meta: what was saved beside it, such as the position in the data.
    """

    step: int
    state: Any
    meta: dict[str, Any]


class ShardedCheckpoints:
    """A folder of checkpoints of a state that lies on the devices of many processes.

    Every process writes its own shards, while training goes on; a checkpoint has its name only when all of
    it is written, so whatever is killed leaves no halves behind. The shards are read back onto other
    numbers of processes and devices, or other shardings. Orbax does the work. For one process
    :class:`~jaxopt_core.training.Checkpoints` has checksums and keeps the best besides.

    Args:
      folder: on a disk that all processes see.
      keep: how many of the newest are kept. Default 2.

    Raises:
      MissingExtraError: Orbax is not installed.
      ValueError: ``keep`` is less than 1.

    Example:
      >>> import tempfile, jax.numpy as jnp, jaxopt_core as jo
      >>> params = {"w": jnp.arange(3.0)}
      >>> checkpoints = ShardedCheckpoints(tempfile.mkdtemp())
      >>> checkpoints.restore(params) is None  # there is none yet
      True
      >>> checkpoints.save(10, params, {"data": {"epoch": 1}})
      >>> checkpoints.wait()
      >>> step, params, meta = checkpoints.restore(params)
      >>> step, params["w"], meta["data"]
      (10, Array([0., 1., 2.], dtype=float32), {'epoch': 1})
      >>> checkpoints.close()
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep: expected at least 1, got {keep}")
        self.folder, self.keep = Path(folder).absolute(), keep

    @functools.cached_property
    def _manager(self) -> Any:
        with needs_extra("train"):
            import orbax.checkpoint as ocp

        options = ocp.CheckpointManagerOptions(max_to_keep=self.keep, cleanup_tmp_directories=True)
        return ocp.CheckpointManager(self.folder, options=options)

    def save(self, step: int, state: Any, meta: Mapping[str, Any] | None = None) -> None:
        """Begins to save; all processes must call it, with the same step.

        Args:
          step: the name of the checkpoint; one that is there is left as it is.
          state: a pytree of arrays.
          meta: what else there is to keep; anything that JSON can hold. Rank 0's is written.
        """
        import orbax.checkpoint as ocp

        if step in self._manager.all_steps():
            return
        flat = _flat(state)
        facts = {path: [list(array.shape), str(array.dtype)] for path, array in flat.items()}
        held = {"meta": dict(meta or {}), "arrays": facts}
        json.dumps(held)  # a TypeError here names what cannot be kept
        args = ocp.args.Composite(state=ocp.args.StandardSave(flat), meta=ocp.args.JsonSave(held))
        self._manager.save(step, args=args)

    def restore(self, like: T, step: int | None = None) -> Resumed | None:
        """Reads a checkpoint, or returns None where there is none; all processes must call it.

        Args:
          like: a state of the same structure, shapes and dtypes, whose placement the arrays get.
          step: default: the newest.

        Raises:
          FileNotFoundError: there is no checkpoint of this step.
          ValueError: the checkpoint is of another model or optimizer; it names the rank and an array.
        """
        import orbax.checkpoint as ocp

        there = sorted(self._manager.all_steps())
        if step is None and not there:
            return None
        step = there[-1] if step is None else step
        if step not in there:
            raise FileNotFoundError(f"expected a checkpoint of step {step} in {self.folder}, found {there}")
        held = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        target = _flat(like)
        if problem := _difference(held["arrays"], target):
            raise ValueError(
                f"rank {jax.process_index()}: the checkpoint of step {step} in {self.folder} is of another "
                f"model or optimizer: {problem}; give the model that it was made with, or another folder"
            )
        shapes = {
            path: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)
            for path, array in target.items()
        }
        args = ocp.args.Composite(state=ocp.args.StandardRestore(shapes))
        arrays = self._manager.restore(step, args=args)["state"]
        return Resumed(step, _unflat(arrays, like), held["meta"])

    def wait(self) -> None:
        """Waits until what was begun is saved, and raises what went wrong there."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and lets go of Orbax's threads."""
        if "_manager" in vars(self):
            self._manager.close()
            del self._manager


def _flat(state: Any) -> dict[str, jax.Array]:
    flat = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        array = jax.random.key_data(leaf) if _is_key(leaf) else jnp.asarray(leaf)
        flat[jax.tree_util.keystr(path, simple=True, separator="/") or "."] = array
    return flat


def _unflat(flat: Mapping[str, Any], like: T) -> T:
    leaves, treedef = jax.tree.flatten(like)
    new = [
        jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if _is_key(leaf) else array
        for array, leaf in zip((flat[path] for path in _flat(like)), leaves, strict=True)
    ]
    back: T = jax.tree.unflatten(treedef, new)
    return back


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _difference(held: Mapping[str, Any], target: Mapping[str, jax.Array]) -> str:
    for path in sorted(held.keys() ^ target.keys()):
        return f"it {'has' if path in held else 'lacks'} {path}"
    for path, array in target.items():
        expected = [list(array.shape), str(array.dtype)]
        if held[path] != expected:
            found = held[path]
            return f"{path} is {found[1]} of shape {found[0]}, expected {expected[1]} of {expected[0]}"
    return ""
