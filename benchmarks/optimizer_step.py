"""How long one optimizer step takes: PyTorch, PyTorch fused, Optax and ours, in one run.

``benchmarks/README.md`` says what is compared, how it is timed, and what to beware of.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import tables
from benchmarks.contenders import CONTENDERS, DEFAULT, OPTIMIZERS
from benchmarks.harness import interleave, summary
from benchmarks.machine import slug
from benchmarks.parameter_sets import SETS, ParameterSet, parameter_set, sample, value
from benchmarks.workers import CHECKED_STEPS, Worker, available_cores, describe, require_torch, start

__all__ = ["deviations", "main"]

RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison; returns the exit status."""
    args = _parse(arguments)
    cases = [(optimizer, name) for optimizer in args.optimizers for name in args.sets]
    passes: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    machine = describe(args.threads, args.quick)
    print(f"{tables.machine_line(machine)}\n", flush=True)
    _warn_if_busy(machine)
    for number in range(args.processes):
        workers = start(args.contenders, args.threads)
        try:
            for optimizer, name in cases:
                progress = f"pass {number + 1} of {args.processes}: {OPTIMIZERS[optimizer]}, {name}"
                print(progress, file=sys.stderr, flush=True)
                for contender, row in _measure(workers, optimizer, name, args).items():
                    passes.setdefault((optimizer, name, contender), []).append(row)
        finally:
            for worker in workers.values():
                worker.close()
    results = _combine(passes, machine, args.quick)
    _print(results, args.optimizers)
    return _finish(results, machine, args)


def _measure(
    workers: dict[str, Worker], optimizer: str, name: str, args: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """One optimizer on one set, in processes that already run."""
    chosen = [c for c in args.contenders if optimizer not in CONTENDERS[c].lacks]
    rows = {c: workers[c]("make", c, optimizer, name, args.quick) for c in chosen}
    samples = {c: rows[c].pop("samples") for c in chosen}
    same = {c: samples[c] for c in chosen if optimizer not in CONTENDERS[c].differs}
    found = deviations(parameter_set(name, args.quick), same)
    turns = {c: functools.partial(workers[c], "turn", args.seconds, args.burst) for c in chosen}
    medians = interleave(turns, args.rounds)
    for c in chosen:
        workers[c]("clear")
    return {c: rows[c] | {"seconds": medians[c], "deviation": found.get(c)} for c in chosen}


def deviations(
    parameters: ParameterSet, samples: dict[str, dict[str, np.ndarray]]
) -> dict[str, dict[str, Any]]:
    """How far each contender is from the first one after the first steps.

    Args:
      parameters: what was stepped.
      samples: name -> path -> elements of the parameter after the steps; may be empty.

    Returns:
      Name -> ``of``, the first one's name, and ``ratio``: the difference less the rounding of the
      parameters themselves, in proportion to how far the first one came. The leaf that is furthest off
      counts. None where something is not finite.
    """
    if not samples:
        return {}
    of, reference = next(iter(samples.items()))
    worst = dict.fromkeys(samples, np.float64(0.0))
    for i, leaf in enumerate(parameters.leaves):
        before, after = sample(value(leaf, i, gradient=False)), reference[leaf.path]
        rounding = CHECKED_STEPS * np.finfo(np.float32).eps * np.abs(after).max()
        for name, of_name in samples.items():
            off = np.maximum(0.0, np.abs(of_name[leaf.path] - after).max() - rounding)
            worst[name] = np.maximum(worst[name], off / np.abs(after - before).max())
    return {
        name: {"of": of, "ratio": float(ratio) if np.isfinite(ratio) else None}
        for name, ratio in worst.items()
    }


def _combine(
    passes: dict[tuple[str, str, str], list[dict[str, Any]]], machine: dict[str, Any], quick: bool
) -> list[dict[str, Any]]:
    """The rows of the result out of the passes through all processes."""
    results = []
    for (optimizer, name, contender), rows in passes.items():
        parameters = parameter_set(name, quick)
        timing = summary([seconds for row in rows for seconds in row["seconds"]])
        state_bytes = rows[0]["state_bytes"]
        # Read parameters, gradients and state once, write parameters and state once, in float32.
        traffic = 3 * 4 * parameters.size + 2 * state_bytes
        rate = traffic / timing["step_ms"] * 1e3 / (machine["copy_gb_per_s"] * 1e9)
        results.append(
            {
                "optimizer": optimizer,
                "set": name,
                "parameters": parameters.size,
                "leaves": len(parameters.leaves),
                "contender": contender,
                "peer": CONTENDERS[contender].peer,
                **timing,
                "process_medians_ms": [statistics.median(row["seconds"]) * 1e3 for row in rows],
                "first_step_s": statistics.median(row["first_step_s"] for row in rows),
                "make_s": statistics.median(row["make_s"] for row in rows),
                "state_bytes": state_bytes,
                "traffic_bytes": traffic,
                "bandwidth_fraction": rate if machine["backend"] == "gpu" else None,
                "deviation": rows[0]["deviation"],
            }
        )
    for row in results:
        rivals = [r for r in results if r["peer"] and all(r[k] == row[k] for k in ("optimizer", "set"))]
        best = min(rivals, key=lambda rival: rival["step_ms"], default=None)
        row["best_peer"] = best and best["contender"]
        row["ratio_to_best_peer"] = best and row["step_ms"] / best["step_ms"]
    return results


def _warn_if_busy(machine: dict[str, Any]) -> None:
    load = machine["load_average"]
    if load is not None and load > 0.5 * machine["cores"]:
        print(
            f"The machine is busy (load average {load} on {machine['cores']} cores): absolute times mean "
            f"nothing, and ratios little, above all those of PyTorch's OpenMP threads.",
            file=sys.stderr,
        )


def _print(results: list[dict[str, Any]], optimizers: Sequence[str]) -> None:
    for optimizer in optimizers:
        print(f"{OPTIMIZERS[optimizer]}\n\n{tables.details(results, optimizer)}\n")
        for contender in dict.fromkeys(row["contender"] for row in results):
            if optimizer in CONTENDERS[contender].differs:
                print(f"{contender}: {CONTENDERS[contender].differs[optimizer]}\n")
    print(f"{tables.means(results)}\n")


def _finish(results: list[dict[str, Any]], machine: dict[str, Any], args: argparse.Namespace) -> int:
    """Writes the file, and says which contenders did not compute what the first one did."""
    now = datetime.datetime.now().astimezone()
    names = ("rounds", "processes", "seconds", "burst", "threads", "quick")
    record = {
        "benchmark": "optimizer_step",
        "date": now.isoformat(timespec="seconds"),
        "machine": machine,
        "settings": {name: getattr(args, name) for name in names},
        "results": results,
        "geometric_means": tables.ratios(results),
    }
    path = args.out or _unused(f"{now.date()}-{slug(machine)}{'-quick' if args.quick else ''}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written: {path.name}")
    wrong = [row for row in results if row["deviation"] and not _agrees(row["deviation"], args.tolerance)]
    for row in wrong:
        ratio = row["deviation"]["ratio"]
        print(
            f"{row['contender']}: {row['optimizer']} on {row['set']} does not compute what "
            f"{row['deviation']['of']} does. After {CHECKED_STEPS} steps they are "
            f"{'not finite' if ratio is None else f'{ratio:.1e} of the way apart'}; expected at most "
            f"{args.tolerance:.0e}. Its times mean nothing.",
            file=sys.stderr,
        )
    return 1 if wrong else 0


def _agrees(deviation: dict[str, Any], tolerance: float) -> bool:
    return deviation["ratio"] is not None and deviation["ratio"] <= tolerance


def _unused(name: str) -> Path:
    """A file among the results that does not exist yet."""
    paths = (RESULTS / f"{name}{f'-{i}' if i > 1 else ''}.json" for i in range(1, 1000))
    return next(path for path in paths if not path.exists())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.optimizer_step",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET", help=", ".join(SETS))
    add("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS), metavar="NAME",
        help=", ".join(OPTIMIZERS))  # fmt: skip
    add("--contenders", nargs="+", choices=CONTENDERS, default=list(DEFAULT), metavar="NAME",
        help=f"the numbers are compared with the first's; {'; '.join(CONTENDERS)}")  # fmt: skip
    add("--processes", type=int, default=3, help="passes, each in processes of its own")
    add("--rounds", type=int, default=5, help="turns of each contender in each pass")
    add("--seconds", type=float, default=0.25, help="length of a turn; at least three times are taken")
    add("--burst", type=int, default=10, help="most steps before waiting")
    add("--threads", type=int, default=available_cores(), help="cores that both frameworks may use")
    add(
        "--tolerance",
        type=float,
        default=1e-3,
        help="how far results may be apart, in proportion to the steps",
    )
    add("--out", type=Path, help="where the JSON goes; benchmarks/results/<date>-<machine>.json if not given")
    add("--quick", action="store_true", help="tiny sets and one short pass, to see that everything works")
    args = parser.parse_args(arguments)
    if args.quick:
        args.processes, args.rounds, args.seconds = 1, min(args.rounds, 2), min(args.seconds, 0.005)
    if any(name.startswith("torch") for name in args.contenders):
        require_torch(parser)
    return args


if __name__ == "__main__":
    sys.exit(main())
