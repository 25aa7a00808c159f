"""Wrong arguments: in PyTorch's words where it has them, and where it goes on with nonsense, in ours."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import pytest

import jaxopt_core as jo
from jaxopt_core import schedulers
from tests import oracle
from tests.schedulers.rows import make

STEP, PLATEAU = ("StepLR", {"step_size": 3}), ("ReduceLROnPlateau", {})
PYTORCHS = [
    ("ConstantLR", {"factor": 1.5}),
    ("ConstantLR", {"factor": -0.1}),
    ("LinearLR", {"start_factor": 0.0}),
    ("LinearLR", {"start_factor": 1.5}),
    ("LinearLR", {"end_factor": -0.5}),
    ("LinearLR", {"end_factor": 2.0}),
    ("MultiplicativeLR", {"lr_lambda": 0.5}),
    ("CosineAnnealingWarmRestarts", {"T_0": 0}),
    ("CosineAnnealingWarmRestarts", {"T_0": 2.5}),
    ("CosineAnnealingWarmRestarts", {"T_0": 2, "T_mult": 0}),
    ("CosineAnnealingWarmRestarts", {"T_0": 2, "T_mult": 1.5}),
    ("CosineAnnealingWarmRestarts", {"T_0": 2, "eta_min": "0"}),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 1.0, "mode": "square"}),
    ("OneCycleLR", {"max_lr": 0.1}),
    ("OneCycleLR", {"max_lr": 0.1, "epochs": 3}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 0}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 2.5}),
    ("OneCycleLR", {"max_lr": 0.1, "epochs": -1, "steps_per_epoch": 3}),
    ("OneCycleLR", {"max_lr": 0.1, "epochs": 1, "steps_per_epoch": 0.5}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 10, "pct_start": 1.5}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 10, "pct_start": 1}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 10, "anneal_strategy": "exp"}),
    ("SWALR", {"swa_lr": 0.1, "anneal_strategy": "exp"}),
    ("SWALR", {"swa_lr": 0.1, "anneal_epochs": -1}),
    ("SWALR", {"swa_lr": 0.1, "anneal_epochs": 1.5}),
    ("ReduceLROnPlateau", {"factor": 1.0}),
    ("ReduceLROnPlateau", {"mode": "minimum"}),
    ("ReduceLROnPlateau", {"threshold_mode": "relative"}),
    ("SequentialLR", {"schedulers": [], "milestones": []}),
    ("SequentialLR", {"schedulers": [STEP, STEP], "milestones": []}),
    ("SequentialLR", {"schedulers": [STEP, PLATEAU], "milestones": [3]}),
    ("ChainedScheduler", {"schedulers": [PLATEAU]}),
]


@pytest.mark.parametrize("spec", PYTORCHS, ids=str)
def test_pytorchs_words(spec):
    kind, message = oracle.scheduler_error(spec)
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        make(spec)


def test_no_schedulers_to_chain():
    # PyTorch's constructor is asked for an optimizer first.
    with pytest.raises(ValueError, match="ChainedScheduler expects at least one scheduler to be chained"):
        schedulers.chained_scheduler([])


# PyTorch divides by 0, or fails where it is too late; the second is the number of steps until then.
LATE = [
    (("ConstantLR", {"factor": 0.0, "total_iters": 2}), 3, "divid"),
    (("OneCycleLR", {"max_lr": 0.1, "total_steps": 10, "pct_start": 0.1}), 1, "must not be 1"),
    (("StepLR", {"step_size": 0}), 2, "Expected positive integer step_size, but got 0"),
    (("CosineAnnealingLR", {"T_max": 0}), 2, "Expected positive T_max, but got 0"),
    (("LambdaLR", {"lr_lambda": 0.5}), 1, "lr_lambda should be a function, but got float"),
    (
        (
            "SequentialLR",
            {"schedulers": [STEP, ("ChainedScheduler", {"schedulers": [STEP]})], "milestones": [2]},
        ),
        3,
        "chained_scheduler",
    ),
    (
        (
            "SequentialLR",
            {
                "schedulers": [STEP, ("SequentialLR", {"schedulers": [STEP], "milestones": []})],
                "milestones": [2],
            },
        ),
        3,
        "sequential_lr",
    ),
    (
        ("SequentialLR", {"schedulers": [STEP, ("LinearLR", {"total_iters": 0})], "milestones": [2]}),
        3,
        "cannot be restarted",
    ),
]


@pytest.mark.parametrize(("spec", "steps", "message"), LATE, ids=lambda value: str(value)[:60])
def test_what_pytorch_fails_at_later(spec, steps, message):
    assert oracle.scheduler_error(spec, steps=steps) is not None
    with pytest.raises((ValueError, TypeError, NotImplementedError), match=message):
        make(spec)


OURS = {
    "negative rate": (lambda s: s.step_lr(-0.1, 3), "Invalid learning rate: -0.1"),
    "rate in a list": (lambda s: s.step_lr([0.1], 3), "lr must be a number or a scalar array"),
    "rate as a vector": (lambda s: s.linear_lr(jnp.ones(2)), "lr must be a number or a scalar array"),
    "fractional step_size": (lambda s: s.step_lr(0.1, 2.5), "integer step_size, but got 2.5"),
    "fractional total_iters": (lambda s: s.linear_lr(0.1, total_iters=2.5), "integer total_iters"),
    "negative milestone": (lambda s: s.multi_step_lr(0.1, [-1]), "integer milestone, but got -1"),
    "milestones out of order": (
        lambda s: s.sequential_lr([s.step_lr(0.1, 3)] * 3, [5, 2]),
        "Expected milestones in order",
    ),
    "different base rates": (
        lambda s: s.chained_scheduler([s.step_lr(0.1, 3), s.exponential_lr(0.2, 0.9)]),
        "same base rate, but got 0.1, 0.2",
    ),
    "no scheduler": (lambda s: s.chained_scheduler([0.1]), "at index 0 should be a scheduler"),
    "unknown warm-up": (lambda s: s.warmup(0.1, 5, shape="cosine"), "shape must be"),
    "empty cycle": (lambda s: s.cyclic_lr(0.1, 1.0, step_size_up=0), "Expected positive step_size_up"),
    "no div_factor": (lambda s: s.one_cycle_lr(0.1, 10, div_factor=0), "Expected positive div_factor"),
}


@pytest.mark.parametrize("case", OURS)
def test_our_words(case):
    build, message = OURS[case]
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        build(schedulers)


def test_beyond_the_end_of_one_cycle():
    spec = ("OneCycleLR", {"max_lr": 0.1, "total_steps": 10})
    kind, message = oracle.scheduler_error(spec, steps=12)
    cycle = make(spec)
    for count in (11, jnp.int32(11), jnp.arange(20)):
        for part in (cycle.lr, cycle.momentum):
            with pytest.raises(kind, match=re.escape(message)):
                part(count)
    # A compiled step cannot raise, and stays at the lowest rate.
    beyond = jax.jit(cycle.lr)(jnp.arange(9, 15))
    assert beyond[0] == beyond[2] == beyond[-1] == jnp.float32(0.1 / 25 / 1e4)
    assert float(jax.jit(cycle.momentum)(99)) == pytest.approx(0.95)


def test_beyond_the_end_in_an_update():
    cycle = schedulers.one_cycle_lr(0.1, total_steps=2)
    tx, params = jo.sgd(lr=cycle.lr), jnp.ones(2)
    state = tx.init(params)
    for _ in range(3):
        _, state = tx.update(params, state, params)
    with pytest.raises(ValueError, match=r"Tried to step 3 times\. The specified number of total steps is 2"):
        tx.update(params, state, params)
