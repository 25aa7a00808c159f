"""Checkpoints: Orbax's, with a checksum for every array."""

from __future__ import annotations

import functools
import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import jax

from jaxopt_core.extras import needs_extra
from jaxopt_core.training.checksums import checksum, flat_arrays, unflat_arrays
from jaxopt_core.training.state import TrainState

__all__ = ["Checkpoints", "CorruptCheckpointError", "Restored"]


class CorruptCheckpointError(ValueError):
    """A checkpoint is not what was written.

    Attributes:
      step: of the checkpoint.
      good_step: the newest older step that is whole, or None.
    """

    def __init__(self, step: int, found: str, good_step: int | None) -> None:
        offer = "there is no older one that is whole"
        if good_step is not None:
            offer = f"the newest that is whole is step {good_step}"
        super().__init__(f"checkpoint of step {step}: {found}; {offer}")
        self.step, self.good_step = step, good_step


class Restored(NamedTuple):
    """What a checkpoint held.

    Attributes:
      state: as it was saved, placed like the state given to :meth:`Checkpoints.restore`.
      meta: what was saved beside it: epoch, position in the data, state of early stopping.
    """

    state: TrainState
    meta: dict[str, Any]


class Checkpoints:
    """A folder of checkpoints, of which the last and the best are kept.

    Saves are asynchronous (the arrays are copied, then written while training goes on) and atomic (a
    checkpoint has its name only when it is whole, so a run that is killed leaves none in halves).

    Args:
      folder: made if it is missing.
      keep_last: how many of the newest are kept. Default 2: one may turn out to be damaged.
      keep_best: how many of the best are kept besides. Default 1.
      monitor: metric of the validation that says what is best. Default ``"val_loss"``.
      mode: ``"min"`` or ``"max"``: which way is better. Default ``"min"``.
      every_steps: save also every so many updates. Default None: after each validation, and at the end.

    Raises:
      MissingExtraError: Orbax is not installed.
      ValueError: an argument is out of range.

    Example:
      >>> import tempfile, jax.numpy as jnp, jaxopt_core as jo
      >>> from jaxopt_core.training import init_state
      >>> state = init_state({"w": jnp.ones(3)}, {}, jo.sgd(momentum=0.9))
      >>> with Checkpoints(tempfile.mkdtemp()) as checkpoints:
      ...     checkpoints.save(10, state, {"epoch": 1}, {"val_loss": 0.5})
      ...     checkpoints.wait()
      ...     restored = checkpoints.restore(state)
      >>> restored.meta["epoch"], restored.state.params["w"]
      (1, Array([1., 1., 1.], dtype=float32))
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep_last: int = 2,
        keep_best: int = 1,
        monitor: str = "val_loss",
        mode: Literal["min", "max"] = "min",
        every_steps: int | None = None,
    ) -> None:
        if keep_last < 1 or keep_best < 0:
            raise ValueError(
                f"expected keep_last of at least 1 and keep_best of at least 0, "
                f"got {keep_last} and {keep_best}"
            )
        if mode not in ("min", "max"):
            raise ValueError(f"mode {mode} is unknown!")
        if every_steps is not None and every_steps < 1:
            raise ValueError(f"every_steps must be at least 1, got {every_steps}")
        self.folder = Path(folder).absolute()
        self.monitor, self.mode, self.every_steps = monitor, mode, every_steps
        self._keep = keep_last, keep_best

    @functools.cached_property
    def _manager(self) -> Any:
        # Made at the first use: Orbax takes seconds to import, and the first step need not wait for it.
        with needs_extra("train"):
            import orbax.checkpoint as ocp
            from orbax.checkpoint import checkpoint_managers as policies

        last, best = self._keep
        kept: list[Any] = [policies.LatestN(last)]
        if best:
            kept.append(
                policies.BestN(
                    get_metric_fn=lambda metrics: metrics[self.monitor],
                    reverse=self.mode == "min",
                    n=best,
                )
            )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(kept),
            # Without a best_fn Orbax does not write the metrics that the policy reads after a restart.
            best_fn=lambda metrics: metrics[self.monitor],
            best_mode=self.mode,
            cleanup_tmp_directories=True,
        )
        return ocp.CheckpointManager(self.folder, options=options)

    def steps(self) -> list[int]:
        """The steps of which there is a checkpoint, ascending."""
        names = (path.name for path in self.folder.glob("*") if path.is_dir())
        return sorted(int(name) for name in names if name.isdigit())

    def best_step(self) -> int | None:
        """The step whose monitored metric is best, or None where no checkpoint has it."""
        found = {}
        for step in self.steps():
            path = self.folder / str(step) / "metrics" / "metrics"
            value = json.loads(path.read_text())[self.monitor] if path.is_file() else math.nan
            if math.isfinite(value):
                found[step] = value
        choose = min if self.mode == "min" else max
        return choose(found, key=lambda step: found[step]) if found else None

    def save(
        self,
        step: int,
        state: TrainState,
        meta: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Begins to save; a step that is there already is left as it is.

        Args:
          step: the name of the checkpoint.
          state: arrays on any devices of this process.
          meta: what else there is to keep; anything that JSON can hold.
          metrics: of the validation at this step. Without the monitored one it can be last, never best.
        """
        import orbax.checkpoint as ocp

        if step in self.steps():
            return
        arrays = flat_arrays(state)
        facts = {path: [checksum(array), list(array.shape)] for path, array in arrays.items()}
        text = json.dumps({**meta, "arrays": facts})
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(arrays),
            meta=ocp.args.JsonSave({"crc": _crc(text), "text": text}),
        )
        # Orbax warns of a checkpoint without a metric; one that is infinitely bad is never best.
        worst = math.inf if self.mode == "min" else -math.inf
        self._manager.save(step, args=args, metrics={self.monitor: worst, **(metrics or {})})

    def restore(self, like: TrainState, step: int | None = None) -> Restored:
        """Reads a checkpoint and compares every array with its checksum.

        Args:
          like: a state of the same structure, shapes and dtypes, whose placement the arrays get.
          step: default: the newest.

        Raises:
          FileNotFoundError: there is none, or not of this step.
          CorruptCheckpointError: an array, or what else was saved, is not what was written; it says
            which, and which step to go back to.
          ValueError: the checkpoint is of a state of another structure.
        """
        there = self.steps()
        if not there or (step is not None and step not in there):
            wanted = "a checkpoint" if step is None else f"a checkpoint of step {step}"
            raise FileNotFoundError(f"expected {wanted} in {self.folder}, found {there or 'none'}")
        step = there[-1] if step is None else step
        try:
            return self._read(step, like)
        except _DamagedError as error:
            older = (good for good in reversed(there) if good < step and self._is_whole(good, like))
            raise CorruptCheckpointError(step, str(error), next(older, None)) from None

    def _is_whole(self, step: int, like: TrainState) -> bool:
        try:
            self._read(step, like)
        except _DamagedError:
            return False
        return True

    def _read(self, step: int, like: TrainState) -> Restored:
        meta = self._read_meta(step)
        facts = meta.pop("arrays")
        target = flat_arrays(like)
        if facts.keys() != target.keys():
            missing, extra = sorted(target.keys() - facts.keys()), sorted(facts.keys() - target.keys())
            raise ValueError(
                f"checkpoint of step {step}: made of another model or optimizer: it lacks "
                f"{missing[:3]} and has {extra[:3]} besides"
            )
        for path, (_, shape) in facts.items():
            if tuple(shape) != target[path].shape:
                raise ValueError(
                    f"checkpoint of step {step}: {path}: expected shape {target[path].shape}, "
                    f"found {tuple(shape)}"
                )
        arrays = self._read_arrays(step, target)
        for path, array in arrays.items():
            if checksum(array) != facts[path][0]:
                raise _DamagedError(f"{path} does not have the checksum with which it was saved")
        return Restored(unflat_arrays(arrays, like), meta)

    def _read_meta(self, step: int) -> dict[str, Any]:
        path = self.folder / str(step) / "meta" / "metadata"
        try:
            held = json.loads(path.read_text())
            text = held["text"]
            is_whole = held["crc"] == _crc(text)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _DamagedError(f"{path.name} cannot be read ({error})") from None
        if not is_whole:
            raise _DamagedError(f"{path.name} does not have the checksum with which it was saved")
        meta: dict[str, Any] = json.loads(text)
        return meta

    def _read_arrays(self, step: int, target: Mapping[str, Any]) -> dict[str, jax.Array]:
        import orbax.checkpoint as ocp

        like = {
            path: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for path, x in target.items()
        }
        args = ocp.args.Composite(state=ocp.args.StandardRestore(like))
        try:
            arrays: dict[str, jax.Array] = self._manager.restore(step, args=args)["state"]
        except Exception as error:  # a damaged file may raise anything
            line = str(error).strip().partition("\n")[0]
            raise _DamagedError(f"Orbax cannot read it ({type(error).__name__}: {line[:200]})") from error
        return arrays

    def wait(self) -> None:
        """Waits until what was begun is saved, and raises what went wrong there."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and lets go of Orbax's threads."""
        if "_manager" in vars(self):
            self._manager.close()
            del self._manager

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


class _DamagedError(Exception):
    """What is wrong with a checkpoint."""


def _crc(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
