"""The options of ``jaxopt-core train``: the same for every task, with each task's defaults."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from jaxopt_core.cli.errors import UsageError, choose

__all__ = ["TASKS", "TrainOptions"]

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """What every task can be told."""

    data: Path | None = None
    """Folder (or, for text, file) with data of your own. Without it: data that needs no download."""

    model: str = "mlp"
    """The network."""

    hidden: tuple[int, ...] = (128,)
    """Sizes of the network; what they mean is the model's affair."""

    optimizer: str = "adamw"
    """One of PyTorch's, by the name that it has in jaxopt_core."""

    lr: float = 1e-3
    """Learning rate, at its highest."""

    weight_decay: float | None = None
    """Default: the optimizer's own."""

    momentum: float | None = None
    """Of sgd, rmsprop and muon. Default: the optimizer's own."""

    schedule: str = "cosine"
    """constant, cosine (to 0), linear (to 0), warmup_cosine, one_cycle, or a call of a scheduler with
    PyTorch's arguments, the rate first, in updates: "step_lr(0.1, 300)"."""

    epochs: int = 10
    """Passes over the training data."""

    batch_size: int = 64
    """Examples in a batch."""

    precision: str = "float32"
    """float32, bfloat16 (autocast) or float16 (autocast and loss scaling)."""

    accumulate: int = 1
    """Batches whose gradients are averaged into one update."""

    clip: float | None = None
    """Largest norm of the gradients."""

    ema: float | None = None
    """Decay of an average of the parameters, such as 0.999, which is then what is validated."""

    early_stop: int | None = None
    """End after so many validations in a row without improvement, and keep the best parameters."""

    max_time: float | None = None
    """Seconds after which to end."""

    eval_every: int | None = None
    """Updates from one validation to the next. Default: an epoch."""

    steps_per_dispatch: int = 32
    """Updates in one call of the compiled program."""

    fast_dev_run: int = 0
    """Run so many batches of everything and write nothing, to see whether it works."""

    overfit_batches: int = 0
    """Train and validate on the first so many batches."""

    tensorboard: bool = False
    """Write TensorBoard's events too."""

    cache: Path | None = None
    """Folder for compiled programs, so that the next run need not compile."""

    seed: int = 0
    """Of parameters, order of the data and dropout; the same seed repeats a run bit for bit."""

    out: Path = Path("runs")
    """Folder for the results; an earlier run's are replaced, unless --resume."""

    resume: bool = False
    """Go on from the newest checkpoint in --out, with the configuration that is there."""

    resume_step: int | None = None
    """Go on from the checkpoint of this step instead."""

    config: Path | None = None
    """A TOML file with any of these options; those on the command line come first."""

    def check(self) -> None:
        """Raises UsageError for what is out of range."""

        def require(ok: bool, name: str, expected: str) -> None:
            if not ok:
                found = getattr(self, name)
                shown = " ".join(map(str, found)) if isinstance(found, tuple) else found
                raise UsageError(f"--{name.replace('_', '-')}: expected {expected}, found {shown}")

        for name in ("epochs", "batch_size", "accumulate", "steps_per_dispatch"):
            require(getattr(self, name) >= 1, name, "a positive integer")
        for name in ("early_stop", "eval_every"):
            require(getattr(self, name) is None or getattr(self, name) >= 1, name, "a positive integer")
        for name in ("fast_dev_run", "overfit_batches"):
            require(getattr(self, name) >= 0, name, "an integer of at least 0")
        for name in ("lr", "clip", "max_time"):
            require(_is(getattr(self, name), lambda x: x > 0), name, "a positive number")
        require(_is(self.weight_decay, lambda x: x >= 0), "weight_decay", "a number of at least 0")
        for name in ("momentum", "ema"):
            require(_is(getattr(self, name), lambda x: 0 <= x < 1), name, "a number from 0 to below 1")
        require(min(self.hidden, default=1) >= 1, "hidden", "positive integers")
        require(0 <= self.seed < 2**32, "seed", "an integer from 0 to 2**32 - 1")
        choose("--precision", self.precision, PRECISIONS)


def _is(value: float | None, test: Any) -> bool:
    return value is None or (math.isfinite(value) and bool(test(value)))


@dataclasses.dataclass(frozen=True)
class Digits(TrainOptions):
    """Read handwritten digits: scikit-learn's 1797 (8x8 pixels), or MNIST's IDX files in --data.

    The defaults were chosen with scikit-learn's test images in view: take the accuracy as a check that
    training works, not as an estimate.
    """

    lr: float = 1e-2
    epochs: int = 100
    hidden: tuple[int, ...] = (128,)
    eval_every: int | None = 110


@dataclasses.dataclass(frozen=True)
class Image(TrainOptions):
    """Tell images apart with a residual network: scikit-learn's digits, or CIFAR-10 or MNIST in --data."""

    model: str = "resnet"
    hidden: tuple[int, ...] = (8,)
    lr: float = 5e-3
    epochs: int = 12


@dataclasses.dataclass(frozen=True)
class Text(TrainOptions):
    """Predict the next character: Python's own documentation, or the text file --data."""

    model: str = "lstm"
    hidden: tuple[int, ...] = (256,)
    lr: float = 4e-3
    epochs: int = 15
    batch_size: int = 32
    clip: float | None = 1.0


@dataclasses.dataclass(frozen=True)
class Speech(TrainOptions):
    """Transcribe spoken digits, here strings of tones, with the CTC loss."""

    model: str = "speech"
    hidden: tuple[int, ...] = (64,)
    lr: float = 3e-3
    epochs: int = 12
    batch_size: int = 32
    clip: float | None = 5.0


@dataclasses.dataclass(frozen=True)
class Recommend(TrainOptions):
    """Predict ratings: a synthetic matrix of low rank, or MovieLens's ratings.csv in --data."""

    model: str = "mf"
    hidden: tuple[int, ...] = (4,)
    lr: float = 1e-2
    epochs: int = 20
    batch_size: int = 512


TASKS: dict[str, type[TrainOptions]] = {
    "digits": Digits,
    "image": Image,
    "text": Text,
    "speech": Speech,
    "recommend": Recommend,
}
