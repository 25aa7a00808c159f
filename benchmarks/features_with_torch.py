"""PyTorch's side of ``training_features``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.parameter_sets import ParameterSet
from benchmarks.with_torch import TorchRun
from jaxopt_core.extras import needs_extra

with needs_extra("test"):
    import torch
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

__all__ = ["FeatureRun", "NetworkRun"]


class FeatureRun(TorchRun):
    """AdamW, fused, with what a training loop does around it."""

    def __init__(self, feature: str, parameters: ParameterSet) -> None:
        super().__init__("adamw", parameters, fused=True)
        self._around: Callable[[], None] = getattr(self, "_" + feature.replace(", ", "_").replace(" ", "_"))
        self._scaler = torch.amp.GradScaler("cuda" if self._cuda else "cpu", init_scale=1.0)
        self._scaler.scale(torch.zeros([], device=self._tensors[0].device))  # makes its state
        module = torch.nn.Module()
        module.tensors = torch.nn.ParameterList(self._tensors)
        average = "ema" in feature
        self._average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.999)) if average else None
        self._module, self._count = module, 0
        if feature == "accumulate 4":
            self._micro = [tensor.grad.clone() for tensor in self._tensors]
            for tensor in self._tensors:
                tensor.grad = torch.zeros_like(tensor)

    def step(self) -> None:
        """One step."""
        self._around()

    @property
    def state_bytes(self) -> int:
        """The optimizer's, and that of the feature."""
        average = [] if self._average is None else list(self._average.parameters())
        sums = getattr(self, "_micro", [])
        return super().state_bytes + sum(tensor.nbytes for tensor in [*average, *sums])

    def _bare(self) -> None:
        self._optimizer.step()

    def _clip(self) -> None:
        torch.nn.utils.clip_grad_norm_(self._tensors, 1.0)
        self._optimizer.step()

    def _loss_scale(self) -> None:
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def _ema(self) -> None:
        self._optimizer.step()
        self._average.update_parameters(self._module)

    def _accumulate_4(self) -> None:
        torch._foreach_add_([tensor.grad for tensor in self._tensors], self._micro)
        self._count += 1
        if self._count % 4 == 0:
            self._optimizer.step()
            torch._foreach_zero_([tensor.grad for tensor in self._tensors])

    def _clip_loss_scale_ema(self) -> None:
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self._tensors, 1.0)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._average.update_parameters(self._module)


class NetworkRun:
    """Forward, backward and fused AdamW of a stack of layers.

    Args:
      feature: ``bare``, ``autocast`` (in bfloat16), or ``clip, loss scale, ema``.
      quick: tiny.
    """

    def __init__(self, feature: str, quick: bool):
        width, batch, layers = (16, 8, 3) if quick else (512, 256, 12)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(0)
        shape = (width, width)
        self._layers = [
            (torch.randn(shape, device=self._device) / width**0.5).requires_grad_() for _ in range(layers)
        ]
        self._x, self._target = (torch.randn(batch, width, device=self._device) for _ in range(2))
        self._optimizer = torch.optim.AdamW(self._layers, fused=True)
        self._autocast = feature == "autocast"
        self._everything = feature == "clip, loss scale, ema"
        self._scaler = torch.amp.GradScaler(self._device, enabled=self._everything)
        self._module = torch.nn.Module()
        self._module.layers = torch.nn.ParameterList(self._layers)
        self._average = AveragedModel(self._module, multi_avg_fn=get_ema_multi_avg_fn(0.999))

    def step(self) -> None:
        """One step."""
        self._optimizer.zero_grad()
        with torch.autocast(self._device, torch.bfloat16, enabled=self._autocast):
            x = self._x
            for layer in self._layers:
                x = x + torch.nn.functional.gelu(x @ layer, approximate="tanh")
            loss = torch.nn.functional.mse_loss(x, self._target)
        if not self._everything:
            loss.backward()
            self._optimizer.step()
            return
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self._layers, 1.0)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._average.update_parameters(self._module)

    def wait(self) -> None:
        """Waits for the GPU, if there is one."""
        if self._device == "cuda":
            torch.cuda.synchronize()

    @property
    def state_bytes(self) -> int:
        """Bytes of the optimizer's state."""
        slots: list[Any] = [slot for slots in self._optimizer.state.values() for slot in slots.values()]
        return sum(slot.nbytes for slot in slots)
