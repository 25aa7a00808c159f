"""PyTorch's files and state, read and written without torch."""

from jaxopt_core.interop.convert import Converted, convert_from_torch, convert_to_torch, load_converted
from jaxopt_core.interop.derive import make_layout
from jaxopt_core.interop.errors import CheckpointError
from jaxopt_core.interop.layout import Layout, LayoutError
from jaxopt_core.interop.optimizer import optimizer_from_torch, optimizer_to_torch
from jaxopt_core.interop.parameters import params_from_torch, params_to_torch
from jaxopt_core.interop.port import port
from jaxopt_core.interop.reader import load
from jaxopt_core.interop.rules import Rule, after_flatten
from jaxopt_core.interop.safetensors_files import load_safetensors, save_safetensors
from jaxopt_core.interop.scaling import (
    average_from_torch,
    average_to_torch,
    scaler_from_torch,
    scaler_to_torch,
)
from jaxopt_core.interop.scheduler import scheduler_from_torch, scheduler_to_torch
from jaxopt_core.interop.whole import from_torch_optimizer
from jaxopt_core.interop.writer import save

__all__ = [
    "CheckpointError",
    "Converted",
    "Layout",
    "LayoutError",
    "Rule",
    "after_flatten",
    "average_from_torch",
    "average_to_torch",
    "convert_from_torch",
    "convert_to_torch",
    "from_torch_optimizer",
    "load",
    "load_converted",
    "load_safetensors",
    "make_layout",
    "optimizer_from_torch",
    "optimizer_to_torch",
    "params_from_torch",
    "params_to_torch",
    "port",
    "save",
    "save_safetensors",
    "scaler_from_torch",
    "scaler_to_torch",
    "scheduler_from_torch",
    "scheduler_to_torch",
]
