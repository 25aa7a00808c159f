"""The contenders that run in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.parameter_sets import Leaf, ParameterSet, sample, value
from jaxopt_core.extras import needs_extra

with needs_extra("test"):
    import torch

__all__ = ["TorchRun"]

_RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {"lr": 1e-3, "momentum": 0.9}),
    "adam": ("Adam", {"lr": 1e-3}),
    "adamw": ("AdamW", {"lr": 1e-3}),
    "adafactor": ("Adafactor", {"lr": 1e-2}),
}


class TorchRun:
    """``optimizer.step()`` on leaves in PyTorch's layout, on the GPU where there is one.

    Args:
      optimizer: a key of the recipes.
      parameters: what is stepped.
      arguments: further arguments of the constructor, such as ``fused=True``.
    """

    def __init__(self, optimizer: str, parameters: ParameterSet, **arguments: Any) -> None:
        self._leaves = parameters.leaves
        self._tensors = [
            _tensor(leaf, i, gradient=False).requires_grad_() for i, leaf in enumerate(self._leaves)
        ]
        for i, (leaf, tensor) in enumerate(zip(self._leaves, self._tensors, strict=True)):
            tensor.grad = _tensor(leaf, i, gradient=True)
        name, recipe = _RECIPES[optimizer]
        self._optimizer = getattr(torch.optim, name)(self._tensors, **recipe, **arguments)
        self._cuda = torch.cuda.is_available()

    def step(self) -> None:
        """One step."""
        self._optimizer.step()

    def wait(self) -> None:
        """Waits for the GPU; on the CPU a step is finished when it returns."""
        if self._cuda:
            torch.cuda.synchronize()

    @property
    def state_bytes(self) -> int:
        """Bytes of state, which PyTorch makes in the first step."""
        slots = [slot for slots in self._optimizer.state.values() for slot in slots.values()]
        return sum(slot.nbytes for slot in slots if isinstance(slot, torch.Tensor))

    def samples(self) -> dict[str, np.ndarray]:
        """Some elements of every parameter, in JAX's layout."""
        arrays = [tensor.detach().cpu().numpy() for tensor in self._tensors]
        return {
            leaf.path: sample(array if leaf.axes is None else array.transpose(np.argsort(leaf.axes)))
            for leaf, array in zip(self._leaves, arrays, strict=True)
        }


def _tensor(leaf: Leaf, index: int, *, gradient: bool) -> torch.Tensor:
    array = value(leaf, index, gradient=gradient)
    array = array if leaf.axes is None else np.ascontiguousarray(array.transpose(leaf.axes))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.from_numpy(array).clone().to(device)
