"""What the loop costs over the bare jitted step: ``python -m benchmarks.loop_overhead``.

The small MLP of 784-128-10 on batches of 64. Contenders run in turns and the median counts: the bare step
called in a Python loop on batches that lie ready, and ``fit`` on shuffled arrays, alone and with CSV logging.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

import jaxopt_core as jo
from jaxopt_core.data import Arrays
from jaxopt_core.models import MLP, pure
from jaxopt_core.recipes.classification import classifier
from jaxopt_core.training import CsvLogger, fit, init_state, make_step


def contenders(batch_size: int = 64, batches: int = 128) -> dict[str, Callable[[], float]]:
    """Name -> a function that trains one epoch and returns microseconds a step."""
    rng = np.random.default_rng(0)
    examples = batch_size * batches
    arrays = {
        "images": rng.normal(size=(examples, 784)).astype(np.float32),
        "labels": rng.integers(0, 10, examples).astype(np.int32),
    }
    apply, params, rest = pure(MLP((784, 128, 10), rngs=nnx.Rngs(0)))
    tx = jo.adamw()
    step = make_step(classifier(apply)[0], tx)
    start = init_state(params, rest, tx)
    bare_step = jax.jit(step)
    ready = [jax.device_put(batch) for batch in Arrays(arrays, batch_size, drop_last=True)]

    def bare() -> float:
        state = start
        began = time.perf_counter()
        for batch in ready:
            state, _ = bare_step(state, batch)
        jax.block_until_ready(state)
        return (time.perf_counter() - began) / batches * 1e6

    def loop(**options: Any) -> float:
        data = Arrays(arrays, batch_size, drop_last=True)
        began = time.perf_counter()
        run = fit(start, data, step, epochs=1, **options)
        jax.block_until_ready(run.state)
        return (time.perf_counter() - began) / batches * 1e6

    def logged() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return loop(callbacks=[CsvLogger(folder)])

    return {"bare jitted step": bare, "fit": loop, "fit, CSV": logged}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    runs = contenders()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            took = run()
            if turn:  # the first one compiles
                times[name].append(took)
    best = statistics.median(times["bare jitted step"])
    print("| contender | us a step | / bare |\n| :-- | --: | --: |")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.0f} | {median / best:.3f} |")


if __name__ == "__main__":
    main()
