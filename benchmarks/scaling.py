"""How training scales over devices: ``python -m benchmarks.scaling``.

Three tables. Steps of every strategy on 1, 2, 4 and 8 virtual devices of this machine, with the bytes that
each device sends, counted in the compiled program, and the ideal step for these bytes. Two processes over
Gloo against PyTorch's DistributedDataParallel on the same model. And a projection to accelerators that are
not here. On a CPU the virtual devices share the cores, so more of them cannot be faster: what counts is how
little is lost.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.projection import ASSUMED, project
from benchmarks.scaling_rank import RANKS

__all__ = ["main"]

ROOT = Path(__file__).parents[1]
PROJECTED = (8, 64, 512, 4096)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    args = _parse(arguments)
    most = max(args.devices)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(most))
    os.environ.setdefault("NPROC", str(max(os.cpu_count() or 1, 2 * most)))
    from benchmarks import machine, tables

    described = machine.describe(args.quick)
    print(f"{tables.machine_line(described)}\n", flush=True)
    rows = _strategies(args, described["copy_gb_per_s"] * 1e9)
    print(_strategy_table(rows), end="\n\n", flush=True)
    pair = {} if args.no_torch else _pair(args)
    if pair:
        print(_pair_table(pair), end="\n\n", flush=True)
    projected = _projected(rows, most)
    print(_projection_table(projected))
    print(f"\n{ASSUMED}")
    now = datetime.datetime.now().astimezone()
    record = {
        "benchmark": "scaling",
        "date": now.isoformat(timespec="seconds"),
        "machine": described,
        "settings": {key: getattr(args, key) for key in ("devices", "steps", "rounds", "quick")},
        "strategies": rows,
        "processes": pair,
        "projection": projected,
        "assumed": str(ASSUMED),
    }
    name = f"{now.date()}-{machine.slug(described)}-scaling{'-quick' if args.quick else ''}.json"
    path = args.out or ROOT / "benchmarks" / "results" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"\nwritten: {path.name}")
    return 0


def _strategies(args: argparse.Namespace, bandwidth: float) -> list[dict[str, Any]]:
    import jax

    import jaxopt_core as jo
    from benchmarks.scaling_problem import LR, arrays, jax_start, jax_step
    from jaxopt_core import parallel as p

    _, x, y = arrays(args.quick)
    ways: dict[str, Callable[[Any, Any], Any]] = {
        "replicate, jit": p.data_parallel,
        "replicate, shard_map": p.data_parallel_shard_map,
        "float16 hook, shard_map": p.data_parallel_shard_map,
        "zero1, jit": lambda step, mesh: p.data_parallel(step, mesh, p.zero1()),
        "zero2, shard_map": lambda step, mesh: p.data_parallel_shard_map(step, mesh, p.zero2()),
        "fsdp, jit": lambda step, mesh: p.data_parallel(step, mesh, p.fsdp()),
        "fsdp, shard_map": lambda step, mesh: p.data_parallel_shard_map(step, mesh, p.fsdp()),
    }
    rows, runs = [], []
    for name, way in ways.items():
        for count in args.devices:
            print(f"compiling: {name}, {count}", file=sys.stderr, flush=True)
            tx = p.synchronized(jo.adamw(LR), hook=p.fp16_compress() if "float16" in name else None)
            step = way(jax_step(tx), p.mesh(devices=jax.devices()[:count]))
            state = step.place(jax_start(tx, args.quick))
            found = p.collectives(step.lower(state, {"x": x, "y": y}).compile())
            size = sum(leaf.nbytes for leaf in jax.tree.leaves(state["params"]))
            volumes: dict[str, float] = {}
            for each in found:
                volumes[each.op] = volumes.get(each.op, 0.0) + each.times * each.bytes / size
            rows.append(
                {
                    "strategy": name,
                    "devices": count,
                    "collectives": _counts(found),
                    "sent_bytes": p.traffic(found),
                    "volumes": volumes,
                    "arrays": len(state["params"]),
                    "state_bytes": max(p.bytes_per_device(state).values()),
                    "times": [],
                }
            )
            runs.append((step, state))
    for _ in range(args.rounds):
        for row, (step, state) in zip(rows, runs, strict=True):
            row["times"].append(_time(step, state, {"x": x, "y": y}, args.steps))
    alone = {row["strategy"]: 0.0 for row in rows}
    for row in rows:
        row["step_ms"] = statistics.median(row.pop("times")) * 1e3
        if row["devices"] == 1:
            alone[row["strategy"]] = row["step_ms"]
    for row in rows:
        # The cores do the same work for any number of devices; each device's bytes pass through one memory.
        copied = 2 * row["sent_bytes"] * row["devices"] / bandwidth * 1e3
        row["ideal_ms"] = alone[row["strategy"]] + copied if alone[row["strategy"]] else None
    return rows


def _counts(found: Sequence[Any]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for each in found:
        counts[each.op] = counts.get(each.op, 0) + each.times
    return counts


def _time(step: Any, state: Any, batch: Any, steps: int) -> float:
    import jax

    times = []
    for i in range(steps + 2):
        begin = time.perf_counter()
        jax.block_until_ready(step(state, batch))
        if i >= 2:
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _pair(args: argparse.Namespace) -> dict[str, Any]:
    """Both kinds of two processes, in turns."""
    times: dict[str, list[float]] = {"torch": [], "jax": []}
    losses: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        for kind, medians in times.items():
            print(f"two processes: {kind}", file=sys.stderr, flush=True)
            result = _ranks(kind, args)
            medians.append(statistics.median(result["times"]))
            losses[kind] = result["losses"]
    apart = max(abs(a - b) / abs(b) for a, b in zip(losses["jax"], losses["torch"], strict=True))
    if apart > 1e-4:
        raise SystemExit(f"The first losses are {apart:.1e} apart: {losses}. The times mean nothing.")
    ms = {kind: statistics.median(medians) * 1e3 for kind, medians in times.items()}
    return {"torch_ms": ms["torch"], "jax_ms": ms["jax"], "loss_deviation": apart}


def _ranks(kind: str, args: argparse.Namespace) -> dict[str, Any]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.scaling_rank", kind]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(port), str(args.steps), str(args.quick)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(RANKS)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        raise SystemExit("\n".join(errors[-2000:] for _, errors in outputs))
    result: dict[str, Any] = json.loads(outputs[0][0].splitlines()[-1])
    return result


def _projected(rows: list[dict[str, Any]], counted: int) -> list[dict[str, Any]]:
    results = []
    for row in rows:
        if row["devices"] != counted or counted == 1 or "jit" in row["strategy"]:
            continue
        counts = row["collectives"]
        per_array = sum(n for op, n in counts.items() if op != "all-reduce") / row["arrays"]
        number = counts.get("all-reduce", 0) + round(per_array * ASSUMED.arrays)
        results += [
            {"strategy": row["strategy"], **each.as_dict()}
            for each in project(row["volumes"], number, PROJECTED)
        ]
    return results


def _strategy_table(rows: list[dict[str, Any]]) -> str:
    from benchmarks.tables import markdown

    lines = []
    for row in rows:
        short = {"all-reduce": "AR", "all-gather": "AG", "reduce-scatter": "RS"}
        counts = ", ".join(f"{n} {short.get(op, op)}" for op, n in row["collectives"].items()) or "none"
        ideal = row["ideal_ms"]
        lines.append(
            [
                row["strategy"], counts, str(row["devices"]), f"{row['state_bytes'] / 1e6:.2f}",
                f"{row['sent_bytes'] / 1e6:.2f}", f"{row['step_ms']:.2f}",
                f"{ideal:.2f}" if ideal else "", f"{row['step_ms'] / ideal:.2f}" if ideal else "",
            ]
        )  # fmt: skip
    headers = ["strategy", "collectives", "devices", "state MB", "sent MB", "step ms", "ideal ms", "/ ideal"]
    return markdown(headers, lines, text=2)


def _pair_table(pair: dict[str, Any]) -> str:
    from benchmarks.tables import markdown

    ratio = pair["jax_ms"] / pair["torch_ms"]
    line = [f"{pair['torch_ms']:.2f}", f"{pair['jax_ms']:.2f}", f"{ratio:.2f}"]
    return markdown(["two processes, Gloo", "DDP ms", "ours ms", "ours / DDP"], [["AdamW, MLP", *line]])


def _projection_table(rows: list[dict[str, Any]]) -> str:
    from benchmarks.tables import markdown

    lines = [
        [
            row["strategy"], str(row["devices"]), f"{row['compute_ms']:.0f}", f"{row['wire_ms']:.0f}",
            f"{row['latency_ms']:.2f}", f"{row['efficiency']:.0%}", f"{row['overlapped']:.0%}",
        ]
        for row in rows
    ]  # fmt: skip
    headers = ["projected", "devices", "compute ms", "wire ms", "latency ms", "no overlap", "all hidden"]
    return markdown(headers, lines)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8], help="default 1 2 4 8")
    parser.add_argument("--steps", type=int, help="timed steps in a turn; default 20, quick 3")
    parser.add_argument("--rounds", type=int, help="turns of everything; default 3, quick 1")
    parser.add_argument("--quick", action="store_true", help="a small model, to see that it works")
    parser.add_argument("--no-torch", action="store_true", help="leave the two processes out")
    parser.add_argument("--out", type=Path, help="where to write the JSON; default benchmarks/results/")
    args = parser.parse_args(arguments)
    args.steps = args.steps or (3 if args.quick else 20)
    args.rounds = args.rounds or (1 if args.quick else 3)
    return args


if __name__ == "__main__":
    sys.exit(main())
