"""PyTorch's training steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.training_workloads import Workload
from jaxopt_core.extras import needs_extra

with needs_extra("test"):
    import torch

__all__ = ["TorchTraining", "starting_state"]


class TorchTraining:
    """Cross entropy and ``torch.optim.SGD`` with momentum, on the GPU where there is one.

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
        self._inputs = torch.from_numpy(workload.to_torch(inputs)).to(device)
        self._labels = torch.from_numpy(labels).to(device)
        self._module.to(device).train()
        if inputs.ndim == 4:
            # The faster layout, on two cores by a tenth and on a GPU by more.
            self._module.to(memory_format=torch.channels_last)
            self._inputs = self._inputs.to(memory_format=torch.channels_last)
        self._optimizer = torch.optim.SGD(self._module.parameters(), lr=1e-3, momentum=0.9)
        self._forward: Any = torch.compile(self._module) if compiled else self._module

    def step(self) -> None:
        """One step."""
        self._optimizer.zero_grad()
        self._loss = torch.nn.functional.cross_entropy(self._forward(self._inputs), self._labels)
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
    """The weights from which every contender starts."""
    return {name: tensor.numpy() for name, tensor in _module(workload, quick).state_dict().items()}


def _module(workload: Workload, quick: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    return workload.theirs(quick)
