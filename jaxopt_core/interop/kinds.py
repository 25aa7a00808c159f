"""PyTorch's optimizers by name, and what their parameter groups hold besides hyperparameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from jaxopt_core import optimizers

__all__ = ["FLAGS", "KINDS", "defaults", "kind_named"]

KINDS: dict[str, Callable[..., Any]] = {
    "Adadelta": optimizers.adadelta,
    "Adafactor": optimizers.adafactor,
    "Adagrad": optimizers.adagrad,
    "Adam": optimizers.adam,
    "AdamW": optimizers.adamw,
    "Adamax": optimizers.adamax,
    "ASGD": optimizers.asgd,
    "LBFGS": optimizers.lbfgs,
    "Muon": optimizers.muon,
    "NAdam": optimizers.nadam,
    "RAdam": optimizers.radam,
    "RMSprop": optimizers.rmsprop,
    "Rprop": optimizers.rprop,
    "SGD": optimizers.sgd,
    "SparseAdam": optimizers.sparse_adam,
}

# Which of its implementations PyTorch runs: no part of the numbers, but its step reads these keys.
_DEFAULTS = {"foreach": None, "capturable": False, "differentiable": False, "fused": None}
_OF = {
    "Adadelta": ("foreach", "capturable", "differentiable"),
    "Adafactor": ("foreach",),
    "Adagrad": ("foreach", "differentiable", "fused"),
    "Adam": ("foreach", "capturable", "differentiable", "fused"),
    "AdamW": ("foreach", "capturable", "differentiable", "fused"),
    "Adamax": ("foreach", "capturable", "differentiable"),
    "ASGD": ("foreach", "capturable", "differentiable"),
    "NAdam": ("foreach", "capturable", "differentiable"),
    "RAdam": ("foreach", "capturable", "differentiable"),
    "RMSprop": ("foreach", "capturable", "differentiable"),
    "Rprop": ("foreach", "capturable", "differentiable"),
    "SGD": ("foreach", "differentiable", "fused"),
}
FLAGS = {kind: {flag: _DEFAULTS[flag] for flag in _OF.get(kind, ())} for kind in KINDS}


def kind_named(kind: str) -> str:
    """PyTorch's spelling of an optimizer's name.

    Raises:
      ValueError: there is none of that name.
    """
    for name in KINDS:
        if name.lower() == kind.lower().removeprefix("torch.optim."):
            return name
    raise ValueError(f"kind {kind!r} is none of torch.optim's optimizers: {', '.join(KINDS)}.")


def defaults(kind: str) -> dict[str, Any]:
    """Argument -> default, of the hyperparameters that PyTorch has too."""
    parameters = inspect.signature(KINDS[kind]).parameters
    return {name: p.default for name, p in parameters.items() if name != "axes"}
