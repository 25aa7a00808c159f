"""Adafactor and Muon, which depend on how a tensor is laid out; and Muon's arguments.

`axes` maps our layout onto PyTorch's: (in, out) kernels onto (out, in), HWIO convolutions onto OIHW.
"""

import dataclasses

from tests.equivalence.rows import EXACT, NOISE, Row

__all__ = ["LAYOUT", "ORTHOGONAL", "ORTHOGONAL_NOISE"]

F64, F32 = "float64", "float32"
# Newton-Schulz is bfloat16 whatever the parameter. It follows PyTorch's to the bit, but for rare roundings
# that fall the other way: in 4 of 240 leaves over 50 steps, worth up to 9e-4 of an element.
ORTHOGONAL = dataclasses.replace(EXACT, strays=1, stray_rtol=2e-3)
ORTHOGONAL_NOISE = dataclasses.replace(NOISE, strays=1, stray_rtol=2e-3)
FLAX = {"layers/0/kernel": (1, 0), "layers/1/kernel": (0, 2, 1), "conv/kernel": (3, 2, 0, 1)}
SWAPPED = {"tall": (1, 0), "wide": (1, 0), "row": (1, 0), "column": (1, 0)}

LAYOUT = [
    Row("adafactor", {}, F64, 100, EXACT, "factored", axes=FLAX),
    Row("adafactor", dict(lr=0.3, weight_decay=0.1), F64, 100, EXACT, "factored", axes=FLAX),
    Row("adafactor", dict(lr=0.3, weight_decay=0.1), F32, 100, NOISE, "factored", axes=FLAX),
    Row("adafactor", dict(lr=0.3), F64, 12, EXACT, "factored", "some missing", axes=FLAX),
    Row("muon", {}, F64, 100, ORTHOGONAL, "all matrices"),
    Row("muon", {}, F64, 100, ORTHOGONAL, "all matrices", axes=SWAPPED),
    Row("muon", dict(adjust_lr_fn="match_rms_adamw"), F64, 50, ORTHOGONAL, "all matrices", axes=SWAPPED),
    Row("muon", {}, F64, 12, ORTHOGONAL, "all matrices", "some missing", axes=SWAPPED),
    Row("muon", dict(lr=0.1), F64, 50, ORTHOGONAL, "matrices"),
    Row("muon", dict(lr=0.1, weight_decay=0), F64, 50, ORTHOGONAL, "matrices"),
    Row("muon", dict(momentum=0.3), F64, 50, ORTHOGONAL, "matrices"),
    Row("muon", dict(momentum=0), F64, 50, ORTHOGONAL, "matrices"),
    Row("muon", dict(nesterov=False), F64, 50, ORTHOGONAL, "matrices"),
    Row("muon", dict(nesterov=False, momentum=0.5), F64, 50, ORTHOGONAL, "matrices"),
    Row("muon", dict(ns_coefficients=(2.0, -1.5, 0.5)), F64, 50, ORTHOGONAL, "matrices"),
    Row("muon", dict(ns_steps=2), F64, 50, ORTHOGONAL, "matrices"),
    Row("muon", dict(ns_steps=0), F64, 50, ORTHOGONAL, "matrices"),
    Row("muon", dict(eps=10.0), F64, 50, ORTHOGONAL, "matrices"),
    Row("muon", dict(adjust_lr_fn="original"), F64, 50, ORTHOGONAL, "matrices"),
    Row("muon", dict(adjust_lr_fn="match_rms_adamw"), F64, 50, ORTHOGONAL, "matrices"),
]
