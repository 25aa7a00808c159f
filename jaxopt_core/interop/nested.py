"""The one optimizer of this package inside a transformation, and its state inside the transformation's."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import optax

from jaxopt_core.describe import listening
from jaxopt_core.hyperparams import Hyperparams
from jaxopt_core.leafwise import OptimizerState
from jaxopt_core.optimizers.lbfgs import LBFGSState
from jaxopt_core.tree import Leaves

__all__ = ["Found", "find", "replaced", "state_in"]


class Found(NamedTuple):
    """An optimizer of this package.

    Attributes:
      kind: PyTorch's name of it.
      hyperparams: its arguments.
      leaves: the parameters that it was given; only paths and which are there.
    """

    kind: str
    hyperparams: Hyperparams
    leaves: Leaves


def find(tx: optax.GradientTransformation, params: Any) -> Found:
    """The one optimizer of this package in ``tx``.

    Raises:
      ValueError: there is none, or more than one.
    """
    with listening() as notes:
        # A new function each time, lest a trace that was kept notes nothing.
        jax.eval_shape(functools.partial(tx.init), params)
    if len(notes) != 1:
        names = ", ".join(name for name, *_ in notes) or "none"
        raise ValueError(
            "Expected a transformation with one optimizer of this package, as a PyTorch optimizer is one; "
            f"found {names}. Where PyTorch has several optimizers too, convert the state of each by itself: "
            "optimizer_from_torch(optax.masked(each, mask), ...) is what optax.partition keeps in "
            "inner_states."
        )
    return Found(*notes[0])


def _is_state(node: Any) -> bool:
    return isinstance(node, OptimizerState | LBFGSState)


def state_in(opt_state: Any) -> Any:
    """The state of the one optimizer in the state of a transformation.

    Raises:
      ValueError: there is none, or more than one.
    """
    nodes = [node for node in jax.tree.leaves(opt_state, is_leaf=_is_state) if _is_state(node)]
    if len(nodes) != 1:
        raise ValueError(
            f"Expected the state of one optimizer of this package in opt_state; found {len(nodes)}."
        )
    return nodes[0]


def replaced(opt_state: Any, new: Any) -> Any:
    """``opt_state`` with ``new`` for the state of its one optimizer."""
    return jax.tree.map(lambda node: new if _is_state(node) else node, opt_state, is_leaf=_is_state)
