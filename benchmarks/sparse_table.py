"""A step of ``sparse_adam`` on a few rows of a large table, whatever the size of the table.

Times it against PyTorch's ``SparseAdam`` and against dense Adam, and reads from the compiled program
what touches the table. ``benchmarks/README.md`` says how to read the answer.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.harness import Run, interleave, summary, turn
from benchmarks.workers import available_cores, limit_threads, require_torch

__all__ = ["HARMLESS", "audit", "main"]

# These read or write the rows they are given, or pass the table on without touching it. Whatever is
# inside of a fusion, a loop or a call is looked at by itself.
HARMLESS = {
    "parameter", "tuple", "get-tuple-element", "bitcast", "gather", "scatter", "fusion", "while", "call",
    "dynamic-slice", "dynamic-update-slice",
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison; returns the exit status."""
    args = _parse(arguments)
    limit_threads(args.threads)

    from benchmarks.machine import describe, slug
    from benchmarks.sparse_runs import CONTENDERS, Batches

    machine = describe(args.quick)
    print(f"{tables.machine_line(machine)}\n", flush=True)
    results, programs = [], []
    for size in args.sizes:
        print(f"{size} rows", file=sys.stderr, flush=True)
        batches = Batches(size, args.dim, args.rows)
        runs: dict[str, Any] = {name: make(batches) for name, make in CONTENDERS.items()}
        deviation = _deviation(runs)
        burst = 10 if machine["backend"] == "gpu" else 1
        turns = {name: functools.partial(turn, run, args.seconds, burst) for name, run in runs.items()}
        for name, seconds in interleave(turns, args.rounds).items():
            results.append({"contender": name, "rows": size, **summary(seconds)})
        program = audit(runs["ours, sparse_adam"].compiled(), (size, args.dim))
        programs.append({"rows": size, "deviation": deviation, **program})
        del runs, turns
    print(_times(results, args), end="\n\n")
    print(_programs(programs), end="\n\n")
    now = datetime.datetime.now().astimezone()
    record = {
        "benchmark": "sparse_table",
        "date": now.isoformat(timespec="seconds"),
        "machine": machine,
        "settings": {n: getattr(args, n) for n in ("rows", "dim", "rounds", "seconds", "threads", "quick")},
        "results": results,
        "programs": programs,
    }
    name = f"{now.date()}-{slug(machine)}-sparse-table{'-quick' if args.quick else ''}.json"
    path = args.out or Path(__file__).parent / "results" / name
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written: {path.name}")
    return _verdict(programs)


def audit(compiled: Any, shape: tuple[int, int]) -> dict[str, Any]:
    """What a compiled step does with arrays of the table's shape, and how much memory it needs."""
    from benchmarks.hlo import operations_on

    memory = compiled.memory_analysis()
    operations = operations_on(compiled.as_text(), shape)
    return {
        "operations": dict(sorted(operations.items())),
        "whole_table": sorted(set(operations) - HARMLESS),
        "arguments_bytes": memory.argument_size_in_bytes,
        "aliased_bytes": memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "table_bytes": 4 * shape[0] * shape[1],
    }


def _deviation(runs: dict[str, Run]) -> float:
    """How far ours is from PyTorch's SparseAdam after three steps, in proportion to the learning rate."""
    for run in runs.values():
        for _ in range(3):
            run.step()
        run.wait()
    ours, theirs = (runs[name].samples()["table"] for name in ("ours, sparse_adam", "torch SparseAdam"))
    return float(abs(ours - theirs).max() / 1e-3)


def _times(results: list[dict[str, Any]], args: argparse.Namespace) -> str:
    names = list(dict.fromkeys(row["contender"] for row in results))
    ms = {(row["contender"], row["rows"]): f"{row['step_ms']:.3f}" for row in results}
    headers = [f"table of rows x {args.dim}, {args.rows} looked up", *(f"{name}, ms" for name in names)]
    return tables.markdown(headers, [[f"{n:,}", *(ms[name, n] for name in names)] for n in args.sizes])


def _programs(programs: list[dict[str, Any]]) -> str:
    headers = ["rows", "operations on the whole shape", "three tables, MB", "updated in place", "temporary"]
    lines = [
        [
            f"{program['rows']:,}",
            ", ".join(f"{count} {name}" for name, count in program["operations"].items()),
            *(
                f"{number / 1e6:.1f}"
                for number in (
                    3 * program["table_bytes"],
                    program["aliased_bytes"],
                    program["temporary_bytes"],
                )
            ),
        ]
        for program in programs
    ]
    return tables.markdown(headers, lines, text=2)


def _verdict(programs: list[dict[str, Any]]) -> int:
    problems = [
        f"{program['rows']} rows: {', '.join(program['whole_table'])} may read or write the whole table"
        for program in programs
        if program["whole_table"]
    ]
    problems += [
        f"{program['rows']} rows: only {program['aliased_bytes']} bytes are updated in place"
        for program in programs
        if program["aliased_bytes"] < 3 * program["table_bytes"]
    ]
    problems += [
        f"{program['rows']} rows: ours is {program['deviation']:.1e} learning rates away from SparseAdam"
        for program in programs
        if program["deviation"] > 1e-2
    ]
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print("No operation reads or writes a whole table: gathers and scatters of the rows, in place.")
    return 1 if problems else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sparse_table",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--sizes", nargs="+", type=int, default=[10_000, 100_000, 1_000_000], help="rows of the tables")
    add("--rows", type=int, default=1024, help="rows looked up in a step, some of them twice")
    add("--dim", type=int, default=64, help="length of a row")
    add("--rounds", type=int, default=9, help="turns of each contender")
    add("--seconds", type=float, default=0.25, help="length of a turn; at least three times are taken")
    add("--threads", type=int, default=available_cores(), help="cores that both frameworks may use")
    add("--out", type=Path, help="where the JSON goes; beside the other results if not given")
    add("--quick", action="store_true", help="tiny tables and short turns, to see that everything works")
    args = parser.parse_args(arguments)
    require_torch(parser)
    if args.quick:
        args.sizes, args.rows, args.rounds, args.seconds = [200, 2000], 16, 1, 0.005
    return args


if __name__ == "__main__":
    sys.exit(main())
