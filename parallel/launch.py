"""``jaxopt-core launch``: starts a training script on all processes, and again when one of them fails."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

from jaxopt_core.parallel.attempts import (
    GOES_ON,
    INTERRUPTED,
    PREEMPTED,
    Attempt,
    Finish,
    Outcome,
    Referee,
)
from jaxopt_core.parallel.lines import LaunchError, split_address
from jaxopt_core.parallel.nodes import Client, Judge, Local, Server
from jaxopt_core.parallel.ranks import Ranks, cpu_environment, python_command, told

__all__ = ["launch", "main"]

Options = argparse.Namespace


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
      argv: arguments after ``launch``. Default: those of the process.

    Returns:
      Exit status: 0; 1 when restarts are used up or nodes are missing; 2 for wrong arguments; 130 after
      Ctrl-C; 143 after SIGTERM. Everything but 0 comes with a line on standard error.
    """
    options = _parser().parse_args(argv)
    try:
        return launch(options)
    except LaunchError as error:
        _say(str(error))
        return 2


def launch(options: Options, environ: Mapping[str, str] | None = None) -> int:
    """Runs what parsed options say; must be called from the main thread.

    Args:
      options: of :func:`main`'s parser.
      environ: the environment of the ranks. Default: this process's.

    Raises:
      LaunchError: an argument cannot be used.
    """
    environ = os.environ if environ is None else environ
    _find_nodes(options, environ)
    _check(options)
    logs = Path(options.logs) / time.strftime("%Y%m%d-%H%M%S")
    server = None
    referee = Referee(options.max_restarts, options.backoff)
    judge: Judge = Local(options.nproc, referee)
    if options.nnodes > 1:
        facts = _facts(options)
        if options.node_rank == 0:
            server = Server(options.coordinator, facts, referee, options.timeout, options.node_timeout)
            server.start()
        judge = Client(options.coordinator, facts, options.node_rank, options.timeout, options.node_timeout)
    with _signals() as asked:
        finish = _attempts(options, environ, judge, logs, asked)
    if server is not None:
        if finish.status in (INTERRUPTED, PREEMPTED):
            server.leave(finish)
        server.join(10)
    if finish.message:
        _say(finish.message)
    return finish.status


def _attempts(
    options: Options, environ: Mapping[str, str], judge: Judge, logs: Path, asked: dict[str, int]
) -> Finish:
    try:
        while True:
            asked["waiting"] = True
            attempt = judge.next_attempt()
            asked["waiting"] = False
            if isinstance(attempt, Finish):
                return attempt
            if asked["sigterm"]:
                judge.ended(Outcome("preempted"))
                continue
            outcome = _run(options, environ, attempt, judge, logs, asked)
            if outcome.kind == "failed":
                where = logs / f"attempt-{attempt.number}"
                _say(f"attempt {attempt.number}: {outcome.reason}; logs in {where}")
                if outcome.details:
                    sys.stderr.write(outcome.details.rstrip() + "\n")
            elif outcome.kind == "stopped":
                _say(f"attempt {attempt.number}: {outcome.reason}")
            judge.ended(outcome)
    except _TerminatedError:
        return Finish(PREEMPTED, f"stopped by SIGTERM; {GOES_ON}")
    except KeyboardInterrupt:
        return Finish(INTERRUPTED, "interrupted")


def _run(
    options: Options,
    environ: Mapping[str, str],
    attempt: Attempt,
    judge: Judge,
    logs: Path,
    asked: dict[str, int],
) -> Outcome:
    """One attempt on this machine."""
    with tempfile.TemporaryDirectory(prefix="jaxopt-launch-") as reports:
        environs = []
        for local in range(options.nproc):
            rank = told(attempt, local, Path(reports), options.timeout)
            environs.append({**environ, **_devices(options, environ, local), **rank.environment()})
        ranks = Ranks(
            python_command(options.command),
            environs,
            attempt,
            logs,
            Path(reports),
            sys.stdout,
            options.stall_timeout,
        )
        terminated = None
        try:
            while True:
                outcome = ranks.poll()
                if outcome is not None:
                    break
                if asked["sigterm"] and terminated is None:
                    terminated = time.monotonic()
                    ranks.signal(signal.SIGTERM)
                if terminated is not None and time.monotonic() - terminated > options.grace:
                    late = f"the ranks did not leave within --grace {options.grace:g} s of SIGTERM"
                    outcome = Outcome("preempted", f"{late}; {GOES_ON}")
                    break
                if (why := judge.told_to_stop()) is not None:
                    outcome = Outcome("stopped", why, steps=max(ranks.steps))
                    break
                ranks.show()
                time.sleep(0.02)
        except KeyboardInterrupt:
            outcome = Outcome("interrupted")
        finally:
            ranks.kill()
            ranks.show(final=True)
        # What SIGTERM ended before the script listened to it is no failure.
        if terminated is not None and outcome.kind == "failed" and "SIGTERM" in outcome.reason:
            outcome = Outcome("preempted", steps=outcome.steps)
        return outcome


def _devices(options: Options, environ: Mapping[str, str], local: int) -> dict[str, str]:
    count = options.devices_per_proc
    if count is None and options.nproc > 1:
        count = 1
    changed = cpu_environment(environ, count)
    if count is not None and "JAX_LOCAL_DEVICE_IDS" not in environ:
        first = local * count
        changed["JAX_LOCAL_DEVICE_IDS"] = ",".join(str(first + each) for each in range(count))
    return changed


def _find_nodes(options: Options, environ: Mapping[str, str]) -> None:
    """Fills in what Slurm or Open MPI knows, where nothing was given."""
    if options.nnodes is not None or "SLURM_STEP_NODELIST" not in environ:
        options.nnodes = 1 if options.nnodes is None else options.nnodes
        return
    options.nnodes = _number(environ, "SLURM_STEP_NUM_NODES")
    if _number(environ, "SLURM_NTASKS") != options.nnodes:
        raise LaunchError(
            f"Slurm starts {environ['SLURM_NTASKS']} launchers on {options.nnodes} nodes: give srun "
            f"--ntasks-per-node=1, or run the script without the launcher"
        )
    options.node_rank = _number(environ, "SLURM_NODEID")
    if options.coordinator is None:
        # node[003-007,9],other -> node003. The port is beside those that JAX itself chooses from.
        first = re.match(r"([^,\[]+)(?:\[(\w+))?", environ["SLURM_STEP_NODELIST"])
        host = "".join(part or "" for part in first.groups()) if first else ""
        options.coordinator = f"{host}:{57344 + _number(environ, 'SLURM_JOB_ID') % 4096}"


def _number(environ: Mapping[str, str], name: str) -> int:
    if not environ.get(name, "").isdecimal():
        raise LaunchError(
            f"Slurm's {name}: expected a whole number, found {environ.get(name, 'nothing')}: start the "
            f"launcher with srun, or give --nnodes (1 for this machine alone)"
        )
    return int(environ[name])


def _check(options: Options) -> None:
    command = list(options.command) if options.module is None else ["-m", *options.module]
    if command[:1] == ["--"]:
        del command[0]
    if not command or (command[0] == "-m" and len(command) < 2):
        raise LaunchError("expected a script, or -m and a module, after the options")
    if command[0] != "-m" and not Path(command[0]).is_file():
        raise LaunchError(f"there is no script {command[0]!r} in {Path.cwd()}")
    options.command = command
    for name, least in {
        "nproc": 1,
        "nnodes": 1,
        "max_restarts": 0,
        "devices_per_proc": 1,
        "node_rank": 0,
    }.items():
        value = getattr(options, name)
        if value is not None and value < least:
            raise LaunchError(f"--{name.replace('_', '-')}: expected at least {least}, found {value}")
    for name in ("timeout", "node_timeout", "backoff", "grace", "stall_timeout"):
        value, positive = getattr(options, name), name.endswith("timeout") and name != "stall_timeout"
        if value is not None and not (math.isfinite(value) and (value > 0 if positive else value >= 0)):
            expected = "above 0" if positive else "of at least 0"
            raise LaunchError(f"--{name.replace('_', '-')}: expected seconds {expected}, found {value}")
    try:
        Path(options.logs).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LaunchError(f"--logs: expected a folder, found {options.logs} ({error.strerror})") from None
    if options.nnodes > 1:
        if options.coordinator is None or options.node_rank is None:
            raise LaunchError("--nnodes above 1 needs --node-rank R and --coordinator HOST:PORT of node 0")
        split_address(options.coordinator)
        if options.node_rank >= options.nnodes:
            raise LaunchError(f"--node-rank: expected 0 to {options.nnodes - 1}, found {options.node_rank}")


def _facts(options: Options) -> dict[str, Any]:
    return {
        "nnodes": options.nnodes,
        "nproc": options.nproc,
        "devices-per-proc": options.devices_per_proc,
        "command": list(options.command),
        "jax": version("jax"),
        "jaxopt-core": version("jaxopt-core"),
    }


@contextlib.contextmanager
def _signals() -> Iterator[dict[str, int]]:
    """Counts SIGTERMs; the second acts as Ctrl-C does. SIGHUP, of a closed terminal, is one too."""
    asked = {"sigterm": 0, "waiting": False}

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        asked["sigterm"] += 1
        if asked["sigterm"] > 1:
            raise KeyboardInterrupt
        if asked["waiting"]:  # and nothing runs that could save
            raise _TerminatedError

    heard = {signal.SIGTERM}
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        heard.add(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _TerminatedError(Exception):
    """SIGTERM came while no attempt was running."""


def _say(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"jaxopt-core launch: {text}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxopt-core launch",
        description="Starts a training script on all processes, and again when one of them fails.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--nproc", type=int, default=1, help="processes on this machine")
    add(
        "--devices-per-proc",
        type=int,
        help="devices of each; one where there are several processes, else all",
    )
    add("--nnodes", type=int, help="machines; Slurm's, else 1")
    add("--node-rank", type=int, help="number of this machine, from 0")
    add("--coordinator", metavar="HOST:PORT", help="where node 0 listens to the other launchers")
    add("--max-restarts", type=int, default=3, help="attempts after the first")
    add("--backoff", type=float, default=0.5, help="seconds before a restart; doubled while no step is made")
    add(
        "--stall-timeout",
        type=float,
        help="seconds that a step may take; 0: for ever; not given: 1800 between steps",
    )
    add("--timeout", type=float, default=300.0, help="seconds in which all nodes and ranks must have come")
    add("--node-timeout", type=float, default=10.0, help="seconds of silence after which a machine is lost")
    add("--grace", type=float, default=30.0, help="seconds for saving after SIGTERM")
    add("--logs", default="launch-logs", help="folder for the logs of each rank and attempt")
    add(
        "-m", dest="module", nargs=argparse.REMAINDER, metavar="module args...", help="a module, not a script"
    )
    add(
        "command",
        nargs=argparse.REMAINDER,
        metavar="script.py args...",
        help="the script",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
