"""PyTorch's side of the comparisons of gradient steps: the loops its users write."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.oracle import _numpy, _tensor

__all__ = ["clip_norm", "clip_value", "scaler_run", "train"]


def _parameters(grads: dict[str, Any]) -> dict[str, torch.Tensor]:
    tensors = {}
    for path, grad in grads.items():
        if grad is not None:
            tensors[path] = torch.zeros_like(_tensor(grad)).requires_grad_()
            tensors[path].grad = _tensor(grad)
    return tensors


def clip_norm(grads: dict[str, Any], max_norm: float, norm_type: Any, **options: Any) -> Any:
    """Clipped gradients, and the norm before."""
    tensors = _parameters(grads)
    norm = torch.nn.utils.clip_grad_norm_(tensors.values(), max_norm, norm_type, **options)
    return {path: _numpy(t.grad) for path, t in tensors.items()}, _numpy(norm)


def clip_value(grads: dict[str, Any], value: float) -> Any:
    """Clipped gradients."""
    tensors = _parameters(grads)
    torch.nn.utils.clip_grad_value_(tensors.values(), value)
    return {path: _numpy(t.grad) for path, t in tensors.items()}


def train(
    params: dict[str, np.ndarray],
    grads: list[dict[str, Any]],
    optimizer: str,
    *,
    every: int = 1,
    divide: bool = False,
    max_norm: float | None = None,
    scheduler: Any = None,
    l1: float = 0.0,
    last: int | None = None,
    **arguments: Any,
) -> list[dict[str, np.ndarray]]:
    """The parameters after each ``backward``; a step follows ``every`` of them, and number ``last``."""
    tensors = {path: _tensor(p).requires_grad_() for path, p in params.items()}
    opt = getattr(torch.optim, optimizer)(list(tensors.values()), **arguments)
    schedule = scheduler and scheduler(opt)
    history = []
    pending = 0
    for t, current in enumerate(grads):
        # The real part of p * conj(g) has the gradient g in PyTorch, for complex numbers too.
        terms = [
            (tensors[path] * _tensor(g).conj()).real.sum() for path, g in current.items() if g is not None
        ]
        if l1:
            terms += [l1 * p.abs().sum() for p in tensors.values()]
        if terms:
            loss: Any = sum(terms)
            (loss / every if divide else loss).backward()
        pending += 1
        if pending == every or t == last:
            if max_norm is not None:
                torch.nn.utils.clip_grad_norm_(tensors.values(), max_norm)
            opt.step()
            opt.zero_grad()
            pending = 0
            if schedule:
                schedule.step()
        history.append({path: _numpy(p.detach()) for path, p in tensors.items()})
    return history


def scaler_run(
    params: dict[str, np.ndarray],
    grads: list[dict[str, np.ndarray]],
    max_norm: float | None,
    lr: float,
    **scaler_arguments: Any,
) -> list[tuple[dict[str, np.ndarray], dict[str, Any]]]:
    """Parameters and ``scaler.state_dict()`` after each step, given the gradients of the *unscaled* loss."""
    tensors = {path: _tensor(p).requires_grad_() for path, p in params.items()}
    opt = torch.optim.AdamW(list(tensors.values()), lr=lr)
    scaler = torch.amp.GradScaler("cpu", **scaler_arguments)
    history = []
    for current in grads:
        opt.zero_grad()
        loss: Any = sum((tensors[path] * _tensor(g)).sum() for path, g in current.items())
        scaler.scale(loss).backward()
        if max_norm is not None:
            scaler.unscale_(opt)
            torch.nn.utils.clip_grad_norm_(tensors.values(), max_norm)
        scaler.step(opt)
        scaler.update()
        history.append(({path: _numpy(p.detach()) for path, p in tensors.items()}, scaler.state_dict()))
    return history
