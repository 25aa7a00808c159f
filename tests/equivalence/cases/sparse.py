"""SparseAdam: gradients of some rows of a table."""

import dataclasses

from tests.equivalence.rows import EXACT, HALF, NOISE, By, Row, Schedule, given

__all__ = ["SPARSE"]

F64, F32, BF16 = "float64", "float32", "bfloat16"
RATES = {0: 0.1, 5: 0.03, 9: 0.3}

# No foreach, no fused: one other arithmetic alone measures PyTorch's noise. It is within 4.2 ulp of the loop
# at the end of these rows, and we within 2.5 ulp of it.
SPARSE_NOISE = dataclasses.replace(NOISE, ulps=6)

SPARSE = [
    Row("sparse_adam", {}, F64, 100, EXACT, "all tables", "rows"),
    Row("sparse_adam", dict(lr=0.1), F64, 30, EXACT, "tables", "now and then rows"),
    Row("sparse_adam", dict(lr=0.1), F64, 30, EXACT, "tables", "repeated row"),
    Row("sparse_adam", dict(lr=0.1), F64, 15, EXACT, "tables", "rows missing"),
    Row("sparse_adam", dict(betas=(0.5, 0.9)), F64, 50, EXACT, "tables", "rows"),
    Row("sparse_adam", dict(betas=(0.0, 0.0)), F64, 50, EXACT, "tables", "rows"),
    Row("sparse_adam", dict(eps=0.1), F64, 50, EXACT, "tables", "rows"),
    Row("sparse_adam", dict(maximize=True), F64, 50, EXACT, "tables", "rows"),
    Row("sparse_adam", dict(lr=0.1), F64, 15, EXACT, "tables", "rows", dict(lr=RATES)),
    Row("sparse_adam", dict(lr=Schedule(lambda t: 0.1 / (t + 1))), F64, 15, EXACT, "tables", "rows"),
    Row("sparse_adam", dict(lr=By({"words": 0.1}, 0.01)), F64, 15, EXACT, "tables", "rows"),
    Row("sparse_adam", dict(betas=(given(0.9), 0.9)), F64, 15, EXACT, "tables", "rows"),
    Row("sparse_adam", {}, F32, 100, SPARSE_NOISE, "tables", "rows"),
    Row("sparse_adam", dict(lr=0.1), F32, 30, SPARSE_NOISE, "tables", "now and then rows"),
    Row("sparse_adam", dict(lr=0.1), BF16, 50, HALF, "tables", "rows"),
]
