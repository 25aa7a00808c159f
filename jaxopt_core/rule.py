"""An optimizer for one parameter: its mathematics, and what the engine must know about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax

from jaxopt_core.hyperparams import Values
from jaxopt_core.tree import Slots

__all__ = ["Rule"]


@dataclasses.dataclass(frozen=True)
class Rule:
    """An optimizer for one parameter, and what the engine must know about it.

    Attributes:
      name: PyTorch's name of the optimizer, for messages.
      init: ``(param, h) -> slots``.
      update: ``(grad, param, slots, h, step) -> (additive update, slots)``.
      decay: how ``h.weight_decay`` enters, unless ``h.decoupled_weight_decay`` says so: ``"l2"`` adds
        ``weight_decay * param`` to the gradient after ``maximize`` has negated it, ``"decoupled"``
        shrinks the parameter by ``lr * weight_decay``.
      complex: whether complex parameters are accepted.
      elementwise: no element of update or slots depends on another element, and every slot has the
        parameter's shape, so that small parameters may be computed together.
      sparse: gradients are sparse rows, and only those rows of the state are touched.
    """

    name: str
    init: Callable[[jax.Array, Values], Slots]
    update: Callable[[jax.Array, jax.Array, Slots, Values, jax.Array], tuple[jax.Array, Slots]]
    decay: Literal["l2", "decoupled"] | None = "l2"
    complex: bool = True
    elementwise: bool = True
    sparse: bool = False
