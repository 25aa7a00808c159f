"""The networks whose training steps are timed, in Flax and in PyTorch, and their batches.

A workload is a row of ``WORKLOADS``. PyTorch's networks are those that the tests compare ours with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["WORKLOADS", "Workload"]


@dataclasses.dataclass(frozen=True)
class Workload:
    """A network and its batch.

    Attributes:
      title: what it is called in tables.
      ours: ``(quick) -> flax.nnx.Module``, abstract or not.
      theirs: ``(quick) -> torch.nn.Module`` with the same names.
      batch: ``(quick) -> (inputs, labels)``, channels last.
      to_torch: how PyTorch's network takes the inputs.
      scan: whether 20 steps in one program are timed too: for steps so short that dispatch counts.
    """

    title: str
    ours: Callable[[bool], Any]
    theirs: Callable[[bool], Any]
    batch: Callable[[bool], tuple[np.ndarray, np.ndarray]]
    to_torch: Callable[[np.ndarray], np.ndarray] = np.asarray
    scan: bool = False


def _our_mlp(quick: bool) -> Any:
    from flax import nnx

    from jaxopt_core.models import MLP

    del quick
    return MLP((784, 128, 10), rngs=nnx.Rngs(0))


def _their_mlp(quick: bool) -> Any:
    from tests.oracle_models import mlp

    del quick
    return mlp((784, 128, 10))


def _our_resnet(quick: bool) -> Any:
    from flax import nnx

    from jaxopt_core.models import resnet18

    return resnet18(10, cifar_stem=True, width=4 if quick else 64, rngs=nnx.Rngs(0))


def _their_resnet(quick: bool) -> Any:
    from tests.oracle_models import resnet

    return resnet("BasicBlock", (2, 2, 2, 2), 10, 4 if quick else 64, cifar_stem=True)


def _batch(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=shape).astype(np.float32), rng.integers(0, 10, shape[0])


WORKLOADS = {
    "mlp": Workload(
        "MLP 784-128-10, batch 64",
        _our_mlp,
        _their_mlp,
        lambda quick: _batch(4 if quick else 64, 784),
        scan=True,
    ),
    "resnet18": Workload(
        "ResNet-18, 32 images of 32x32",
        _our_resnet,
        _their_resnet,
        lambda quick: _batch(4 if quick else 32, 32, 32, 3),
        to_torch=lambda images: np.ascontiguousarray(images.transpose(0, 3, 1, 2)),
    ),
}
