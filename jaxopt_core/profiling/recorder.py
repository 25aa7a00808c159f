"""Recording some steps of a training loop."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from jaxopt_core.profiling.hlo import live_programs
from jaxopt_core.profiling.report import Profile
from jaxopt_core.profiling.schedule import Phase, Schedule
from jaxopt_core.profiling.trace import Trace, read_trace
from jaxopt_core.training.dispatch import OWN_WAIT

__all__ = ["Compilation", "Recorder", "profile"]

T = TypeVar("T")


@dataclasses.dataclass
class Compilation:
    """A program that was compiled while the loop ran: in which step, its name, and how long it took."""

    step: int
    name: str
    seconds: float


class Recorder:
    """Watches a loop; made by :func:`profile`."""

    def __init__(self, schedule: Schedule, folder: Path) -> None:
        schedule.check()
        self.schedule, self.folder = schedule, folder
        self.compilations: list[Compilation] = []
        self.explanations: dict[str, list[str]] = {}
        self.waits: dict[int, float] = {}
        self.padded: list[float] = []
        self._step = 0
        self._active_steps: list[int] = []
        self._recording = False
        self._phase_began = time.perf_counter()
        self._wall = 0.0
        self._warmups: list[float] = []
        self._result: Any = None
        self._trace: Trace | None = None

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """Passes batches on, and times how long the loop waits for each."""
        iterator = iter(batches)
        while True:
            start = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self.waits[self._step] = self.waits.get(self._step, 0.0) + time.perf_counter() - start
            mask = batch.get("mask") if isinstance(batch, dict) else None
            if mask is not None and self.schedule.phase(self._step) != "done":
                with jax.profiler.TraceAnnotation(OWN_WAIT):
                    self.padded.append(1 - float(np.mean(np.asarray(mask))))
            yield batch

    def step(self, result: Any = None) -> None:
        """Ends a step; ``result`` is what it computed, waited for only where a phase begins or ends."""
        self._result = result
        phase = self.schedule.phase(self._step)
        following = self.schedule.phase(self._step + 1)
        if phase == "active":
            self._active_steps.append(self._step)
        self._step += 1
        if phase != following:
            self._next_phase(phase, following)

    def _next_phase(self, phase: Phase, following: Phase) -> None:
        if phase == "active":
            self._stop()
        else:
            self._wait()  # so that a phase has its own steps' time and no other's
        if phase == "warmup":
            self._warmups.append((time.perf_counter() - self._phase_began) / self.schedule.warmup)
        self._phase_began = time.perf_counter()
        if following == "active":
            self._start()

    def _wait(self) -> None:
        with jax.profiler.TraceAnnotation(OWN_WAIT):
            jax.block_until_ready(self._result)

    def _start(self) -> None:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        jax.profiler.start_trace(str(self.folder), profiler_options=options)
        self._recording, self._phase_began = True, time.perf_counter()

    def _stop(self) -> None:
        self._wait()
        self._wall += time.perf_counter() - self._phase_began
        jax.profiler.stop_trace()
        self._recording = False
        trace = read_trace(self.folder)
        if self._trace is not None:
            events, waits = self._trace.events + trace.events, self._trace.host_waits + trace.host_waits
            trace = Trace(events, waits, trace.devices)
        self._trace = trace

    @property
    def result(self) -> Profile:
        """What was recorded.

        Raises:
          RuntimeError: the loop ended before a step was recorded.
        """
        if self._trace is None or not self._active_steps:
            needed = self.schedule.wait + self.schedule.warmup + 1
            raise RuntimeError(
                f"nothing was recorded: the loop made {self._step} steps and recording begins with the "
                f"{needed}th; call step() once a step, or give a shorter wait and warmup"
            )
        return Profile(
            trace=self._trace,
            programs=live_programs(),
            recorded=self._active_steps,
            wall=self._wall,
            warmup=float(np.mean(self._warmups)) if self._warmups else None,
            waiting=sum(self.waits.get(step, 0.0) for step in self._active_steps),
            compilations=self.compilations,
            explanations=self.explanations,
            padded=float(np.mean(self.padded)) if self.padded else 0.0,
            folder=self.folder,
        )


@contextlib.contextmanager
def profile(schedule: Schedule | None = None, folder: str | Path | None = None) -> Iterator[Recorder]:
    """Records some steps of a loop, as ``torch.profiler.profile`` does.

    Outside of the steps that the schedule names nothing is recorded, nor waited for. After the ``with``
    block, ``recorder.result`` has tables, pictures and advice.

    Args:
      schedule: Default: ``Schedule()``: one step to compile, three to warm up, five recorded.
      folder: where XLA's recordings are kept, for TensorBoard and Perfetto. Default: a temporary one.

    Example:
      >>> import jax.numpy as jnp
      >>> @jax.jit
      ... def step(w):
      ...     with jax.named_scope("layer"):
      ...         return jnp.tanh(w @ w)
      >>> w = jnp.ones((128, 128))
      >>> with profile(Schedule(wait=1, warmup=1, active=2)) as recorder:
      ...     for _ in recorder.watch(range(5)):
      ...         w = step(w)
      ...         recorder.step(w)
      >>> rows = recorder.result.rows("scope")
      >>> rows[0].name, rows[0].calls >= 2
      ('layer', True)
    """
    recorder = Recorder(schedule or Schedule(), Path(folder or tempfile.mkdtemp(prefix="profile-")))
    with _watching_compilations(recorder):
        if recorder.schedule.phase(0) == "active":
            recorder._start()
        try:
            yield recorder
        finally:
            if recorder._recording:
                recorder._stop()


@contextlib.contextmanager
def _watching_compilations(recorder: Recorder) -> Iterator[None]:
    def compiled(event: str, duration_secs: float, **about: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            name = str(about.get("fun_name", "?"))
            recorder.compilations.append(Compilation(recorder._step, name, duration_secs))

    class Explain(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if "CACHE MISS" in text and recorder._step > 0:
                function = match[1] if (match := re.search(r"^  for (\S+)", text, re.MULTILINE)) else "?"
                recorder.explanations.setdefault(function, []).extend(re.findall(r"\* (at .*)", text))

    logger, handler, before = (
        logging.getLogger("jax"),
        Explain(),
        jax.config.values["jax_explain_cache_misses"],
    )
    propagate = logger.propagate
    jax.monitoring.register_event_duration_secs_listener(compiled)
    logger.addHandler(handler)
    logger.propagate = False  # explanations are collected here, not printed
    jax.config.update("jax_explain_cache_misses", True)
    try:
        yield
    finally:
        jax.config.update("jax_explain_cache_misses", before)
        logger.propagate = propagate
        logger.removeHandler(handler)
        jax.monitoring.unregister_event_duration_listener(compiled)
