"""What a launcher tries, how it ended, and what comes after that."""

from __future__ import annotations

import random
import socket
from typing import Literal, NamedTuple

__all__ = ["Attempt", "Finish", "Outcome", "Referee", "free_port"]

Kind = Literal["done", "failed", "preempted", "stopped", "interrupted"]
PREEMPTED = 143  # 128 + SIGTERM, as shells have it
INTERRUPTED = 130  # 128 + SIGINT
GOES_ON = "the same command goes on from the last checkpoint"


class Attempt(NamedTuple):
    """One start of all processes.

    Attributes:
      number: from 0.
      coordinator: ``host:port`` of JAX's coordination service, on a port that this attempt alone uses.
      first_rank: rank of this machine's first process.
      world: processes on all machines.
    """

    number: int
    coordinator: str
    first_rank: int
    world: int


class Outcome(NamedTuple):
    """How an attempt ended on one machine, or on all.

    Attributes:
      kind: ``"done"``; ``"failed"``; ``"preempted"``: left after SIGTERM; ``"stopped"``: because of another
        machine; ``"interrupted"``: by Ctrl-C.
      reason: one line, which names the rank.
      details: a traceback, or the last lines of the log.
      steps: the furthest step that a rank reported, or -1.
    """

    kind: Kind
    reason: str = ""
    details: str = ""
    steps: int = -1


class Finish(NamedTuple):
    """There is no further attempt.

    Attributes:
      status: exit status of the launcher.
      message: why, for standard error; empty when all went well.
    """

    status: int
    message: str = ""


class Referee:
    """Decides whether there is another attempt, and how long to wait before it.

    The wait doubles with every failure in a row that got no further than those before it, and is drawn
    from its upper half, so that many jobs which failed together do not come back together.

    Args:
      max_restarts: how many attempts may follow the first.
      backoff: seconds to wait after the first failure. Default 0.5.
      longest: seconds to wait at most. Default 60.

    Example:
      >>> referee = Referee(max_restarts=1)
      >>> 0.25 <= referee.after(Outcome("failed", "rank 1 ended")) <= 0.5
      True
      >>> referee.after(Outcome("failed", "rank 1 ended"))
      Finish(status=1, message='rank 1 ended; --max-restarts 1 is used up')
    """

    def __init__(self, max_restarts: int, backoff: float = 0.5, longest: float = 60.0) -> None:
        self.max_restarts, self.backoff, self.longest = max_restarts, backoff, longest
        self.restarts, self.furthest, self._in_vain = 0, -1, 0

    def after(self, outcome: Outcome) -> float | Finish:
        """Seconds until the next attempt, or the end."""
        if outcome.kind == "done":
            return Finish(0)
        if outcome.kind == "preempted":
            return Finish(PREEMPTED, outcome.reason or f"stopped by SIGTERM; {GOES_ON}")
        if outcome.kind == "interrupted":
            return Finish(INTERRUPTED, outcome.reason or "interrupted")
        if self.restarts == self.max_restarts:
            return Finish(1, f"{outcome.reason}; --max-restarts {self.max_restarts} is used up")
        self.restarts += 1
        if outcome.steps > self.furthest:
            self.furthest, self._in_vain = outcome.steps, 0
        wait: float = min(self.backoff * 2.0**self._in_vain, self.longest)
        self._in_vain += 1
        return wait * random.uniform(0.5, 1.0)


def free_port(host: str = "") -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        port: int = listener.getsockname()[1]
        return port
