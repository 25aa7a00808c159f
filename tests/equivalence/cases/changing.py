"""Hyperparameters that change during the run: by `set_hyperparams`, and by a function of the count."""

from typing import Any

from tests.equivalence.cases.gradients import EVERYTHING, TOLERANCES, TREES
from tests.equivalence.cases.precision import TOLERANCES32
from tests.equivalence.rows import EXACT, NOISE, Row, Schedule, given

__all__ = ["CHANGING"]

F64, F32 = "float64", "float32"
RATES = {0: 0.1, 5: 0.03, 11: 0.3, 12: 0.0, 14: 0.05}
ON = {0: 0.0, 6: 0.9}
OFF_AND_ON = {0: 0.9, 5: 0.0, 9: 0.8}
DECAY = {0: 0.1, 4: 0.0, 8: 0.3}
EPS = {0: 1e-8, 5: 0.1}
BETA1 = {0: (0.9, 0.999), 7: (0.3, 0.999)}
BETA2 = {0: (0.9, 0.999), 7: (0.9, 0.5)}
BETAS = {0: (0.9, 0.9), 13: (0.3, 0.99)}
STEP_SIZES = {0: (1e-3, 0.1), 7: (2e-2, 0.02)}


def _decays(t: int) -> float:
    return 0.2 * 0.85**t


def _late(t: int) -> float:
    return 0.0 if t < 5 else 0.9


def _row(name: str, arguments: dict, gradients: str = "normal", **changes: dict[int, Any]) -> Row:
    """Twenty steps in float64, with what changes and when."""
    tolerance, tree = TOLERANCES.get(name, EXACT), TREES.get(name, "small")
    return Row(name, arguments, F64, 20, tolerance, tree, gradients, changes)


def _scheduled_with_gaps(name: str) -> Row:
    arguments, tolerance = {**EVERYTHING[name], "lr": Schedule(_decays)}, TOLERANCES32.get(name, NOISE)
    return Row(name, arguments, F32, 20, tolerance, TREES.get(name, "small"), "some missing")


CHANGING = [
    *[_row(name, {**arguments, "lr": 0.1}, lr=RATES) for name, arguments in EVERYTHING.items()],
    *[_row(name, {**arguments, "lr": Schedule(_decays)}) for name, arguments in EVERYTHING.items()],
    *[_scheduled_with_gaps(name) for name in ("sgd", "adam", "nadam", "rprop", "asgd", "muon")],
    _row("sgd", dict(momentum=given(0.0)), momentum=ON),
    _row("sgd", dict(momentum=given(0.0), dampening=0.3), momentum=ON),
    _row("sgd", dict(momentum=given(0.0), dampening=given(0.3)), momentum=ON),
    _row("sgd", dict(momentum=given(0.0), dampening=0.3), "some missing", momentum=ON),
    _row("sgd", dict(momentum=given(0.9), dampening=0.3), momentum=OFF_AND_ON),
    _row("sgd", dict(momentum=given(0.9)), momentum=OFF_AND_ON),
    _row("sgd", dict(momentum=given(0.9), nesterov=True), momentum={0: 0.9, 7: 0.5}),
    _row("sgd", dict(momentum=given(0.9), dampening=given(0.0)), dampening=ON),
    _row("sgd", dict(momentum=0.9, dampening=given(0.5)), dampening={0: 0.5, 6: 0.0}),
    _row("sgd", dict(weight_decay=given(0.1), maximize=True), weight_decay=DECAY),
    _row("sgd", dict(momentum=Schedule(_late), dampening=0.3), "some missing"),
    _row("adam", dict(betas=(given(0.9), 0.999)), betas=BETA1),
    _row("adam", dict(betas=(0.9, given(0.999))), betas=BETA2),
    _row("adam", dict(betas=(given(0.9), given(0.9))), betas=BETAS),
    _row("adam", dict(betas=(Schedule(_decays), 0.99))),
    _row("adam", dict(eps=given(1e-8), amsgrad=True), eps=EPS),
    _row("adam", dict(weight_decay=given(0.0)), weight_decay=ON),
    _row("adam", dict(weight_decay=given(0.1)), lr=RATES, weight_decay=DECAY),
    _row("adamw", dict(weight_decay=given(0.1)), lr=RATES, weight_decay=DECAY),
    _row("adamw", dict(weight_decay=given(0.1)), "some missing", weight_decay=DECAY),
    _row("nadam", dict(momentum_decay=given(0.0)), momentum_decay=ON),
    _row("nadam", dict(betas=(given(0.9), given(0.9))), betas=BETAS),
    _row("nadam", dict(weight_decay=given(0.1), eps=given(1e-8)), weight_decay=DECAY, eps=EPS),
    _row("radam", dict(betas=(given(0.9), given(0.9))), betas=BETAS),
    _row("radam", dict(weight_decay=given(0.1), eps=given(1e-8)), weight_decay=DECAY, eps=EPS),
    _row("adamax", dict(betas=(given(0.9), given(0.9))), betas=BETAS),
    _row("adamax", dict(weight_decay=given(0.1), eps=given(1e-8)), weight_decay=DECAY, eps=EPS),
    _row("adadelta", dict(rho=given(0.9), eps=given(1e-8)), rho={0: 0.9, 7: 0.3}, eps=EPS),
    _row("adadelta", dict(weight_decay=given(0.1)), weight_decay=DECAY),
    _row("adagrad", dict(lr_decay=given(0.0), eps=given(1e-8)), lr_decay=ON, eps=EPS),
    _row("adagrad", dict(weight_decay=given(0.1)), weight_decay=DECAY),
    _row("adagrad", dict(initial_accumulator_value=given(0.2))),
    _row("rmsprop", dict(alpha=given(0.9), eps=given(1e-8)), alpha={0: 0.9, 7: 0.3}, eps=EPS),
    _row("rmsprop", dict(momentum=given(0.9), centered=True), momentum={0: 0.9, 7: 0.5}),
    _row("rmsprop", dict(momentum=given(0.9)), momentum=OFF_AND_ON),
    _row("rmsprop", dict(weight_decay=given(0.1)), weight_decay=DECAY),
    _row("rprop", dict(etas=(given(0.5), given(1.2))), etas={0: (0.5, 1.2), 7: (0.3, 1.5)}),
    _row("rprop", dict(step_sizes=(given(1e-3), given(0.1))), step_sizes=STEP_SIZES),
    _row("asgd", dict(lambd=given(0.1), alpha=given(0.7)), lambd={0: 0.1, 6: 0.3}, alpha={0: 0.7, 9: 0.3}),
    _row("asgd", dict(t0=given(5.0), weight_decay=given(0.1)), t0={0: 5.0, 15: 10.0}, weight_decay=DECAY),
    _row("adafactor", dict(beta2_decay=given(-0.8)), beta2_decay={0: -0.8, 6: -0.3}),
    _row("adafactor", dict(d=given(1.0), weight_decay=given(0.1)), d={0: 1.0, 9: 2.0}, weight_decay=DECAY),
    _row("adafactor", dict(eps=(given(1e-8), given(1e-3))), eps={0: (1e-8, 1e-3), 8: (0.5, 2.0)}),
    _row("adafactor", dict(eps=(None, given(1e-3))), eps={0: (None, 1e-3), 8: (None, 2.0)}),
    _row("muon", dict(momentum=given(0.9), weight_decay=given(0.1)), momentum=OFF_AND_ON, weight_decay=DECAY),
    _row("muon", dict(eps=given(1e-7)), eps={0: 1e-7, 5: 10.0}),
    Row("adam", dict(betas=(given(0.9), given(0.999))), F32, 100, NOISE),
    Row("adamw", dict(betas=(given(0.9), given(0.999)), eps=given(1e-8)), F32, 100, NOISE),
    Row("nadam", dict(betas=(given(0.9), given(0.999)), momentum_decay=given(4e-3)), F32, 100, NOISE),
    Row("radam", dict(betas=(given(0.9), given(0.999))), F32, 100, NOISE),
    Row("adamax", dict(betas=(given(0.9), given(0.999))), F32, 100, NOISE),
    Row("rmsprop", dict(alpha=given(0.99), centered=True), F32, 100, NOISE),
    Row("adadelta", dict(rho=given(0.9)), F32, 100, NOISE),
    Row("asgd", dict(lambd=given(1e-4), alpha=given(0.75), t0=given(10.0)), F32, 100, NOISE),
]
