"""Joining the other processes, from inside a training script."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, NoReturn

import jax

from jaxopt_core.parallel.attempts import PREEMPTED
from jaxopt_core.parallel.lines import LaunchError
from jaxopt_core.parallel.meeting import meet

__all__ = ["Launched", "initialize", "launched"]


class Launched(NamedTuple):
    """What the launcher told this process, in environment variables ``JAXOPT_*``.

    Attributes:
      rank: of this process, from 0.
      world: how many processes there are.
      local_rank: of this process among those on its machine.
      attempt: how often the processes were started before.
      coordinator: where JAX's coordination service will be.
      reports: a folder for what the launcher is told: steps and tracebacks.
      timeout: seconds in which all must have come.
      parent: process id of the launcher.
    """

    rank: int
    world: int
    local_rank: int
    attempt: int
    coordinator: str
    reports: str
    timeout: float
    parent: int

    def environment(self) -> dict[str, str]:
        """The variables that :func:`launched` reads."""
        return {f"JAXOPT_{name.upper()}": str(value) for name, value in self._asdict().items()}


def launched() -> Launched | None:
    """What the launcher said, or None in a process that ``jaxopt-core launch`` did not start."""
    if "JAXOPT_REPORTS" not in os.environ:
        return None
    kinds = {"coordinator": str, "reports": str, "timeout": float}
    names = Launched._fields
    return Launched(*[kinds.get(name, int)(os.environ[f"JAXOPT_{name.upper()}"]) for name in names])


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    agree_on: Any = None,
    timeout: float = 300.0,
) -> int:
    """Connects this process with the others, whoever started it; the first line of a training script.

    Started by ``jaxopt-core launch``, it takes what the launcher says. Under Slurm, Open MPI, Kubernetes
    and on a TPU pod ``jax.distributed.initialize`` finds out by itself. In a process that stands alone it
    does nothing, so that one script serves all. The counterpart of
    ``torch.distributed.init_process_group``.

    In every process that has others, an exception that nobody catches is printed and then ends the process
    at once: JAX would wait for the others first, which wait for this one. ``SIGUSR1`` prints the stacks of
    all threads. A launched process ends when its launcher ends.

    Args:
      coordinator: ``host:port`` of rank 0, for processes started in another way. Default: found out.
      num_processes: how many there are, with ``coordinator``.
      process_id: of this process, from 0, with ``coordinator``.
      agree_on: what must be equal on all ranks, such as the script's options; what JSON cannot hold is
        compared as text. Compared where the coordinator is known from the launcher or the arguments. The
        launcher compares the command line besides. Default None.
      timeout: seconds in which all must have come; the launcher's ``--timeout`` comes first. Default 300.

    Returns:
      The number of processes.

    Raises:
      LaunchError: a rank is missing, differs or cannot use its port; it names the rank and the remedy.

    Example:
      At the top of a training script, before anything is computed::

        from jaxopt_core import parallel

        parallel.initialize()  # 1 where the script runs alone
    """
    told = launched()
    if told is not None:
        coordinator, num_processes, process_id = told.coordinator, told.world, told.rank
        timeout = told.timeout
        _die_with(told.parent)
    elif coordinator is None and (alone := _detected(timeout)):
        return alone
    if coordinator is not None:
        if num_processes is None or process_id is None or not 0 <= process_id < num_processes:
            raise LaunchError(
                f"with a coordinator, initialize needs num_processes, and a process_id from 0 to one less; "
                f"got {num_processes} and {process_id}"
            )
        _end_at_exceptions(process_id, told)
        meet(coordinator, process_id, num_processes, agree_on, timeout)
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            cluster_detection_method="deactivate",  # it would choose devices by what it finds
            initialization_timeout=max(1, round(timeout)),
        )
    _end_at_exceptions(jax.process_index(), told)
    with contextlib.suppress(AttributeError, ValueError, OSError):  # no such signal, or no real stderr
        faulthandler.register(signal.SIGUSR1, all_threads=True)
        if told is not None:
            (Path(told.reports) / f"{told.rank}.dumps").touch()
    return jax.process_count()


def _detected(timeout: float) -> int:
    """Lets JAX look for a cluster; 1 if there is none, 0 if it is connected."""
    environ = os.environ
    if "OMPI_COMM_WORLD_SIZE" in environ and "OMPI_MCA_orte_hnp_uri" not in environ:
        return _open_mpi_5(timeout)
    try:
        jax.distributed.initialize(initialization_timeout=max(1, round(timeout)))
    except ValueError as error:
        if "coordinator_address should be defined" in str(error):
            return 1
        raise LaunchError(
            f"JAX_COORDINATOR_ADDRESS is set, but nothing says how many processes there are ({error}): "
            f"give initialize coordinator, num_processes and process_id"
        ) from None
    return 0


def _open_mpi_5(timeout: float) -> int:
    # JAX knows Open MPI 4 alone: version 5 no longer says where the first process is.
    count, rank = int(os.environ["OMPI_COMM_WORLD_SIZE"]), int(os.environ["OMPI_COMM_WORLD_RANK"])
    if count == 1:
        return 1
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address is None and os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == str(count):
        job = sum(os.environ.get("PMIX_NAMESPACE", "").encode())
        address = f"127.0.0.1:{61440 + job % 4096}"
    if address is None:
        raise LaunchError(
            f"rank {rank} of {count}: Open MPI 5 does not say where rank 0 is: set "
            f"JAX_COORDINATOR_ADDRESS, for example mpirun -x JAX_COORDINATOR_ADDRESS=$(hostname):1234 ..."
        )
    return initialize(address, count, rank, timeout=timeout)


def _end_at_exceptions(rank: int, told: Launched | None) -> None:
    def report(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        text = "".join(traceback.format_exception(kind, error, where))
        sys.stdout.flush()
        sys.stderr.write(text)
        sys.stderr.flush()
        if told is not None:
            line = traceback.format_exception_only(kind, error)[-1].strip()
            content = json.dumps({"time": time.time(), "line": line, "traceback": text})
            _write(Path(told.reports) / f"{rank}.error", content)
        os._exit(130 if issubclass(kind, KeyboardInterrupt) else 1)

    sys.excepthook = report
    _end_at_exits()


def _end_at_exits() -> None:
    """Has ``sys.exit(1)`` end the process, where Python would wait for threads that wait for others."""
    if hasattr(sys.exit, "codes"):
        return
    codes: list[Any] = []

    def noting(code: Any = None, /) -> NoReturn:
        codes.append(code)
        raise SystemExit(code)

    def end() -> None:
        if codes and codes[-1] not in (None, 0, PREEMPTED):
            is_message = not isinstance(codes[-1], int)
            if is_message:
                sys.stderr.write(f"{codes[-1]}\n")
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1 if is_message else codes[-1] & 0xFF)

    noting.codes = codes  # type: ignore[attr-defined]
    sys.exit = noting
    # What atexit calls comes after the wait for threads.
    getattr(threading, "_register_atexit", atexit.register)(end)


def _write(path: Path, content: str) -> None:
    """In one step, as the launcher may read at any time."""
    whole = path.with_suffix(path.suffix + ".part")
    whole.write_text(content)
    whole.rename(path)


def _die_with(parent: int) -> None:
    """Has the kernel end this process when the launcher ends, even by SIGKILL (Linux alone can)."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)
