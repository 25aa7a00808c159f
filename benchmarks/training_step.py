"""How long a whole training step takes: PyTorch, PyTorch compiled, Flax with Optax, and ours, in one run.

A step is forward, backward and SGD with momentum 0.9 on one batch that stays on the device, in float32. All
contenders start from PyTorch's weights, which ``jaxopt_core.interop`` carries over, and must have its
losses in the first three steps. Each has a process of its own; they take turns as ``benchmarks/README.md``
describes it.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import interleave, summary, turn
from benchmarks.training_workloads import WORKLOADS
from benchmarks.workers import Worker, available_cores, limit_threads, require_torch

__all__ = ["CONTENDERS", "main"]

CHECKED_STEPS = 3


def _torch(name: str, quick: bool, threads: int, *, compiled: bool = False) -> Any:
    from benchmarks.training_with_torch import TorchTraining

    return TorchTraining(WORKLOADS[name], quick, threads, compiled=compiled)


def _jax(kind: str, name: str, quick: bool, threads: int, **options: Any) -> Any:
    from benchmarks import training_with_jax
    from benchmarks.training_with_torch import starting_state

    del threads
    state = starting_state(WORKLOADS[name], quick)
    return getattr(training_with_jax, kind)(WORKLOADS[name], quick, state, **options)


# Name -> (workload, quick, threads) -> what steps.
CONTENDERS: dict[str, Callable[[str, bool, int], Any]] = {
    "torch": _torch,
    "torch compiled": functools.partial(_torch, compiled=True),
    "flax + optax": functools.partial(_jax, "FlaxTraining"),
    "ours": functools.partial(_jax, "OurTraining"),
    "ours, scan of 20": functools.partial(_jax, "OurTraining", scanned=20),
    "ours, setup_cpu": functools.partial(_jax, "OurTraining"),
    "ours, setup_cpu, scan of 20": functools.partial(_jax, "OurTraining", scanned=20),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison; returns the exit status."""
    args = _parse(arguments)
    limit_threads(args.threads)
    from benchmarks import machine, tables

    described = machine.describe(args.quick)
    print(f"{tables.machine_line(described)}\n", flush=True)
    results = [row for name in args.workloads for row in _measure(name, args)]
    print(_table(results), end="\n\n")
    now = datetime.datetime.now().astimezone()
    record = {
        "benchmark": "training_step",
        "date": now.isoformat(timespec="seconds"),
        "machine": described,
        "settings": {name: getattr(args, name) for name in ("rounds", "seconds", "threads", "quick")},
        "results": results,
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(record, indent=1) + "\n")
    wrong = [row for row in results if not row["loss_deviation"] <= args.tolerance]
    for row in wrong:
        print(
            f"{row['contender']}: its first losses on {row['workload']} are {row['loss_deviation']:.1e} off; "
            f"expected at most {args.tolerance:.0e}. Its times mean nothing.",
            file=sys.stderr,
        )
    return 1 if wrong else 0


def _measure(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """All contenders on one workload."""
    chosen = [c for c in args.contenders if "scan" not in c or WORKLOADS[name].scan]
    runs: dict[str, Worker] = {}
    rows: dict[str, dict[str, Any]] = {}
    for contender in chosen:
        print(f"{name}: {contender}", file=sys.stderr, flush=True)
        prepare = _set_up if "setup_cpu" in contender else _plain
        runs[contender] = Worker(contender, args.threads, prepare, _Stage)
        rows[contender] = {
            "workload": name,
            "contender": contender,
            "peer": not contender.startswith("ours"),
            **runs[contender]("start", contender, name, args.quick, args.threads),
        }
    reference = rows[chosen[0]]["losses"]
    for row in rows.values():
        pairs = zip(row["losses"], reference, strict=True)
        row["loss_deviation"] = max(abs(a - b) / abs(b) for a, b in pairs)
    turns = {c: functools.partial(runs[c], "turn", args.seconds) for c in chosen}
    for contender, medians in interleave(turns, args.rounds).items():
        rows[contender] |= summary(medians)
        runs[contender].close()
    best = min((row for row in rows.values() if row["peer"]), key=lambda row: row["step_ms"], default=None)
    for row in rows.values():
        row["best_peer"] = best and best["contender"]
        row["ratio_to_best_peer"] = best and row["step_ms"] / best["step_ms"]
    return list(rows.values())


def _plain() -> None:
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # the first step compiles, as JAX's does


def _set_up() -> None:
    import jaxopt_core as jo

    jo.setup_cpu(one_pass=False)  # what is timed is the network, much more than its optimizer


class _Stage:
    """What the process of a contender can be told."""

    def start(self, contender: str, name: str, quick: bool, threads: int) -> dict[str, Any]:
        """Takes the first steps; their losses, the first one's seconds, what the process grew by."""
        make = CONTENDERS[contender]
        _first_steps(make(name, True, threads))  # what a framework takes for itself
        before = _most_used_mib()
        self._run = make(name, quick, threads)
        losses, first_step_s = _first_steps(self._run)
        return {"first_step_s": first_step_s, "peak_mib": _most_used_mib() - before, "losses": losses}

    def turn(self, seconds: float) -> list[float]:
        """Seconds of each step."""
        return [each / self._run.steps_per_call for each in turn(self._run, seconds)]


def _first_steps(run: Any) -> tuple[list[float], float]:
    """The losses of a contender's first steps, and the seconds of the first, compiling included."""
    start = time.perf_counter()
    run.step()
    run.wait()
    first_step_s = time.perf_counter() - start
    losses = run.losses()
    while len(losses) < CHECKED_STEPS:
        run.step()
        losses += run.losses()
    return losses[:CHECKED_STEPS], first_step_s


def _most_used_mib() -> float:
    import jax

    if jax.default_backend() == "gpu":
        import torch

        theirs = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        ours = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
        return (theirs + ours) / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage's: a process takes over what its parent used, before it becomes another program.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**20 if sys.platform == "darwin" else used / 2**10


def _table(results: list[dict[str, Any]]) -> str:
    from benchmarks.tables import markdown

    headers = ["network", "contender", "step ms", "quartiles", "first step s", "peak MiB", "to best peer"]
    lines = []
    for row in results:
        low, high = row["quartiles_ms"]
        lines.append(
            [
                WORKLOADS[row["workload"]].title,
                row["contender"],
                f"{row['step_ms']:.3g}",
                f"{low:.3g} to {high:.3g}",
                f"{row['first_step_s']:.1f}",
                f"{row['peak_mib']:.0f}",
                "" if row["ratio_to_best_peer"] is None else f"{row['ratio_to_best_peer']:.2f}",
            ]
        )
    return markdown(headers, lines, text=2)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_step",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="NAME",
        help=", ".join(WORKLOADS))  # fmt: skip
    add("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME",
        help=f"the losses are compared with the first's; {'; '.join(CONTENDERS)}")  # fmt: skip
    add("--rounds", type=int, default=7, help="turns of each contender")
    add("--seconds", type=float, default=1.0, help="length of a turn; at least three times are taken")
    add("--threads", type=int, default=available_cores(), help="cores that both frameworks may use")
    add("--tolerance", type=float, default=1e-3, help="how far the first losses may be apart")
    add("--out", type=Path, help="where the record goes as JSON")
    add("--quick", action="store_true", help="tiny networks and one short round: does everything work?")
    args = parser.parse_args(arguments)
    if args.quick:
        args.rounds, args.seconds = 1, 0.005
    require_torch(parser)
    return args


if __name__ == "__main__":
    sys.exit(main())
