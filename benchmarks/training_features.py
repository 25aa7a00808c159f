"""What clipping, loss scaling, averaging, accumulation and autocast cost.

    python -m benchmarks.training_features

Each is measured as a ratio to the same optimizer step without it, ours to ours and PyTorch's to PyTorch's,
with AdamW on gradients that are already there. Autocast is measured on a whole step of a small network.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import interleave, summary, turn
from benchmarks.parameter_sets import SETS, parameter_set
from benchmarks.workers import available_cores, limit_threads, require_torch

__all__ = ["FEATURES", "main"]

FEATURES = ("bare", "clip", "loss scale", "ema", "accumulate 4", "clip, loss scale, ema")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the tables and writes them as JSON; returns the exit status."""
    args = _parse(arguments)
    limit_threads(args.threads)
    import jaxopt_core as jo

    if args.setup_cpu:
        jo.setup_cpu()
    from benchmarks import machine, tables

    rows = [row for name in args.sets for row in _optimizer_steps(name, args)]
    rows += _network_steps(args)
    computer = machine.describe(args.quick)
    sys.stdout.write(f"\n{tables.machine_line(computer)}\n\n{_table(rows)}\n")
    if args.out is not None:
        record = {"machine": computer, "setup_cpu": args.setup_cpu, "rows": rows}
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        suffix = "-setup-cpu" if args.setup_cpu else ""
        path = args.out / f"{date}-features-{machine.slug(computer)}{suffix}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n")
        sys.stdout.write(f"\nwrote {path}\n")
    return 0


def _optimizer_steps(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    from benchmarks import features_with_jax, features_with_torch

    parameters = parameter_set(name, args.quick)
    rows = []
    for side, make in (("ours", features_with_jax.make), ("torch", features_with_torch.FeatureRun)):
        # One feature at a time beside the bare step, so that memory holds two of them.
        for feature in FEATURES[1:]:
            runs = {kind: make(kind, parameters) for kind in ("bare", feature)}
            rows.append(_measured(side, name, feature, runs, args))
            del runs
    return rows


def _network_steps(args: argparse.Namespace) -> list[dict[str, Any]]:
    from benchmarks import features_with_jax, features_with_torch

    rows = []
    for side, make in (("ours", features_with_jax.NetworkRun), ("torch", features_with_torch.NetworkRun)):
        for feature in ("autocast", "clip, loss scale, ema"):
            runs = {kind: make(kind, args.quick) for kind in ("bare", feature)}
            rows.append(_measured(side, "12 layers, whole step", feature, runs, args))
    return rows


def _measured(
    side: str, name: str, feature: str, runs: dict[str, Any], args: argparse.Namespace
) -> dict[str, Any]:
    turns: dict[str, Callable[[], list[float]]] = {
        kind: (lambda run=run: turn(run, args.seconds)) for kind, run in runs.items()
    }
    times = {kind: summary(seconds) for kind, seconds in interleave(turns, args.rounds).items()}
    ratio = times[feature]["step_ms"] / times["bare"]["step_ms"]
    extra = runs[feature].state_bytes - runs["bare"].state_bytes
    sys.stdout.write(
        f"{side}, {name}, {feature}: {times[feature]['step_ms']:.3f} ms, {ratio:.2f} of the bare step\n"
    )
    sys.stdout.flush()
    row = {"side": side, "set": name, "feature": feature, "ratio": ratio, "extra_state_bytes": extra}
    row["temporary_bytes"] = {kind: getattr(run, "temporary_bytes", None) for kind, run in runs.items()}
    return row | {"times": times}


def _table(rows: list[dict[str, Any]]) -> str:
    from benchmarks.tables import markdown

    lines = []
    for row in rows:
        if row["side"] != "ours":
            continue
        theirs = next(
            r for r in rows if (r["side"], r["set"], r["feature"]) == ("torch", row["set"], row["feature"])
        )
        temporary = row["temporary_bytes"]
        lines.append(
            [
                row["set"],
                row["feature"],
                f"{row['times']['bare']['step_ms']:.3g}",
                f"{row['times'][row['feature']]['step_ms']:.3g}",
                f"{row['ratio']:.2f}",
                f"{theirs['ratio']:.2f}",
                f"{row['extra_state_bytes'] / 1e6:.1f}",
                f"{temporary['bare'] / 1e6:.1f}",
                f"{temporary[row['feature']] / 1e6:.1f}",
            ]
        )
    headers = [
        "set",
        "with",
        "bare ms",
        "ms",
        "ratio",
        "torch's ratio",
        "state + MB",
        "temporary, bare MB",
        "MB",
    ]
    return markdown(headers, lines, text=2)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["mlp", "resnet50"], metavar="SET")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contender (default 7)")
    parser.add_argument("--seconds", type=float, default=0.25, help="of a turn (default 0.25)")
    parser.add_argument("--threads", type=int, default=available_cores(), help="cores for both frameworks")
    parser.add_argument("--setup-cpu", action="store_true", help="call jaxopt_core.setup_cpu() first")
    parser.add_argument("--quick", action="store_true", help="tiny sets: does everything work?")
    parser.add_argument("--out", type=Path, help="folder for the JSON record, such as benchmarks/results")
    require_torch(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
