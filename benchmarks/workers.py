"""Processes that hold the contenders and step them when told to.

What XLA reads only once, when its backend starts, can so differ between contenders that still take
turns in one run; and a large array's luck with its place in memory is drawn anew with every process.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.contenders import CONTENDERS, as_it_is
from benchmarks.harness import Run, turn
from benchmarks.parameter_sets import parameter_set

__all__ = [
    "CHECKED_STEPS",
    "Worker",
    "available_cores",
    "describe",
    "limit_threads",
    "require_torch",
    "start",
]

CHECKED_STEPS = 3


class Worker:
    """The parent's end of one process.

    Args:
      name: in messages.
      threads: cores that the process may use.
      prepare: called there before anything else, and before JAX starts.
      stage: makes the object there whose methods a call names.
    """

    def __init__(
        self, name: str, threads: int, prepare: Callable[[], None], stage: Callable[[], Any]
    ) -> None:
        context = multiprocessing.get_context("spawn")  # neither XLA nor OpenMP survives a fork
        self._name = name
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, threads, prepare, stage), daemon=True)
        self._process.start()
        theirs.close()

    def __call__(self, verb: str, *args: Any) -> Any:
        """Has the process do something, and returns what came of it.

        Raises:
          RuntimeError: it failed there, or the process is gone.
        """
        try:
            self._connection.send((verb, args))
            failure, result = self._connection.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError(
                f"The process {self._name!r} ended during {verb}{args}; if the system killed it, "
                f"memory ran out: choose fewer contenders or smaller sets."
            ) from None
        if failure:
            raise RuntimeError(f"{verb}{args} failed in process {self._name!r}:\n{failure}")
        return result

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join(timeout=20)
        if self._process.is_alive():
            self._process.terminate()


def start(contenders: Iterable[str], threads: int) -> dict[str, Worker]:
    """Starts a process for each contender.

    What is made first in a process steps up to a quarter faster than the same made later: two thousand
    leaves do.
    """
    return {name: Worker(name, threads, CONTENDERS[name].prepare, _Stage) for name in contenders}


def describe(threads: int, quick: bool) -> dict[str, Any]:
    """What :func:`benchmarks.machine.describe` says in a process that does nothing else."""
    worker = Worker("describe", threads, as_it_is, _Stage)
    try:
        return worker("describe", quick)
    finally:
        worker.close()


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_threads(threads: int) -> None:
    """Lets this process use so many cores only: both frameworks take their number of threads from that.

    Must come before either is imported.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # Two frameworks share the card, so JAX must not take three quarters of it at the start.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def require_torch(parser: argparse.ArgumentParser) -> None:
    """Ends the program with one line that names the extra, if PyTorch is not installed."""
    from jaxopt_core.extras import MissingExtraError, needs_extra

    try:
        with needs_extra("test"):
            if importlib.util.find_spec("torch") is None:
                raise ModuleNotFoundError(name="torch")
    except MissingExtraError as error:
        parser.exit(2, f"{error}\n")


class _Stage:
    """What a process can be told: one contender at a time."""

    _run: Run

    def describe(self, quick: bool) -> dict[str, Any]:
        from benchmarks.machine import describe

        return describe(quick)

    def make(self, contender: str, optimizer: str, parameters: str, quick: bool) -> dict[str, Any]:
        """Prepares the contender, and steps it a few times."""
        chosen = parameter_set(parameters, quick)
        start = time.perf_counter()
        self._run = CONTENDERS[contender].make(optimizer, chosen)
        made = time.perf_counter()
        self._run.step()
        self._run.wait()
        stepped = time.perf_counter()
        for _ in range(CHECKED_STEPS - 1):
            self._run.step()
        self._run.wait()
        return {
            "make_s": made - start,
            "first_step_s": stepped - made,
            "state_bytes": self._run.state_bytes,
            "samples": self._run.samples(),
        }

    def turn(self, seconds: float, burst: int) -> list[float]:
        return turn(self._run, seconds, burst)

    def clear(self) -> None:
        """Frees everything, so that the next set finds the memory and the caches empty."""
        del self._run
        gc.collect()
        if "jax" in sys.modules:
            sys.modules["jax"].clear_caches()
        if "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()


def _serve(
    connection: Connection, threads: int, prepare: Callable[[], None], make: Callable[[], Any]
) -> None:
    limit_threads(threads)
    prepare()
    stage = make()
    while True:
        try:
            verb, args = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        reply: tuple[str | None, Any]
        try:
            reply = (None, getattr(stage, verb)(*args))
        except Exception:  # noqa: BLE001 - whatever it is, the parent reports it
            reply = (traceback.format_exc(), None)
        connection.send(reply)
