"""PyTorch's losses: the oracle of this folder."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional


def value_and_grad(
    name: str, input: np.ndarray, target: np.ndarray, arguments: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """A loss, and the gradient of ``(loss * w).sum()`` where ``w`` is 1, 9/8, 10/8 and so on."""
    x = torch.tensor(input, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = call(name, x, target, arguments)
    w = 1 + torch.arange(loss.numel(), dtype=loss.dtype).reshape(loss.shape) / 8
    (loss * w).sum().backward()
    return loss.detach().numpy(), x.grad.numpy()


def ctc_value_and_grad(
    logits: np.ndarray, *lengths: Any, through: bool = True, **arguments: Any
) -> tuple[np.ndarray, np.ndarray]:
    """``ctc_loss`` of ``log_softmax(logits)``; without ``through``, the gradient is at the log_softmax."""
    x = torch.tensor(logits, requires_grad=True)
    log_probs = x.log_softmax(-1)
    log_probs.retain_grad()
    loss = functional.ctc_loss(log_probs, *(torch.tensor(each) for each in lengths), **arguments)
    loss.sum().backward()
    return loss.detach().numpy(), (x if through else log_probs).grad.numpy()


def error(name: str, input: Any, target: Any, arguments: Mapping[str, Any]) -> str | None:
    """The first line of what PyTorch says to these arguments, or None where it accepts them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call(name, torch.tensor(input), target, arguments)
        except Exception as problem:  # noqa: BLE001, whatever PyTorch raises is the answer
            return str(problem).splitlines()[0]
    return None


def call(name: str, input: torch.Tensor, target: Any, arguments: Mapping[str, Any]) -> torch.Tensor:
    function = getattr(functional, name)
    return function(input, torch.tensor(target), **{k: _argument(v) for k, v in arguments.items()})


def _argument(value: Any) -> Any:
    return torch.tensor(value) if isinstance(value, np.ndarray) else value
