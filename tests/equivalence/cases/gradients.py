"""Gradients that are zero, huge, tiny, missing, of widely different size, or the problem's own; float64.

Every optimizer runs with all that it has switched on, so that one row exercises every slot.
"""

from tests.equivalence.cases.layout import ORTHOGONAL
from tests.equivalence.rows import EXACT, Row

__all__ = ["EVERYTHING", "GRADIENTS"]

EVERYTHING = {
    "sgd": dict(lr=0.1, momentum=0.9, dampening=0.1, weight_decay=0.1),
    "adam": dict(lr=0.1, betas=(0.8, 0.99), weight_decay=0.1, amsgrad=True),
    "adamw": dict(lr=0.1, betas=(0.8, 0.99), weight_decay=0.1, amsgrad=True),
    "nadam": dict(lr=0.1, betas=(0.8, 0.99), weight_decay=0.1, momentum_decay=0.1),
    "radam": dict(lr=0.1, betas=(0.8, 0.99), weight_decay=0.1),
    "adamax": dict(lr=0.1, betas=(0.8, 0.99), weight_decay=0.1),
    "adadelta": dict(lr=2.0, rho=0.8, weight_decay=0.1),
    "adagrad": dict(lr=0.1, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.1),
    "rmsprop": dict(lr=0.1, alpha=0.9, weight_decay=0.1, momentum=0.5, centered=True),
    "rprop": dict(lr=0.1, etas=(0.4, 1.3), step_sizes=(1e-3, 5.0)),
    "asgd": dict(lr=0.1, lambd=0.1, t0=5, weight_decay=0.1),
    "adafactor": dict(lr=0.3, beta2_decay=-0.5, weight_decay=0.1),
    "muon": dict(lr=0.1, weight_decay=0.5),
}
TREES = {"adafactor": "factored", "muon": "matrices"}
TOLERANCES = {"muon": ORTHOGONAL}
# eps that lets a gradient of 1e-30 matter, and no decay that would drown it.
TINY = {
    "sgd": dict(momentum=0.9, dampening=0.1),
    "adam": dict(lr=0.1, eps=1e-40, amsgrad=True),
    "adamw": dict(lr=0.1, eps=1e-40, amsgrad=True),
    "nadam": dict(lr=0.1, eps=1e-40),
    "radam": dict(lr=0.1, eps=1e-40),
    "adamax": dict(lr=0.1, eps=1e-40),
    "adadelta": dict(eps=1e-80),
    "adagrad": dict(eps=1e-40),
    "rmsprop": dict(eps=1e-40, momentum=0.5, centered=True),
    "rprop": {},
    "asgd": dict(t0=5),
    "adafactor": dict(eps=(1e-40, 1e-3)),
    "muon": dict(eps=1e-40),
}
STEPS = {
    "normal": 100,
    "zero": 10,
    "often zero": 40,
    "huge": 30,
    "spread": 40,
    "some missing": 24,
    "first missing": 8,
}


MIXED = ("normal",)  # with a 4-D kernel and an empty leaf, too


def _row(name: str, arguments: dict, kind: str, steps: int) -> Row:
    tree = TREES.get(name, "mixed" if kind in MIXED else "small")
    tolerance = TOLERANCES.get(name, EXACT)
    return Row(name, arguments, "float64", steps, tolerance, tree, kind)


# Their updates depend on rounding once they swing about the minimum: gentler rates below.
SWINGS = ("adadelta", "adafactor", "muon")

GRADIENTS = [
    *[_row(name, args, kind, steps) for name, args in EVERYTHING.items() for kind, steps in STEPS.items()],
    *[_row(name, args, "quadratic", 100) for name, args in EVERYTHING.items() if name not in SWINGS],
    Row("adadelta", dict(lr=0.2), "float64", 100, EXACT, gradients="quadratic"),
    Row("adafactor", dict(lr=0.05), "float64", 100, EXACT, "factored", "quadratic"),
    Row("muon", dict(lr=0.02), "float64", 100, ORTHOGONAL, "matrices", "quadratic"),
    *[_row(name, args, "tiny", 30) for name, args in TINY.items()],
    *[_row(name, EVERYTHING[name], "never", 10) for name in ("sgd", "adam", "nadam", "adagrad", "muon")],
    Row("sgd", dict(momentum=0.9, nesterov=True), "float64", 24, EXACT, gradients="some missing"),
    Row("adam", {}, "float64", 24, EXACT, gradients="some missing"),
    Row("sgd", {}, "float64", 24, EXACT, gradients="some missing"),
    Row("rprop", {}, "float64", 100, EXACT, gradients="quadratic"),
    Row("adafactor", {}, "float64", 10, EXACT, "factored", "zero"),
]
