"""Runs that leave PyTorch in the middle, go on here, and go back, end where PyTorch alone would have."""

from __future__ import annotations

from typing import Any

import pytest

import jaxopt_core as jo
from jaxopt_core import interop
from tests.interop.closeness import assert_close, assert_same
from tests.interop.problem import Problem, run_ours
from tests.interop.torch_runs import Run

BEFORE, HERE, AFTER = range(20), range(20, 120), range(120, 220)
# Compiling is what a case costs, and that grows with the parameters.
ALL = ["stem.weight", "stem.bias", "head.0.weight", "gain", "filters"]
REAL = ALL[:-1]

# kind, constructor arguments, parameters
CASES = [
    ("SGD", {"lr": 0.05}, ALL),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.3}, ALL),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, ALL),
    ("Adam", {"lr": 0.01, "weight_decay": 0.1}, ALL),
    ("AdamW", {"lr": 0.01, "amsgrad": True, "betas": (0.8, 0.99)}, ALL),
    ("NAdam", {"lr": 0.01, "weight_decay": 0.01, "decoupled_weight_decay": True}, ALL),
    ("RAdam", {"lr": 0.01}, ALL),
    ("Adamax", {"lr": 0.01}, ALL),
    ("Adadelta", {"lr": 0.5, "maximize": False}, ALL),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.01, "initial_accumulator_value": 0.2}, ALL),
    ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True}, ALL),
    ("RMSprop", {"lr": 0.01}, ALL),
    ("Rprop", {"lr": 0.01}, ALL),
    ("ASGD", {"lr": 0.01, "lambd": 0.01, "t0": 60}, ALL),
    ("Adafactor", {"lr": 0.01, "weight_decay": 0.1}, REAL),
]


def arguments_here(
    kind: str, arguments: dict[str, Any], layout: interop.Layout, params: Any
) -> dict[str, Any]:
    axes = {"axes": layout.torch_axes(params)} if kind in ("Adafactor", "Muon") else {}
    return arguments | axes


def never_or_seldom(time: int, name: str) -> bool:
    """Of five parameters, one never has a gradient, one has none at first, one has it in every third step."""
    if name == "stem.bias":
        return True
    return (name == "head.0.weight" and time < 7) or (name == "gain" and time < 20 and time % 3 > 0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("kind", "arguments", "names"), CASES)
def test_a_run_goes_on_here_and_back_in_pytorch(
    kind: str, arguments: dict[str, Any], names: list[str]
) -> None:
    problem = Problem(names, without=never_or_seldom)
    theirs = Run(kind, problem.start, arguments).steps(problem.gradients, BEFORE)
    checkpoint, start = theirs.state_dict(), theirs.params()

    params = problem.tree(problem.start)
    layout = interop.make_layout(params, problem.shapes())
    params = interop.params_from_torch(start, layout, like=params)
    tx = getattr(jo, kind.lower())(**arguments_here(kind, arguments, layout, params))
    state = interop.optimizer_from_torch(tx, checkpoint, layout, params)
    assert_same(interop.optimizer_to_torch(tx, state, layout, params, like=checkpoint), checkpoint)

    params, state = run_ours(problem, tx, params, state, HERE)
    theirs.steps(problem.gradients, HERE)
    there = interop.params_to_torch(params, layout)
    state_dict = interop.optimizer_to_torch(tx, state, layout, params, like=checkpoint)
    assert_close(there, theirs.params(), 1e-12)
    assert_close(state_dict, theirs.state_dict(), 1e-12)

    # PyTorch casts scalars when it loads, so it is compared with PyTorch loaded from its own state.
    resumed = Run(kind, problem.start, arguments).load(state_dict, there).steps(problem.gradients, AFTER)
    alone = Run(kind, problem.start, arguments).load(theirs.state_dict(), theirs.params())
    alone.steps(problem.gradients, AFTER)
    assert_close(resumed.params(), alone.params(), 1e-12)
    assert_close(resumed.state_dict(), alone.state_dict(), 1e-12)
