"""All ranks meet before JAX connects them, because JAX's own errors there end the process without saying why.

With jax 0.10 on CPU, a coordinator that does not answer or a rank that does not come aborts the process, a
port in use is a segmentation fault, and ranks that disagree on their number are connected all the same.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any

from jaxopt_core.parallel.lines import LaunchError, Lines, connect, listen, split_address

__all__ = ["meet"]


def meet(coordinator: str, rank: int, count: int, agree_on: Any, timeout: float) -> None:
    """Returns once every rank is there and agrees; rank 0 listens where JAX's coordinator will be.

    Args:
      coordinator: ``host:port``.
      rank: of this process.
      count: how many there are.
      agree_on: what must be equal on all ranks; what JSON cannot hold is compared as text.
      timeout: seconds.

    Raises:
      LaunchError: on every rank that could be told, within the timeout; it names the rank that is missing or
        differs.
    """
    mine = {"rank": rank, "count": count, "agree_on": json.loads(json.dumps(agree_on, default=str))}
    if rank == 0:
        _host(coordinator, mine, timeout)
        return
    who = f"rank {rank} of {count}"
    line = connect(coordinator, who, timeout)
    try:
        line.send(mine)
        answer = line.receive_one(timeout + 5.0)  # rank 0 may have started to wait later than we
    except OSError as error:
        raise LaunchError(f"{who}: rank 0 at {coordinator} hung up ({error}): see its log") from None
    finally:
        line.close()
    if answer is None:
        raise LaunchError(f"{who}: rank 0 at {coordinator} says nothing within {timeout:g} s: see its log")
    if answer.get("error"):
        raise LaunchError(f"{who}: {answer['error']}")


def _host(coordinator: str, mine: dict[str, Any], timeout: float) -> None:
    count, deadline = mine["count"], time.monotonic() + timeout
    who = f"rank 0 of {count}"
    server = listen(split_address(coordinator)[1], who, "choose another, or end what holds it")
    there: dict[int, Lines] = {}
    lines: list[Lines] = []
    error = None
    with server:
        while len(there) < count - 1 and error is None:
            server.settimeout(max(deadline - time.monotonic(), 1e-3))
            try:
                lines.append(Lines(server.accept()[0]))
            except TimeoutError:
                missing = [rank for rank in range(1, count) if rank not in there]
                error = (
                    f"rank {_some(missing)} of {count} did not come within {timeout:g} s: see the log there"
                )
                break
            try:
                other = lines[-1].receive_one(min(5.0, timeout))
            except OSError:  # a port scanner, or a rank that ended, which is missing then
                other = None
            if other is None or not other.keys() >= mine.keys():
                lines.pop().close()
                continue
            error = _difference(mine, other, there)
            there[other["rank"]] = lines[-1]
    for line in lines:
        threading.Thread(target=_answer, args=(line, error), daemon=True).start()
    if error:
        time.sleep(0.2)  # for the answers
        raise LaunchError(f"{who}: {error}")


def _difference(mine: dict[str, Any], other: dict[str, Any], there: dict[int, Lines]) -> str | None:
    rank, count = other["rank"], other["count"]
    if count != mine["count"]:
        return (
            f"rank {rank} was started as one of {count}, rank 0 as one of {mine['count']}: "
            f"start all with the same number"
        )
    if rank in there or not 0 < rank < count:
        return f"rank {rank} came twice or is none of 1 to {count - 1}: give each process a rank of its own"
    if other["agree_on"] != mine["agree_on"]:
        return (
            f"rank {rank} runs with {json.dumps(other['agree_on'])}, "
            f"rank 0 with {json.dumps(mine['agree_on'])}: start all with the same arguments"
        )
    return None


def _answer(line: Lines, error: str | None) -> None:
    with contextlib.suppress(OSError):  # it is gone; whoever started it will say so
        line.send({"error": error})
    line.close()


def _some(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
