"""PyTorch's training steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.training_workloads import Workload
from jaxopt_core.extras import needs_extra

with needs_extra("test"):
    import torch
    from torch.nn import functional as F

__all__ = ["TorchTraining", "starting_state"]


class TorchTraining:
    """A workload's loss and ``torch.optim.SGD`` with momentum, on the GPU where there is one.

    Args:
      workload: what is trained.
      quick: a tiny one.
      threads: that PyTorch may use.
      compiled: through ``torch.compile``.
    """

    steps_per_call = 1

    def __init__(self, workload: Workload, quick: bool, threads: int, *, compiled: bool) -> None:
        self._module = _module(workload, quick)
        torch.set_num_threads(threads)  # the tests' networks set it to one
        self._cuda = torch.cuda.is_available()
        device = "cuda" if self._cuda else "cpu"
        inputs, labels = workload.batch(quick)
        self._inputs = [torch.from_numpy(array).to(device) for array in inputs]
        self._labels = torch.from_numpy(labels).to(device)
        self._loss_fn = _classes if workload.classes else F.binary_cross_entropy_with_logits
        self._module.to(device).train()
        if inputs[0].ndim == 4:
            # Images in the faster layout, on two cores by a tenth and on a GPU by more.
            self._module.to(memory_format=torch.channels_last)
            self._inputs = [images.movedim(-1, 1) for images in self._inputs]
        self._optimizer = torch.optim.SGD(self._module.parameters(), lr=1e-3, momentum=0.9)
        self._forward: Any = torch.compile(self._module) if compiled else self._module

    def step(self) -> None:
        """One step."""
        self._optimizer.zero_grad()
        self._loss = self._loss_fn(self._forward(*self._inputs), self._labels)
        self._loss.backward()
        self._optimizer.step()

    def wait(self) -> None:
        """Waits for the GPU; on the CPU a step is finished when it returns."""
        if self._cuda:
            torch.cuda.synchronize()

    def losses(self) -> list[float]:
        """Of the steps of the last call."""
        return [self._loss.item()]


def starting_state(workload: Workload, quick: bool) -> dict[str, np.ndarray]:
    """The weights from which every contender starts, each tensor once."""
    module = _module(workload, quick)
    tensors = (*module.named_parameters(), *module.named_buffers())
    return {name.removeprefix("hugging."): tensor.detach().numpy() for name, tensor in tensors}


def _module(workload: Workload, quick: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    return workload.theirs(quick)


def _classes(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten())
