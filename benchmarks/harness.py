"""How a step is timed: warmed up, waited for, and in turns with its competitors."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

__all__ = ["Run", "geometric_mean", "interleave", "summary", "turn"]

_SETTLE_S = 0.02  # a finished OpenMP region keeps its threads spinning for some milliseconds


class Run(Protocol):
    """An optimizer, its parameters and its gradients, ready to be stepped."""

    @property
    def state_bytes(self) -> int:
        """Bytes of the optimizer's state, asked for after the first step."""

    def step(self) -> None:
        """Starts one step on the result of the last one; may return before it is finished."""

    def wait(self) -> None:
        """Returns when every step that was started is finished."""

    def samples(self) -> dict[str, np.ndarray]:
        """Path -> some elements of the parameter, in JAX's layout, by which results are compared."""


def turn(run: Run, seconds: float, burst: int = 1) -> list[float]:
    """Times one contender for a while, after untimed steps that bring caches and threads to it.

    Args:
      run: what is stepped.
      seconds: how long, at least; three times are taken in any case.
      burst: most steps started before waiting, as many as fit into a third of the turn. One shows what a step
        costs that is waited for; more hide what starting it costs, as a training loop does.

    Returns:
      Seconds per step, one number for each burst.
    """
    settled = time.perf_counter() + min(seconds, _SETTLE_S)
    while True:
        start = time.perf_counter()
        run.step()
        run.wait()
        one = time.perf_counter() - start
        if time.perf_counter() >= settled:
            break
    burst = max(1, min(burst, int(seconds / 3 / one)))
    times: list[float] = []
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        while len(times) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            for _ in range(burst):
                run.step()
            run.wait()
            times.append((time.perf_counter() - start) / burst)
    finally:
        gc.enable()
    return times


def interleave(turns: Mapping[str, Callable[[], list[float]]], rounds: int) -> dict[str, list[float]]:
    """Gives every contender one turn a round, in another order each time.

    What disturbs a shared machine for seconds then disturbs all of them alike.

    Args:
      turns: name -> a function that takes its turn and returns seconds per step.
      rounds: how often.

    Returns:
      Name -> the median of each of its turns, in seconds.
    """
    medians: dict[str, list[float]] = {name: [] for name in turns}
    for i in range(rounds):
        for name in random.Random(i).sample(list(turns), len(turns)):
            medians[name].append(statistics.median(turns[name]()))
    return medians


def summary(seconds: list[float]) -> dict[str, Any]:
    """Median and quartiles, in milliseconds, of the medians of the turns."""
    low, middle, high = np.percentile(seconds, [25, 50, 75]) * 1e3
    return {"step_ms": float(middle), "quartiles_ms": [float(low), float(high)]}


def geometric_mean(ratios: Iterable[float]) -> float:
    """The mean that treats twice as slow and twice as fast alike.

    Example:
      >>> geometric_mean([0.5, 2.0])
      1.0
    """
    return statistics.geometric_mean(ratios)
