"""``jaxopt-core parity``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Literal

import jax

from jaxopt_core.cli.errors import UsageError
from jaxopt_core.extras import needs_extra
from jaxopt_core.parity.problem import make_recipe, settings
from jaxopt_core.parity.run import parity as run_both

__all__ = ["Parity", "parity"]


@dataclasses.dataclass(frozen=True)
class Parity:
    """Run an optimizer in PyTorch and here on one random problem, and measure the difference.

    For example: jaxopt-core parity adamw --set weight_decay=0.1 amsgrad=true --schedule one_cycle_lr

    PyTorch runs as a loop over tensors, which is the reference, and with its other implementations, whose
    distance from the loop is its own noise. Exit status 1 if ours is further away than that.
    """

    optimizer: str
    """adamw, sgd, rmsprop, ...: any but lbfgs."""

    set: tuple[str, ...] = ()
    """Arguments of the optimizer, as name=value."""

    schedule: str | None = None
    """A scheduler, such as one_cycle_lr; what it needs fits the number of steps unless it is given."""

    schedule_set: tuple[str, ...] = ()
    """Arguments of the scheduler, as name=value."""

    steps: int = 1000
    """Updates."""

    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    """Of the parameters."""

    seed: int = 0
    """Of the problem."""

    out: Path | None = None
    """A PNG file for the picture of the differences over the steps. Without it, no picture."""


def parity(options: Parity) -> bool:
    """Does what the options say, prints the result, and returns whether both sides are equal.

    Raises:
      UsageError: an option cannot be used, or the picture not written.
      MissingExtraError: torch is not installed.
    """
    try:
        return _compared(options)
    except (ValueError, OSError) as error:
        raise UsageError(" ".join(str(error).split())) from error


def _compared(options: Parity) -> bool:
    if not 1 <= options.steps <= 1_000_000:
        raise ValueError(f"--steps: expected 1 to 1000000, found {options.steps}")
    with needs_extra("train"):
        from rich.console import Console
        from rich.progress import track
    with jax.enable_x64(options.dtype == "float64"):
        recipe = make_recipe(
            options.optimizer,
            settings(options.set),
            options.schedule,
            settings(options.schedule_set),
            options.steps,
            options.dtype,
            options.seed,
        )
        ticks = iter(track(range(options.steps), "comparing", console=Console(stderr=True), transient=True))
        result = run_both(
            recipe.torch_optimizer,
            recipe.tx,
            recipe.params,
            recipe.grads_fn,
            options.steps,
            torch_scheduler=recipe.torch_scheduler,
            metrics=recipe.metrics,
            on_step=lambda _: next(ticks, None),
        )
    sys.stdout.write(f"{result}\n")
    if options.out is not None:
        result.plot(options.out)
        sys.stdout.write(f"wrote {options.out}\n")
    return result.ok
