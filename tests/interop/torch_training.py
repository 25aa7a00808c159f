"""A PyTorch training script with a checkpoint, for the tests of runs that stop and go on elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["Training"]

torch.set_num_threads(1)


def adamw(module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """With weight decay on matrices only."""
    del steps
    groups = [
        {"params": [(name, p) for name, p in module.named_parameters() if (p.ndim > 1) == decayed], **values}
        for decayed, values in ((True, {}), (False, {"weight_decay": 0.0}))
    ]
    return torch.optim.AdamW(groups, lr=1e-4, weight_decay=0.1), None


def sgd(module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9, nesterov=True)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


OPTIMIZERS = {"AdamW": adamw, "SGD": sgd}
LOSSES = {"classes": F.cross_entropy, "squares": F.mse_loss}


class Training:
    """Model, optimizer and scheduler.

    Args:
      module: the model.
      state: its weights at the start.
      optimizer: "AdamW", or "SGD", which has a scheduler.
      loss: "classes" or "squares".
      dtype: "float32" or "float64".
      steps: of the whole run.
    """

    def __init__(
        self,
        module: nn.Module,
        state: dict[str, np.ndarray],
        *,
        optimizer: str,
        loss: str,
        dtype: str,
        steps: int,
    ):
        self.dtype = getattr(torch, dtype)
        self.model = module.to(self.dtype)
        own = self.model.state_dict()
        self.model.load_state_dict({n: torch.tensor(state[n]) if n in state else t for n, t in own.items()})
        self.optimizer, self.scheduler = OPTIMIZERS[optimizer](self.model, steps)
        self.loss = LOSSES[loss]

    def steps(self, batch: Callable[[int], tuple[np.ndarray, np.ndarray]], times: Iterable[int]) -> Training:
        """Trains on the batches of these times; images have channels last."""
        for time in times:
            x, y = map(torch.from_numpy, batch(time))
            x = x.to(self.dtype).movedim(-1, 1) if x.ndim == 4 else x.to(self.dtype)
            self.optimizer.zero_grad()
            self.loss(self.model(x), y.to(self.dtype) if y.is_floating_point() else y).backward()
            self.optimizer.step()
            if self.scheduler is not None:
                self.scheduler.step()
        return self

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        found = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
        return {name: part for name, part in found.items() if part is not None}

    def save(self, path: Path) -> None:
        torch.save({name: part.state_dict() for name, part in self.parts().items()}, path)

    def load(self, path: Path) -> Training:
        checkpoint = torch.load(path, weights_only=True)
        assert checkpoint.keys() == self.parts().keys()
        for name, part in self.parts().items():
            part.load_state_dict(checkpoint[name])
        return self

    def arrays(self) -> dict[str, np.ndarray]:
        """Parameters, buffers and slots of the optimizer, by name."""
        found = {name: tensor.numpy() for name, tensor in self.model.state_dict().items()}
        for i, slots in self.optimizer.state_dict()["state"].items():
            found |= {f"{slot} of {i}": value.numpy() for slot, value in slots.items()}
        return found
