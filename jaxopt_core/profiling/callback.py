"""Recording dispatches of :func:`~jaxopt_core.training.fit`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jaxopt_core.profiling.recorder import profile
from jaxopt_core.profiling.report import Profile
from jaxopt_core.profiling.schedule import Schedule
from jaxopt_core.training.callbacks import Callback, Run

__all__ = ["ProfileCallback"]


class ProfileCallback(Callback):
    """A callback for ``fit`` that records some of its dispatches; a dispatch counts as one step.

    Args:
      schedule: in dispatches. Default: ``Schedule()``.
      folder: for XLA's recordings. Default: a temporary one.

    Example:
      >>> import jax.numpy as jnp, numpy as np, jaxopt_core as jo
      >>> from jaxopt_core.training import fit, init_state, make_step
      >>> def loss_fn(params, rest, batch, rng):
      ...     return jnp.mean((batch["x"] @ params) ** 2), (rest, {})
      >>> tx = jo.sgd(lr=0.1)
      >>> callback = ProfileCallback(Schedule(wait=1, warmup=1, active=2))
      >>> data = [{"x": np.ones((4, 3), np.float32)}] * 16
      >>> state = init_state(jnp.ones(3), {}, tx)
      >>> run = fit(state, data, make_step(loss_fn, tx), epochs=1, callbacks=[callback], steps_per_dispatch=4)
      >>> callback.result.steps
      2
    """

    def __init__(self, schedule: Schedule | None = None, folder: str | Path | None = None) -> None:
        self._context = profile(schedule, folder)
        self._exits = contextlib.ExitStack()

    def watch(self, data: Iterable[Any]) -> _Watched:
        """The data for ``fit``, with the time that it takes noted."""
        return _Watched(data, self)

    def on_start(self, run: Run) -> None:
        """Begins to watch."""
        del run
        self._recorder = self._exits.enter_context(self._context)

    def on_steps(self, run: Run, metrics: dict[str, Any]) -> None:
        """Ends a step of the schedule."""
        del metrics
        self._recorder.step(run.state)

    def on_end(self, run: Run) -> None:
        """Stops."""
        del run
        self._exits.close()

    def timed(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Batches, once the run has begun; see :meth:`watch`."""
        return self._recorder.watch(batches)

    @property
    def result(self) -> Profile:
        """What was recorded."""
        return self._recorder.result


class _Watched:
    def __init__(self, data: Iterable[Any], callback: ProfileCallback) -> None:
        self._data, self._callback = data, callback

    def __iter__(self) -> Iterator[Any]:
        return self._callback.timed(self._data)

    def __getattr__(self, name: str) -> Any:
        """What else the data can do: its length, and what a resume needs."""
        return getattr(self._data, name)

    def __len__(self) -> int:
        return len(self._data)  # type: ignore[arg-type]
