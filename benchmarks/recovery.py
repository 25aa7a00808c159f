"""How long a group of two ranks takes to be back at work after one of them dies: our launcher and torchrun.

Both start the same script (``tests/parallel/training_script.py``: JAX, ZeRO-1, an asynchronous sharded
checkpoint every third step), and one rank of it is killed, or made to raise, at random moments. From that
moment it is measured when the last rank of the old group is gone, and when every rank of the new one has
made a step. Most of that is Python importing JAX and JAX compiling; ``first start`` has it alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.workers import require_torch

__all__ = ["main"]

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "parallel" / "training_script.py"
# Ours without the pause of half a second and more that it makes by default before a restart.
LAUNCHERS = {
    "jaxopt-core launch": ["jaxopt_core.parallel.launch", "--nproc", "2", "--backoff", "0.01"],
    "torchrun": ["torch.distributed.run", "--nproc-per-node", "2"],
}
KINDS = {"kill": signal.SIGKILL, "raise": signal.SIGUSR2}
RANKS = 2
ALIEN = ("NPROC", "XLA_FLAGS", "JAX_NUM_CPU_DEVICES")  # what the tests set for themselves
PATIENCE = 180.0  # seconds in which a group must be at work again


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison; returns the exit status."""
    args = _parse(arguments)
    from benchmarks import machine

    described = machine.describe(quick=True)
    print(f"{tables.machine_line(described)}\n", flush=True)
    results = []
    for launcher in LAUNCHERS:
        print(f"{launcher}: a start and {len(KINDS) * args.faults} faults", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            results += _measure(launcher, Path(folder), args.faults)
    print(_table(results), end="\n\n")
    record = {
        "benchmark": "recovery",
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": described,
        "settings": {"faults": args.faults, "ranks": RANKS},
        "results": results,
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def _measure(launcher: str, out: Path, faults: int) -> list[dict[str, Any]]:
    draw = random.Random(0)
    module, *options = LAUNCHERS[launcher]
    command = [sys.executable, "-m", module, *options, "--max-restarts", str(len(KINDS) * faults + 1)]
    command += ["--logs" if launcher != "torchrun" else "--log-dir", str(out / "logs")]
    script = [str(SCRIPT), "--out", str(out), "--steps", "1000000", "--every", "3", "--pause", "0.05"]
    environ = {name: value for name, value in os.environ.items() if name not in ALIEN}
    begun = time.monotonic()
    with (out / "printed").open("w") as log:
        process = subprocess.Popen(
            [*command, *script], cwd=ROOT, stdout=log, stderr=log, env=environ, start_new_session=True
        )
    try:
        ranks = _at_work(out, (), process)
        started = time.monotonic() - begun
        rows = []
        for kind, number in KINDS.items():
            gone, back = [], []
            for _ in range(faults):
                time.sleep(draw.uniform(0.2, 1.0))
                sent = time.monotonic()
                os.kill(draw.choice(ranks), number)
                while any(map(_is_alive, ranks)):
                    time.sleep(0.005)
                gone.append(time.monotonic() - sent)
                ranks = _at_work(out, ranks, process)
                back.append(time.monotonic() - sent)
            rows.append(
                {
                    "launcher": launcher,
                    "fault": kind,
                    "first_start_s": started,
                    "gone_s": gone,
                    "back_s": back,
                }
            )
        return rows
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _at_work(out: Path, old: Sequence[int], process: subprocess.Popen[bytes]) -> list[int]:
    """The ranks' process ids, once each has made a step since ``old``."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        files = [out / f"{rank}.pid" for rank in range(RANKS)]
        if all(file.exists() for file in files):
            new = [int(text) for file in files if (text := file.read_text())]
            if len(new) == RANKS and not set(new) & set(old):
                return new
        time.sleep(0.01)
    raise RuntimeError((out / "printed").read_text()[-4000:])


def _is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def _table(results: list[dict[str, Any]]) -> str:
    headers = ["launcher", "fault", "first start s", "old group gone s", "back at work s", "slowest s"]
    lines = [
        [
            row["launcher"],
            row["fault"],
            f"{row['first_start_s']:.1f}",
            f"{statistics.median(row['gone_s']):.2f}",
            f"{statistics.median(row['back_s']):.1f}",
            f"{max(row['back_s']):.1f}",
        ]
        for row in results
    ]
    return tables.markdown(headers, lines, text=2)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recovery",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--faults", type=int, default=5, help="of each kind, for each launcher")
    parser.add_argument("--out", type=Path, help="where the record goes as JSON")
    args = parser.parse_args(arguments)
    require_torch(parser)
    return args


if __name__ == "__main__":
    sys.exit(main())
