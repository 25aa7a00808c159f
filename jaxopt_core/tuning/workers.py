"""Several processes at one study: signs of life, and the trials of those who died."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from jaxopt_core.tuning.storage import Patience, StorageError

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

__all__ = ["MOST_RETRIES", "Heart", "Watch", "worker_name"]

MOST_RETRIES = 3  # a configuration that kills whoever trains it must not kill them all
_MISSED = 3  # beats that a living worker never misses in a row


def worker_name() -> str:
    """Unique to this call; says on which machine and in which process."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


class Heart:
    """A thread that changes a number in the storage again and again, while the main thread trains.

    Args:
      study: whose attribute is changed.
      worker: its name.
      seconds: between two beats.
    """

    def __init__(self, study: optuna.Study, worker: str, seconds: float) -> None:
        self._study, self._worker, self._seconds = study, worker, seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="heartbeat")

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        # A storage that is away misses a beat: whoever watches cannot see it either.
        patience, beat = Patience(0.0, lambda _: None), 0
        while not self._stop.is_set():
            beat += 1
            value = [beat, self._seconds]
            with contextlib.suppress(StorageError):
                patience("beat", functools.partial(self._study.set_user_attr, f"beat {self._worker}", value))
            self._stop.wait(self._seconds)


class Watch:
    """Finds running trials whose worker is gone, and queues them again.

    A worker on this machine is gone when its process is. Any other is gone when its number has not changed
    for three of its beats by this process's own clock, so the clocks of machines need not agree.
    """

    def __init__(self, study: optuna.Study, worker: str, seconds: float, wait: Patience) -> None:
        self._study, self._worker, self._seconds, self._wait = study, worker, seconds, wait
        self._seen: dict[str, tuple[Any, float]] = {}

    def requeue(self) -> list[str]:
        """Does so; returns a line for each trial that was found."""
        from optuna.trial import TrialState

        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        beats = self._study.user_attrs
        lines = []
        for trial in running:
            owner = trial.user_attrs.get("worker")
            if owner == self._worker or not self._is_gone(owner, trial, beats):
                continue
            if self._take(trial):
                lines.append(f"trial {trial.number}: its worker {owner or '(unnamed)'} is gone")
        return lines

    def _is_gone(self, owner: str | None, trial: FrozenTrial, beats: dict[str, Any]) -> bool:
        if owner is not None and _was_killed_here(owner):
            return True
        key = owner or f"trial {trial.number}"
        beat, now = beats.get(f"beat {owner}", [0, self._seconds]), time.monotonic()
        if key not in self._seen or self._seen[key][0] != beat:
            self._seen[key] = beat, now
        return now - self._seen[key][1] > _MISSED * beat[1]

    def _take(self, trial: FrozenTrial) -> bool:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        try:  # of several watches only one succeeds
            self._study.tell(trial.number, state=TrialState.FAIL)
        except (UpdateFinishedTrialError, ValueError):
            return False
        retries = trial.user_attrs.get("retries", 0) + 1
        if retries <= MOST_RETRIES:
            attributes = {"retries": retries, "retry of": trial.number}
            # A wait of its own: whoever looks for running trials again does not find this one.
            self._wait(
                "requeue", lambda: self._study.enqueue_trial(dict(trial.params), user_attrs=attributes)
            )
        return True


def _was_killed_here(owner: str) -> bool:
    host, pid, _ = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
