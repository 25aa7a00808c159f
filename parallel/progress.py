"""What a rank tells its launcher at every step, and when all ranks are to stop."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

import jax
from jax.experimental import multihost_utils

from jaxopt_core.parallel.attempts import PREEMPTED
from jaxopt_core.parallel.processes import launched

__all__ = ["leave", "reached"]


class _Progress:
    file: int | None = None
    noticing = False
    asked = False


def reached(step: int) -> bool:
    """Says that a step is done; True when all ranks are to save this very step and :func:`leave`.

    Call it once a step, on every rank, with the same steps. The launcher's ``--stall-timeout`` counts from
    one call to the next. After SIGTERM to any one rank, or to the launcher, JAX's preemption service
    chooses a step that no rank has passed, and the call is True there, on all ranks. In a process that
    stands alone it is True at the first call after SIGTERM.

    The steps that it counts are those which Python has dispatched: JAX runs behind. A loop that never waits
    for a result should do so every few steps, or a stuck device is found late.

    Args:
      step: updates made so far.

    Example:
      >>> from jaxopt_core import parallel
      >>> parallel.reached(1)
      False
    """
    _report(step)
    if jax.distributed.is_initialized():
        return bool(multihost_utils.reached_preemption_sync_point(step))
    if not _Progress.noticing:
        _Progress.noticing = True
        signal.signal(signal.SIGTERM, _note)
    return _Progress.asked


def leave() -> NoReturn:
    """Ends this process in peace with the others, after :func:`reached` was True and the step is saved.

    Raises:
      SystemExit: with 143, which tells the launcher, Slurm and Kubernetes that SIGTERM was obeyed.
    """
    sys.stdout.flush()
    jax.distributed.shutdown()
    raise SystemExit(PREEMPTED)


def _report(step: int) -> None:
    told = launched() if _Progress.file is None else None
    if told is not None:
        path = Path(told.reports) / f"{told.rank}.step"
        _Progress.file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    if _Progress.file is not None:
        os.pwrite(_Progress.file, b"%20d" % step, 0)


def _note(number: int, frame: FrameType | None) -> None:
    del number, frame
    _Progress.asked = True
