"""The tables of a result: ``python -m benchmarks.tables benchmarks/results/FILE.json``.

They are Markdown, so that what is printed can be pasted into a README.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import OPTIMIZERS
from benchmarks.harness import geometric_mean

__all__ = ["details", "machine_line", "markdown", "means", "overview", "ratios"]

_TITLES = {
    "mlp": "MLP",
    "resnet50": "ResNet-50",
    "gpt2": "GPT-2 small",
    "single": "one leaf",
    "many": "many small leaves",
}
Rows = list[dict[str, Any]]


def markdown(headers: Sequence[str], rows: Iterable[Sequence[str]], text: int = 1) -> str:
    """A table with aligned columns.

    Args:
      headers: of the columns.
      rows: their cells.
      text: how many columns, from the left, are text; the others are numbers.

    Example:
      >>> print(markdown(["set", "ms"], [["MLP", "0.05"]]))
      | set |   ms |
      | :-- | ---: |
      | MLP | 0.05 |
    """
    cells = [list(headers), *map(list, rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(headers))]
    rule = [":".ljust(w, "-") if i < text else ":".rjust(w, "-") for i, w in enumerate(widths)]
    lines = [
        [c.ljust(w) if i < text else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        for row in (cells[0], rule, *cells[1:])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def details(results: Rows, optimizer: str) -> str:
    """Everything that was measured with one optimizer, a line for each set and contender."""
    rows = [row for row in results if row["optimizer"] == optimizer]
    card = any(row["bandwidth_fraction"] is not None for row in rows)
    headers = ["parameters (leaves)", "contender", "step ms", "quartiles", "first step s", "state MB"]
    headers += [*(["of bandwidth"] if card else []), "to best peer"]
    lines, title = [], ""
    for row in rows:
        before, title = title, _title(row)
        low, high = row["quartiles_ms"]
        lines.append(
            [
                "" if title == before else title,
                row["contender"],
                _number(row["step_ms"]),
                f"{_number(low)}-{_number(high)}",
                f"{row['first_step_s']:.2f}",
                _number(row["state_bytes"] / 1e6),
                *([_number(row["bandwidth_fraction"])] if card else []),
                _number(row["ratio_to_best_peer"]),
            ]
        )
    return markdown(headers, lines, text=2)


def overview(results: Rows, optimizer: str) -> str:
    """Milliseconds a step: a line for each set, a column for each contender, with ours to the best peer."""
    rows = [row for row in results if row["optimizer"] == optimizer]
    contenders = list(dict.fromkeys(row["contender"] for row in rows))
    own = list(dict.fromkeys(row["contender"] for row in rows if not row["peer"]))
    lines = []
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set = {row["contender"]: row for row in rows if row["set"] == name}
        line = [_title(next(iter(of_set.values())))]
        line += [_number(of_set[c]["step_ms"]) if c in of_set else "" for c in contenders]
        line += [_number(of_set[c]["ratio_to_best_peer"]) if c in of_set else "" for c in own]
        lines.append(line)
    headers = ["parameters (leaves)", *contenders, *(f"{c} / best peer" for c in own)]
    return markdown(headers, lines)


def ratios(results: Rows) -> Rows:
    """Geometric means, over the sets, of how long ours takes in proportion to each peer."""
    found = []
    for optimizer in dict.fromkeys(row["optimizer"] for row in results):
        rows = [row for row in results if row["optimizer"] == optimizer]
        for own in dict.fromkeys(row["contender"] for row in rows if not row["peer"]):
            for peer in dict.fromkeys(row["contender"] for row in rows if row["peer"]):
                pairs = [
                    (a["step_ms"], b["step_ms"])
                    for a in rows
                    for b in rows
                    if a["contender"] == own and b["contender"] == peer and a["set"] == b["set"]
                ]
                mean = geometric_mean(a / b for a, b in pairs)
                found.append({"optimizer": optimizer, "contender": own, "peer": peer, "ratio": mean})
    return found


def means(results: Rows) -> str:
    """The geometric means as a table."""
    found = ratios(results)
    peers = list(dict.fromkeys(row["peer"] for row in found))
    by_line: dict[tuple[str, str], dict[str, float]] = {}
    for row in found:
        by_line.setdefault((row["optimizer"], row["contender"]), {})[row["peer"]] = row["ratio"]
    lines = [
        [OPTIMIZERS[optimizer], own, *(_number(of_peer.get(peer)) for peer in peers)]
        for (optimizer, own), of_peer in by_line.items()
    ]
    return markdown(["geometric mean over the sets", "", *(f"/ {peer}" for peer in peers)], lines, text=2)


def machine_line(machine: dict[str, Any]) -> str:
    """The machine in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    card = f"{machine['gpu']}, " if machine["gpu"] else ""
    return (
        f"{card}{machine['cpu']}, {machine['cores']} cores, copies at {machine['copy_gb_per_s']:.0f} GB/s; "
        f"{versions}"
    )


def _title(row: dict[str, Any]) -> str:
    size = row["parameters"]
    short = f"{size / 1e6:.3g}M" if size >= 1e6 else f"{size / 1e3:.3g}k"
    return f"{_TITLES[row['set']]}, {short} ({row['leaves']})"


def _number(x: float | None) -> str:
    if x is None:
        return ""
    return f"{x:.3f}" if x < 1 else f"{x:.2f}" if x < 10 else f"{x:.1f}" if x < 100 else f"{x:.0f}"


def main() -> None:
    """Prints the tables of recorded results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="written by benchmarks.optimizer_step")
    parser.add_argument("--details", action="store_true", help="every measurement, not the overview")
    args = parser.parse_args()
    for file in args.files:
        record = json.loads(file.read_text())
        results = record["results"]
        print(f"{record['date']}: {machine_line(record['machine'])}\n")
        for optimizer in dict.fromkeys(row["optimizer"] for row in results):
            print(f"{OPTIMIZERS[optimizer]}, ms a step\n")
            print((details if args.details else overview)(results, optimizer), end="\n\n")
        print(means(results), end="\n\n")


if __name__ == "__main__":
    main()
