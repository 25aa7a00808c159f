"""The learning-rate range test, its suggestion and its picture."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_core.extras import needs_extra
from jaxopt_core.figures import COLORS, STYLE
from jaxopt_core.leafwise import apply_updates
from jaxopt_core.tuning.trainable import with_hyperparams

__all__ = ["RangeTest", "lr_finder"]

_SKIPPED = 10  # points at the start, before the average has settled


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """Losses while the learning rate grew.

    Attributes:
      rates: ``(steps,)``, those up to the divergence.
      losses: of each batch, ``(steps,)``.
      smoothed: their moving average, bias-corrected, ``(steps,)``.
      suggestion: the rate at which the smoothed loss falls most steeply, or None where it never falls.
    """

    rates: np.ndarray[Any, Any]
    losses: np.ndarray[Any, Any]
    smoothed: np.ndarray[Any, Any]
    suggestion: float | None

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws the losses over the rates, and the suggestion, as PNG or whatever the name ends in.

        Raises:
          MissingExtraError: matplotlib is not installed.
        """
        with needs_extra("train"):
            import matplotlib as mpl
            from matplotlib.figure import Figure

        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(7, 4.2), layout="constrained")
            axes = figure.subplots()
            axes.plot(self.rates, self.losses, color=COLORS[0], alpha=0.3, linewidth=0.8, label="each batch")
            axes.plot(self.rates, self.smoothed, color=COLORS[0], linewidth=1.8, label="smoothed")
            if self.suggestion is not None:
                at = int(np.argmin(np.abs(self.rates - self.suggestion)))
                axes.plot(self.rates[at], self.smoothed[at], "o", color=COLORS[1], markersize=8)
                text = f"steepest at {self.suggestion:.2g}"
                axes.annotate(
                    text,
                    (self.rates[at], self.smoothed[at]),
                    xytext=(10, 10),
                    textcoords="offset points",
                    color=COLORS[1],
                    weight="bold",
                )
            low, high = np.nanmin(self.smoothed), self.smoothed[0]
            axes.set(title="Learning-rate range test", xlabel="learning rate", ylabel="loss", xscale="log")
            axes.set_ylim(low - 0.1 * (high - low), max(high, low) + 0.5 * abs(high - low))
            axes.legend()
            figure.savefig(path, dpi=150)


def lr_finder(
    loss_fn: Callable[[Any, Any], jax.Array],
    params: Any,
    optimizer: Callable[[jax.Array], optax.GradientTransformation],
    data: Mapping[str, Any],
    *,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 200,
    batch_size: int = 64,
    smoothing: float = 0.95,
    stop: float = 4.0,
    seed: int = 0,
) -> RangeTest:
    """Trains a copy of the parameters while the learning rate grows exponentially.

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, section 3.3. As in
    Lightning's ``lr_find``, the suggestion is where the smoothed loss falls most steeply, the first 10 points
    left out, and the test ends when the smoothed loss exceeds ``stop`` times its best; unlike there, the fall
    is measured over a tenth of the points. It is a place to begin a search, not an optimum.

    Args:
      loss_fn: ``(params, batch) -> loss``.
      params: to begin with; they are not changed.
      optimizer: ``lr -> tx``; the rate is a tracer, so that all run in one program.
      data: name -> array, examples along the first axis; batches are drawn at random.
      low: first rate. Default 1e-6.
      high: last rate. Default 10.
      steps: from the one to the other. Default 200.
      batch_size: examples in a batch. Default 64.
      smoothing: of the moving average. Default 0.95.
      stop: multiple of the best smoothed loss at which the test ends. Default 4.
      seed: of the batches.

    Raises:
      ValueError: a number is out of range.

    Example:
      >>> import jaxopt_core as jo
      >>> x = np.random.default_rng(0).normal(size=(256, 3)).astype(np.float32)
      >>> data = {"x": x, "y": x @ np.float32([1, -2, 3])}
      >>> def loss_fn(w, batch):
      ...     return jnp.mean((batch["x"] @ w - batch["y"]) ** 2)
      >>> found = lr_finder(loss_fn, jnp.zeros(3), lambda lr: jo.sgd(lr=lr), data, low=1e-5)
      >>> bool(1e-3 < found.suggestion < 1)
      True
    """
    if not 0 < low < high or steps <= 2 * _SKIPPED or not 0 <= smoothing < 1 or not stop > 1:
        raise ValueError(
            f"expected 0 < low < high, steps above {2 * _SKIPPED}, smoothing in [0, 1) and stop above 1, got "
            f"{low}, {high}, {steps}, {smoothing} and {stop}"
        )
    examples = len(next(iter(data.values())))
    size = min(batch_size, examples)
    rates = np.geomspace(low, high, steps)

    @jax.jit
    def run(params: Any, rates: jax.Array, key: jax.Array, data: Any) -> jax.Array:
        def step(carry: Any, inputs: Any) -> Any:
            params, opt_state = carry
            lr, key = inputs
            rows = jax.random.randint(key, (size,), 0, examples)
            loss, grads = jax.value_and_grad(loss_fn)(params, jax.tree.map(lambda x: x[rows], data))
            tx = optimizer(lr)
            updates, opt_state = tx.update(grads, with_hyperparams(opt_state, tx.init(params)), params)
            return (apply_updates(params, updates), opt_state), loss

        first = params, optimizer(rates[0]).init(params)
        return jax.lax.scan(step, first, (rates, jax.random.split(key, steps)))[1]

    arrays = {name: jnp.asarray(array) for name, array in data.items()}
    losses = np.asarray(
        run(params, jnp.asarray(rates, jnp.float32), jax.random.key(seed), arrays), np.float64
    )
    smoothed = _smooth(losses, smoothing)
    end = _divergence(smoothed, stop)
    return RangeTest(rates[:end], losses[:end], smoothed[:end], _steepest(rates[:end], smoothed[:end]))


def _smooth(losses: np.ndarray[Any, Any], beta: float) -> np.ndarray[Any, Any]:
    average, smoothed = 0.0, []
    for i, loss in enumerate(losses, start=1):
        average = beta * average + (1 - beta) * loss
        smoothed.append(average / (1 - beta**i))
    return np.asarray(smoothed)


def _divergence(smoothed: np.ndarray[Any, Any], stop: float) -> int:
    """How many points come before the loss is lost."""
    best = np.inf
    for i, loss in enumerate(smoothed):
        if not np.isfinite(loss) or (i > _SKIPPED and loss > stop * best):
            return i
        best = min(best, loss)
    return len(smoothed)


def _steepest(rates: np.ndarray[Any, Any], smoothed: np.ndarray[Any, Any]) -> float | None:
    # Differences over a window, as single ones are noise where the average has only begun.
    half = max(1, len(smoothed) // 20)
    first, last = _SKIPPED + half, len(smoothed) - 1 - half
    if last <= first:
        return None
    falls = smoothed[first + half : last + half] - smoothed[first - half : last - half]
    at = int(np.argmin(falls))
    return float(rates[first + at]) if falls[at] < -1e-6 * abs(smoothed[first + at]) else None
