"""PyTorch's side of the tests of `jaxopt_core.interop`: runs that are stopped and go on.

What goes in and comes out are numpy arrays by PyTorch's names, in PyTorch's layout, and state dicts whose
tensors have become numpy arrays, as `interop.load` reads them from a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch

__all__ = ["Run", "to_numpy", "to_torch"]

Gradients = Callable[[int, Mapping[str, np.ndarray]], Mapping[str, Any]]


def to_numpy(value: Any) -> Any:
    """Tensors in nested containers as arrays."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach().resolve_conj()
        if tensor.dtype == torch.bfloat16:
            return tensor.float().numpy().astype(ml_dtypes.bfloat16)
        return tensor.numpy().copy()
    if isinstance(value, Mapping):
        return {key: to_numpy(each) for key, each in value.items()}
    return type(value)(map(to_numpy, value)) if isinstance(value, list | tuple) else value


def to_torch(value: Any) -> Any:
    """Arrays in nested containers as tensors."""
    if isinstance(value, np.ndarray):
        if value.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(value.astype(np.float32)).bfloat16()
        return torch.from_numpy(value.copy())
    if isinstance(value, Mapping):
        return {key: to_torch(each) for key, each in value.items()}
    return type(value)(map(to_torch, value)) if isinstance(value, list | tuple) else value


class Run:
    """A PyTorch optimizer at work on named parameters.

    Args:
      kind: class in `torch.optim`.
      params: name -> initial value, in the order of `model.parameters()`.
      arguments: of the constructor.
      groups: names of each parameter group and its own arguments. Default: one of all.
      named: whether the optimizer is given names, which it then keeps as `param_names`.
      scheduler: makes a scheduler of the optimizer, which steps after every step.
    """

    def __init__(
        self,
        kind: str,
        params: Mapping[str, np.ndarray],
        arguments: Mapping[str, Any] | None = None,
        *,
        groups: Sequence[tuple[Sequence[str], Mapping[str, Any]]] | None = None,
        named: bool = False,
        scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
    ):
        self.tensors = {name: to_torch(value).requires_grad_() for name, value in params.items()}
        members: Any = [
            {"params": [(n, self.tensors[n]) if named else self.tensors[n] for n in names], **values}
            for names, values in (groups or [(list(params), {})])
        ]
        self.optimizer = getattr(torch.optim, kind)(members, **(arguments or {}))
        self.scheduler = scheduler(self.optimizer) if scheduler else None

    def steps(
        self, gradients: Gradients, times: Sequence[int], metric: Callable[[int], float] | None = None
    ) -> Run:
        """Steps at these times. A gradient that is `None` or missing leaves `p.grad` at `None`."""
        for time in times:
            grads = gradients(time, self.params())
            for name, tensor in self.tensors.items():
                grad = grads.get(name)
                if isinstance(grad, tuple):  # rows: indices and values
                    indices, values = map(to_torch, grad)
                    grad = torch.sparse_coo_tensor(indices[None], values, tensor.shape, check_invariants=True)
                tensor.grad = to_torch(grad)
            self.optimizer.step()
            if self.scheduler is not None:
                self.scheduler.step(*([metric(time)] if metric else []))
        return self

    def minimize(self, loss: Callable[[Any, Mapping[str, torch.Tensor]], torch.Tensor], steps: int) -> Run:
        """Steps with a closure, as LBFGS needs it."""

        def closure() -> torch.Tensor:
            self.optimizer.zero_grad()
            value = loss(torch, self.tensors)
            value.backward()
            return value.detach()

        for _ in range(steps):
            self.optimizer.step(closure)
        return self

    def load(self, state_dict: Any, params: Mapping[str, np.ndarray] | None = None) -> Run:
        """Loads the optimizer's state dict, and parameters."""
        for name, value in (params or {}).items():
            with torch.no_grad():
                self.tensors[name].copy_(to_torch(value))
        self.optimizer.load_state_dict(to_torch(state_dict))
        return self

    def params(self) -> dict[str, np.ndarray]:
        return to_numpy(self.tensors)

    def state_dict(self) -> Any:
        return to_numpy(self.optimizer.state_dict())

    def scheduler_state(self) -> Any:
        return to_numpy(self.scheduler.state_dict())
