"""The processes of one machine in one attempt: started, watched, and ended together."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from jaxopt_core.parallel.attempts import PREEMPTED, Attempt, Outcome
from jaxopt_core.parallel.processes import Launched

__all__ = ["Ranks", "cpu_environment"]


def cpu_environment(environ: Mapping[str, str], devices: int | None) -> dict[str, str]:
    """What to change in the environment so that ``devices`` virtual CPU devices cannot block each other.

    With fewer threads than collectives need, many steps in flight wait for each other forever; XLA takes
    the number of threads from ``NPROC``.

    Example:
      >>> cpu_environment({"NPROC": "1"}, 64)
      {'NPROC': '128', 'JAX_NUM_CPU_DEVICES': '64'}
    """
    flag = "--xla_force_host_platform_device_count="
    flags = environ.get("XLA_FLAGS", "").split()
    counts = [int(each.removeprefix(flag)) for each in flags if each.startswith(flag)]
    given = int(environ.get("JAX_NUM_CPU_DEVICES") or 1)
    threads = max(os.cpu_count() or 1, 2 * (devices or max([given, *counts])), int(environ.get("NPROC") or 1))
    changed = {"NPROC": str(threads)}
    if devices is not None:
        changed["JAX_NUM_CPU_DEVICES"] = str(devices)
        if counts:  # JAX refuses both
            changed["XLA_FLAGS"] = " ".join(each for each in flags if not each.startswith(flag))
    return changed


class Ranks:
    """The processes of one attempt on this machine.

    Args:
      command: what each runs.
      environs: the environment of each.
      attempt: its number and ranks.
      logs: a folder; each rank appends to ``attempt-N/rank-R.log`` in it.
      reports: an empty folder, where ranks say how far they are.
      terminal: where all logs go, each line with its rank.
      stall_timeout: seconds that a rank may take from one step to the next; None: half an hour, once it
        reports; 0: for ever.
    """

    def __init__(
        self,
        command: Sequence[str],
        environs: Sequence[Mapping[str, str]],
        attempt: Attempt,
        logs: Path,
        reports: Path,
        terminal: TextIO,
        stall_timeout: float | None,
    ) -> None:
        self.first, self.reports, self.terminal, self.stall_timeout = (
            attempt.first_rank,
            reports,
            terminal,
            stall_timeout,
        )
        folder = logs / f"attempt-{attempt.number}"
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = [folder / f"rank-{self.first + local}.log" for local in range(len(environs))]
        self._shown = [path.stat().st_size if path.exists() else 0 for path in self.paths]
        self.processes: list[subprocess.Popen[bytes]] = []
        self.steps, self._moved = [-1] * len(environs), [time.monotonic()] * len(environs)
        try:
            for path, environ in zip(self.paths, environs, strict=True):
                with path.open("ab") as log:
                    # A session of its own: Ctrl-C reaches the launcher alone, and what the rank starts ends
                    # with it.
                    process = subprocess.Popen(
                        command,
                        env=dict(environ),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                self.processes.append(process)
        except BaseException:
            self.kill()
            raise

    def poll(self) -> Outcome | None:
        """How the attempt ended here, or None while it runs well."""
        codes = [process.poll() for process in self.processes]
        self._look_at_steps()
        bad = [local for local, code in enumerate(codes) if code not in (None, 0, PREEMPTED)]
        if bad:
            return self._blame(bad, codes)
        if all(code is not None for code in codes):
            return Outcome("preempted" if PREEMPTED in codes else "done", steps=max(self.steps))
        return self._stalled(codes)

    def show(self, final: bool = False) -> None:
        """Copies what is new in the logs to the terminal, whole lines only until the end."""
        for local, path in enumerate(self.paths):
            with path.open("rb") as log:
                log.seek(self._shown[local])
                new = log.read()
            whole = len(new) if final else new.rfind(b"\n") + 1
            self._shown[local] += whole
            for line in new[:whole].decode(errors="replace").splitlines():
                if line.startswith("[Gloo] Rank"):  # three lines a rank that say it is connected
                    continue
                self.terminal.write(f"[rank {self.first + local}] {line}\n")
        self.terminal.flush()

    def signal(self, number: int) -> None:
        """Sends a signal to every rank that runs."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)

    def kill(self) -> None:
        """Ends all that the ranks started, at once. Orbax leaves no half checkpoints."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()

    def _look_at_steps(self) -> None:
        now = time.monotonic()
        for local in range(len(self.processes)):
            with contextlib.suppress(OSError, ValueError):
                step = int((self.reports / f"{self.first + local}.step").read_bytes())
                if step != self.steps[local]:
                    self.steps[local], self._moved[local] = step, now

    def _blame(self, bad: list[int], codes: Sequence[int | None]) -> Outcome:
        # The others fail because of the first, which was killed or wrote the earliest traceback.
        errors = {local: self._error(local) for local in range(len(codes))}
        failed = [local for local, error in errors.items() if local in bad or error]
        first = min(
            failed, key=lambda local: (codes[local] != -signal.SIGKILL, errors[local].get("time", 0.0))
        )
        code, error = codes[first], errors[first]
        how = f"ended with status {code}"
        if code is not None and code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        if "line" in error:
            how = f"failed: {error['line']}"
        return Outcome(
            "failed",
            f"rank {self.first + first} {how} (after step {self.steps[first]})".replace(
                " (after step -1)", ""
            ),
            error.get("traceback") or self._tail(first),
            max(self.steps),
        )

    def _stalled(self, codes: Sequence[int | None]) -> Outcome | None:
        limit = self.stall_timeout
        if limit == 0:
            return None
        now = time.monotonic()
        running = [local for local, code in enumerate(codes) if code is None]
        if limit is None:  # a script need not report
            limit, running = 1800.0, [local for local in running if self.steps[local] >= 0]
        stuck = [local for local in running if now - self._moved[local] > limit]
        if not stuck:
            return None
        behind = min(stuck, key=lambda local: self.steps[local])
        where = f"since step {self.steps[behind]}" if self.steps[behind] >= 0 else "since its start"
        state = self._state(behind)
        why = f"rank {self.first + behind} made no step for {limit:g} s {where}{state}"
        if self.steps[behind] < 0:
            why += "; a script must call parallel.reached(step), or be launched with --stall-timeout 0"
        return Outcome("failed", why, self._stacks(stuck), max(self.steps))

    def _stacks(self, stuck: list[int]) -> str:
        """Has the stuck ranks write the stacks of their threads into their logs."""
        before = {local: self.paths[local].stat().st_size for local in stuck}
        for local in stuck:
            if (self.reports / f"{self.first + local}.dumps").exists():  # others would die of the signal
                self.processes[local].send_signal(signal.SIGUSR1)
        time.sleep(0.5)
        stacks = []
        for local in stuck:
            with self.paths[local].open("rb") as log:
                log.seek(before[local])
                text = log.read().decode(errors="replace").strip()
            stacks.append(f"stacks of rank {self.first + local}: {text or 'none, it does not answer'}")
        return "\n".join(stacks)

    def _state(self, local: int) -> str:
        with contextlib.suppress(OSError, IndexError):
            letter = Path(f"/proc/{self.processes[local].pid}/stat").read_text().rpartition(")")[2].split()[0]
            return {"T": " (it is stopped: SIGSTOP)", "D": " (it waits for a disk)"}.get(letter, "")
        return ""

    def _error(self, local: int) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            error: dict[str, Any] = json.loads((self.reports / f"{self.first + local}.error").read_text())
            return error
        return {}

    def _tail(self, local: int) -> str:
        return "\n".join(self.paths[local].read_text(errors="replace").splitlines()[-20:])


def python_command(target: Sequence[str]) -> list[str]:
    """The command for ``script.py args`` or ``-m module args``."""
    return [sys.executable, "-u", *target]


def told(attempt: Attempt, local: int, reports: Path, timeout: float) -> Launched:
    """What a rank is told."""
    return Launched(
        rank=attempt.first_rank + local,
        world=attempt.world,
        local_rank=local,
        attempt=attempt.number,
        coordinator=attempt.coordinator,
        reports=str(reports),
        timeout=timeout,
        parent=os.getpid(),
    )
