"""PyTorch's ``AveragedModel`` and ``update_bn``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.oracle import _numpy, _tensor

__all__ = ["averages", "batch_statistics"]


def averages(
    history: list[np.ndarray], buffers: list[np.ndarray], use_buffers: bool = False, **arguments: Any
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Averaged parameter and buffer after each ``update_parameters``."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(_tensor(history[0]))
            self.register_buffer("running", _tensor(buffers[0]))

    model = Model()
    averaged = torch.optim.swa_utils.AveragedModel(model, use_buffers=use_buffers, **arguments)
    out = []
    for weight, running in zip(history, buffers, strict=True):
        model.weight.data = _tensor(weight)
        model.running = _tensor(running)
        averaged.update_parameters(model)
        out.append((_numpy(averaged.module.weight.detach()), _numpy(averaged.module.running)))
    return out


def batch_statistics(
    kernel: np.ndarray, bias: np.ndarray, batches: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Running mean and variance of a BatchNorm after a linear layer, refreshed by ``update_bn``."""
    linear = torch.nn.Linear(*kernel.shape)
    linear.load_state_dict({"weight": _tensor(kernel.T), "bias": _tensor(bias)})
    model = torch.nn.Sequential(linear, torch.nn.BatchNorm1d(kernel.shape[1]))
    torch.optim.swa_utils.update_bn([_tensor(x) for x in batches], model)
    return _numpy(model[1].running_mean), _numpy(model[1].running_var)
