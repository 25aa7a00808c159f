"""What a training loop costs over the step alone: ours, and Lightning's where it is installed.

The small MLP of 784-128-10 with AdamW on batches of 64. Contenders take turns and the median counts: a jitted
step called in a Python loop on batches that lie ready, and ``fit``, which also shuffles and copies; a plain
loop of PyTorch, and Lightning's ``Trainer`` without its progress bar, logger and checkpoints.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workers import available_cores, limit_threads, require_torch

__all__ = ["main"]

WIDTHS = (784, 128, 10)
# A loop -> the one whose steps it repeats.
BARE = {
    "fit": "jitted step",
    "fit, CSV": "jitted step",
    "Lightning": "torch loop",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit status."""
    args = _parse(arguments)
    limit_threads(args.threads)
    from benchmarks import machine, tables

    described = machine.describe(quick=True)
    print(f"{tables.machine_line(described)}\n", flush=True)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(args.batches * args.batch_size, WIDTHS[0])).astype(np.float32)
    arrays = {"images": images, "labels": rng.integers(0, 10, len(images)).astype(np.int32)}
    runs = _with_jax(arrays, args.batch_size) | _with_torch(arrays, args.batch_size, args.threads)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(args.rounds + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if turn:  # the first one compiles
                times[name].append((time.perf_counter() - began) / args.batches * 1e6)
    results = [
        {
            "contender": name,
            "microseconds_a_step": statistics.median(values),
            "over": BARE.get(name),
            "ratio": statistics.median(values) / statistics.median(times[BARE.get(name, name)]),
        }
        for name, values in times.items()
    ]
    lines = [
        [row["contender"], f"{row['microseconds_a_step']:.0f}", row["over"] or "", f"{row['ratio']:.3f}"]
        for row in results
    ]
    print(tables.markdown(["contender", "us a step", "over", "ratio"], lines, text=1))
    if "Lightning" not in runs:
        print("\nLightning is not installed: pip install lightning", file=sys.stderr)
    if args.out:
        record = {
            "benchmark": "loop_overhead",
            "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "machine": described,
            "settings": {name: getattr(args, name) for name in ("rounds", "batches", "batch_size")},
            "results": results,
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def _with_jax(arrays: dict[str, np.ndarray], batch_size: int) -> dict[str, Callable[[], None]]:
    """Name -> a function that trains for one epoch."""
    import jax
    from flax import nnx

    import jaxopt_core as jo
    from jaxopt_core.data import Arrays
    from jaxopt_core.models import MLP, pure
    from jaxopt_core.recipes.classification import classifier
    from jaxopt_core.training import CsvLogger, fit, init_state, make_step

    apply, params, rest = pure(MLP(WIDTHS, rngs=nnx.Rngs(0)))
    tx = jo.adamw()
    step = make_step(classifier(apply)[0], tx)
    start = init_state(params, rest, tx)
    bare_step = jax.jit(step)
    ready = [jax.device_put(batch) for batch in Arrays(arrays, batch_size, drop_last=True)]

    def bare() -> None:
        state = start
        for batch in ready:
            state, _ = bare_step(state, batch)
        jax.block_until_ready(state)

    def loop(**options: Any) -> None:
        run = fit(start, Arrays(arrays, batch_size, drop_last=True), step, epochs=1, **options)
        jax.block_until_ready(run.state)

    def logged() -> None:
        with tempfile.TemporaryDirectory() as folder:
            loop(callbacks=[CsvLogger(folder)])

    return {"jitted step": bare, "fit": loop, "fit, CSV": logged}


def _with_torch(
    arrays: dict[str, np.ndarray], batch_size: int, threads: int
) -> dict[str, Callable[[], None]]:
    """Name -> a function that trains for one epoch."""
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(threads)
    model = torch.nn.Sequential(torch.nn.Linear(*WIDTHS[:2]), torch.nn.ReLU(), torch.nn.Linear(*WIDTHS[1:]))
    images = torch.from_numpy(arrays["images"]).split(batch_size)
    labels = torch.from_numpy(arrays["labels"]).long().split(batch_size)
    batches = list(zip(images, labels, strict=True))
    optimizer = torch.optim.AdamW(model.parameters())

    def plain() -> None:
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    if importlib.util.find_spec("lightning") is None:
        return {"torch loop": plain}
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, _: int) -> Any:
            x, y = batch
            return F.cross_entropy(self.model(x), y)

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters())

    loader = torch.utils.data.DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )

    def trainer() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lightning.Trainer(max_epochs=1, accelerator="cpu", **quiet).fit(Module(), loader)  # type: ignore[arg-type]

    return {"torch loop": plain, "Lightning": trainer}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loop_overhead",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--rounds", type=int, default=20, help="turns of each contender")
    add("--batches", type=int, default=512, help="steps of a turn")
    add("--batch-size", type=int, default=64, help="images in a batch")
    add("--threads", type=int, default=available_cores(), help="cores that both frameworks may use")
    add("--out", type=Path, help="where the record goes as JSON")
    args = parser.parse_args(arguments)
    require_torch(parser)
    return args


if __name__ == "__main__":
    sys.exit(main())
