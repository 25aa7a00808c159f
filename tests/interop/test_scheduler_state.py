"""Schedulers that leave PyTorch in the middle, and go back; GradScaler and AveragedModel."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as theirs
from torch.optim.swa_utils import SWALR, AveragedModel

import jaxopt_core as jo
from jaxopt_core import averaging, interop
from jaxopt_core import schedulers as ours
from tests.interop.closeness import assert_close
from tests.interop.problem import Problem, run_ours
from tests.interop.torch_runs import Run, to_numpy, to_torch

NAMES = ["stem.bias"]
BEFORE, HERE, AFTER = range(7), range(7, 16), range(16, 30)


def decay(count: Any) -> Any:
    return 1 / (1 + count)


def shrink(count: Any) -> Any:
    del count
    return 0.95


# PyTorch's scheduler of an optimizer of rate 0.1, and ours.
CASES: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "LambdaLR": (lambda o: theirs.LambdaLR(o, decay), ours.lambda_lr(0.1, decay)),
    "MultiplicativeLR": (lambda o: theirs.MultiplicativeLR(o, shrink), ours.multiplicative_lr(0.1, shrink)),
    "StepLR": (lambda o: theirs.StepLR(o, 3, 0.7), ours.step_lr(0.1, 3, 0.7)),
    "MultiStepLR": (lambda o: theirs.MultiStepLR(o, [5, 9, 9]), ours.multi_step_lr(0.1, [5, 9, 9])),
    "ConstantLR": (lambda o: theirs.ConstantLR(o, total_iters=9), ours.constant_lr(0.1, total_iters=9)),
    "LinearLR": (lambda o: theirs.LinearLR(o, total_iters=12), ours.linear_lr(0.1, total_iters=12)),
    "ExponentialLR": (lambda o: theirs.ExponentialLR(o, 0.9), ours.exponential_lr(0.1, 0.9)),
    "PolynomialLR": (lambda o: theirs.PolynomialLR(o, 40, 2.0), ours.polynomial_lr(0.1, 40, 2.0)),
    "CosineAnnealingLR": (lambda o: theirs.CosineAnnealingLR(o, 12), ours.cosine_annealing_lr(0.1, 12)),
    "CosineAnnealingWarmRestarts": (
        lambda o: theirs.CosineAnnealingWarmRestarts(o, 3, 2, 0.01),
        ours.cosine_annealing_warm_restarts(0.1, 3, 2, 0.01),
    ),
    "CyclicLR": (lambda o: theirs.CyclicLR(o, 0.1, 0.3, 4), ours.cyclic_lr(0.1, 0.3, 4)),
    "OneCycleLR": (lambda o: theirs.OneCycleLR(o, 0.3, 40), ours.one_cycle_lr(0.3, 40)),
    "SWALR": (lambda o: SWALR(o, 0.02, anneal_epochs=12), ours.swa_lr(0.1, 0.02, anneal_epochs=12)),
    "ChainedScheduler": (
        lambda o: theirs.ChainedScheduler(
            [theirs.ConstantLR(o, 0.5, 9), theirs.CosineAnnealingLR(o, 20, 0.01)]
        ),
        ours.chained_scheduler([ours.constant_lr(0.1, 0.5, 9), ours.cosine_annealing_lr(0.1, 20, 0.01)]),
    ),
    "SequentialLR": (
        lambda o: theirs.SequentialLR(
            o,
            [theirs.LinearLR(o, total_iters=4), theirs.MultiplicativeLR(o, shrink), SWALR(o, 0.02)],
            [5, 12],
        ),
        ours.sequential_lr(
            [ours.linear_lr(0.1, total_iters=4), ours.multiplicative_lr(0.1, shrink), ours.swa_lr(0.1, 0.02)],
            [5, 12],
        ),
    ),
    "nested SequentialLR": (
        lambda o: theirs.ChainedScheduler(
            [
                theirs.SequentialLR(o, [theirs.LinearLR(o, total_iters=4), theirs.StepLR(o, 4)], [6]),
                theirs.ExponentialLR(o, 0.97),
            ]
        ),
        ours.chained_scheduler(
            [
                ours.sequential_lr([ours.linear_lr(0.1, total_iters=4), ours.step_lr(0.1, 4)], [6]),
                ours.exponential_lr(0.1, 0.97),
            ]
        ),
    ),
    "ReduceLROnPlateau": (
        lambda o: theirs.ReduceLROnPlateau(o, factor=0.5, patience=2, cooldown=1),
        ours.reduce_lr_on_plateau(0.1, factor=0.5, patience=2, cooldown=1),
    ),
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():  # PyTorch's nested schedulers warn of each other
        warnings.simplefilter("ignore")
        yield


def metric(time: int) -> float:
    return 1.0 if time < 3 else 2.0


def optimizer_here(schedule: Any) -> Any:
    cycle = schedule if isinstance(schedule, ours.Cycle) else ours.Cycle(schedule, 0.9)
    return jo.sgd(lr=cycle.lr, momentum=cycle.momentum)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CASES)
def test_a_schedule_goes_on_here_and_back_in_pytorch(name: str) -> None:
    make, schedule = CASES[name]
    by_metric = {"metric": metric} if name == "ReduceLROnPlateau" else {}
    problem = Problem(NAMES)

    def start() -> Run:
        return Run("SGD", problem.start, {"lr": 0.1, "momentum": 0.9}, scheduler=make)

    alone = start().steps(problem.gradients, BEFORE, **by_metric)
    checkpoint, scheduler = alone.state_dict(), alone.scheduler_state()

    params = problem.tree(alone.params())
    layout = interop.make_layout(params, problem.shapes())
    tx = optimizer_here(schedule)
    state = interop.optimizer_from_torch(
        tx, checkpoint, layout, params, scheduler=scheduler, count=len(BEFORE)
    )
    values = {"value": jnp.asarray([metric(t) for t in HERE])} if by_metric else {}
    params, state = run_ours(problem, tx, params, state, HERE, **values)
    alone.steps(problem.gradients, HERE, **by_metric)
    assert_close(interop.params_to_torch(params, layout), alone.params(), 1e-12)

    there, expected = interop.params_to_torch(params, layout), alone.scheduler_state()
    optimizer = interop.optimizer_to_torch(tx, state, layout, params, like=checkpoint)
    resumed = [(optimizer, interop.scheduler_to_torch(tx, state, params, optimizer, like=scheduler))]
    assert counters(resumed[0][1]) == counters(expected)
    optimizer = interop.optimizer_to_torch(tx, state, layout, params)
    resumed += [(optimizer, interop.scheduler_to_torch(tx, state, params, optimizer))]

    alone.steps(problem.gradients, AFTER, **by_metric)
    for optimizer, counts in resumed:
        run = start().load(optimizer, there)
        run.scheduler.load_state_dict(to_torch(counts))
        run.steps(problem.gradients, AFTER, **by_metric)
        assert_close(run.params(), alone.params(), 1e-12)
        assert counters(run.scheduler_state()) == counters(alone.scheduler_state())


def counters(state_dict: Any) -> Any:
    """Everything but rates, of which only the outermost is what PyTorch has."""
    if isinstance(state_dict, dict):
        return {k: counters(v) for k, v in state_dict.items() if k not in ("_last_lr", "_step_count")}
    return [counters(each) for each in state_dict] if isinstance(state_dict, list) else state_dict


def test_the_count_of_sgd_is_the_schedulers() -> None:
    problem = Problem(NAMES, "float32")
    alone = Run("SGD", problem.start, {"lr": 0.1}, scheduler=CASES["StepLR"][0]).steps(
        problem.gradients, BEFORE
    )
    params = problem.tree(alone.params())
    layout = interop.make_layout(params, problem.shapes())
    given = alone.state_dict(), layout, params
    tx = jo.sgd(lr=ours.step_lr(0.1, 3, 0.7))
    assert interop.optimizer_from_torch(tx, *given, scheduler=alone.scheduler_state()).count == len(BEFORE)
    each_epoch = jo.sgd(lr=ours.per_epoch(ours.step_lr(0.1, 3, 0.7), 100))
    state = interop.optimizer_from_torch(each_epoch, *given, scheduler=alone.scheduler_state(), count=750)
    assert state.count == 750
    with pytest.raises(interop.LayoutError, match="does not keep the number of steps"):
        interop.optimizer_from_torch(tx, *given)
    with pytest.raises(
        interop.LayoutError, match="at last_epoch=7; after 8 updates the schedule of tx is at 8"
    ):
        interop.optimizer_from_torch(tx, *given, scheduler=alone.scheduler_state(), count=8)
    wrong = jo.sgd(lr=ours.step_lr(0.1, 3, 0.6))
    with pytest.raises(interop.LayoutError, match=r"gamma of the schedule: tx has 0\.6, the checkpoint 0\.7"):
        interop.optimizer_from_torch(wrong, *given, scheduler=alone.scheduler_state())
    with pytest.raises(
        interop.LayoutError, match=r"the schedule of tx gives 0\.036 at count 7, the checkpoint has"
    ):
        interop.optimizer_from_torch(wrong, *given, count=7)
    plateau = jo.sgd(lr=ours.reduce_lr_on_plateau(0.1))
    with pytest.raises(interop.LayoutError, match="schedule with a memory"):
        interop.optimizer_from_torch(plateau, *given, count=7)


def test_the_loss_scale_crosses() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=512.0, growth_interval=3)
    weight = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for factor in (1.0, 1.0, 1.0, float("inf"), 1.0, 1.0):
        optimizer.zero_grad()
        scaler.scale(weight.sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
    tx = jo.precision.with_loss_scale(jo.sgd(), jo.precision.dynamic_loss_scale())
    state = interop.scaler_from_torch(scaler.state_dict(), tx.init(jnp.ones(2)))
    assert interop.scaler_to_torch(state) == scaler.state_dict()
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(jnp.ones(2)))
    with pytest.raises(interop.LayoutError, match="'scale' is missing"):
        interop.scaler_from_torch(torch.amp.GradScaler("cpu", enabled=False).state_dict())
    with pytest.raises(ValueError, match="found 0"):
        interop.scaler_to_torch(jo.sgd().init(jnp.ones(2)))


def test_an_averaged_model_goes_on_here_and_back() -> None:
    def model() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))

    def move(net: torch.nn.Module, time: int) -> None:
        generator = torch.Generator().manual_seed(time)
        with torch.no_grad():
            for tensor in net.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(torch.rand(tensor.shape, generator=generator))

    net = model()
    averaged = AveragedModel(net)
    for time in range(3):
        move(net, time)
        averaged.update_parameters(net)
    params = {
        "0": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)},
        "1": {"scale": jnp.ones(4), "bias": jnp.ones(4)},
    }
    rest = {"1": {"mean": jnp.ones(4), "var": jnp.ones(4), "num_batches_tracked": jnp.zeros([], jnp.int32)}}
    layout = interop.make_layout(params, net.state_dict(), rest=rest)
    here = interop.average_from_torch(averaged.state_dict(), layout, params, rest)
    back = interop.average_to_torch(here, layout)
    for name, value in averaged.state_dict().items():
        assert back[name].tobytes() == value.numpy().tobytes(), name

    move(net, 3)
    averaged.update_parameters(net)
    now = to_numpy(net.state_dict())
    here = averaging.average(
        here,
        interop.params_from_torch(now, layout, like=params),
        interop.params_from_torch(now, layout, like=rest),
    )
    back = interop.average_to_torch(here, layout)
    AveragedModel(model()).load_state_dict(to_torch(back))
    for name, value in averaged.state_dict().items():
        np.testing.assert_allclose(back[name], value.numpy(), rtol=1e-6, err_msg=name)
    with pytest.raises(interop.LayoutError, match="'n_averaged' is missing"):
        interop.average_from_torch(net.state_dict(), layout, params)
