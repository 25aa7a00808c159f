"""float32, bfloat16 and float16: as close to PyTorch as PyTorch is to itself.

The learning rates are such that half-precision parameters move.
"""

import dataclasses

from tests.equivalence.cases.gradients import EVERYTHING, TREES
from tests.equivalence.cases.layout import ORTHOGONAL_NOISE
from tests.equivalence.rows import HALF, NOISE, Row

__all__ = ["PRECISION", "TOLERANCES32"]

F32, BF16, F16 = "float32", "bfloat16", "float16"
TOLERANCES32 = {"muon": ORTHOGONAL_NOISE}
DEFAULTS: dict[str, dict] = {name: {} for name in EVERYTHING}
TOLERANCES16 = {"muon": dataclasses.replace(HALF, strays=1, stray_rtol=5e-2)}
# Squares of 1e-15 are normal numbers in float32, those of 1e-30 are not: there only the slots move.
SMALL = {
    "sgd": dict(momentum=0.9, dampening=0.1),
    "adam": dict(lr=0.1, eps=1e-25, amsgrad=True),
    "adamw": dict(lr=0.1, eps=1e-25, amsgrad=True),
    "nadam": dict(lr=0.1, eps=1e-25),
    "radam": dict(lr=0.1, eps=1e-25),
    "adamax": dict(lr=0.1, eps=1e-25),
    "adadelta": dict(eps=1e-28),
    "adagrad": dict(eps=1e-25),
    "rmsprop": dict(eps=1e-25, momentum=0.5),
    "rprop": {},
    "asgd": dict(t0=5),
    "adafactor": dict(eps=(1e-18, 1e-3)),
    "muon": dict(eps=1e-25),
}
# Adafactor's product of two averages overflows in float32: PyTorch, and we, then make no update. PyTorch's
# factor of decay, rounded to float32, is off by half an ulp at each of the 30 steps.
OVERFLOW = dataclasses.replace(NOISE, variants=("foreach",), ulps=15)
# The product of two of Rprop's gradients of 1e-30 is 0 in float32, but not one precision wider.
UNDERFLOW = dataclasses.replace(NOISE, variants=("foreach",))


def _rows(arguments: dict, dtype: str, steps: int, tree: str, gradients: str = "normal") -> list[Row]:
    tolerances, usual = (TOLERANCES32, NOISE) if dtype == F32 else (TOLERANCES16, HALF)
    return [
        Row(name, args, dtype, steps, tolerances.get(name, usual), TREES.get(name, tree), gradients)
        for name, args in arguments.items()
    ]


PRECISION = [
    *_rows(DEFAULTS, F32, 100, "small"),
    *_rows(EVERYTHING, F32, 100, "real"),
    *_rows({o: a for o, a in EVERYTHING.items() if o != "adafactor"}, F32, 30, "few", "huge"),
    Row("adafactor", dict(lr=0.3, weight_decay=0.1), F32, 30, OVERFLOW, "factored", "huge"),
    *_rows(SMALL, F32, 30, "few", "small"),
    *_rows({o: {} for o in EVERYTHING if o != "rprop"}, F32, 10, "few", "tiny"),
    Row("rprop", {}, F32, 10, UNDERFLOW, "few", "tiny"),
    Row("adam", {}, F32, 500, NOISE, "few"),
    Row("nadam", {}, F32, 500, NOISE, "few"),
    Row("radam", {}, F32, 500, NOISE, "few"),
    *_rows({o: dict(lr=0.05) for o in EVERYTHING}, BF16, 100, "few"),
    *_rows(EVERYTHING, BF16, 100, "real"),
    *_rows(EVERYTHING, F16, 100, "real"),
]
