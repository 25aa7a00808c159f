"""Runs rows where JAX has one CPU device, as most users' laptops have, and with `jo.setup_cpu()`.

There a step is compiled to one pass over memory (here for small parameters too), which the test session
does not do. `test_one_cpu.py` runs this in a process of its own:

    python -m tests.equivalence.one_cpu
"""

import sys

import jax

import jaxopt_core as jo
from jaxopt_core import cpu
from tests.equivalence.cases.gradients import EVERYTHING
from tests.equivalence.harness import check
from tests.equivalence.rows import EXACT, NOISE, By, Row

ELEMENTWISE = [name for name in EVERYTHING if name not in ("adafactor", "muon", "nadam", "asgd")]
ROWS = [
    *[Row(o, a, "float64", 20, EXACT, "twins") for o, a in EVERYTHING.items() if o != "muon"],
    *[Row(o, EVERYTHING[o], "float64", 20, EXACT, "twins", bucketed=True) for o in ELEMENTWISE],
    *[Row(o, EVERYTHING[o], "float32", 20, NOISE, "twins", bucketed=True) for o in ELEMENTWISE],
    Row("adam", {}, "float64", 12, EXACT, "twins", "some missing"),
    Row("adam", {}, "float64", 12, EXACT, "mixed"),
    Row("adamw", dict(lr=By({"^1": 0.1}, 0.01)), "float64", 12, EXACT, "twins"),
    Row("adamw", dict(lr=By({"^1": 0.1}, 0.01)), "float64", 12, EXACT, "twins", bucketed=True),
    Row("adamw", dict(weight_decay=By({"bias$": 0.0}, 0.1)), "float64", 12, EXACT, "twins"),
    Row("rmsprop", dict(momentum=By({"^0": 0.9}, 0.0)), "float64", 12, EXACT, "twins"),
]


def main() -> int:
    """Prints the rows that fail, and returns how many."""
    jo.setup_cpu()
    assert jax.device_count() == 1, jax.devices()
    cpu._SMALLEST = 0
    assert cpu._fuses_outputs()
    failed = 0
    for row in ROWS:
        try:
            check(row)
        except AssertionError as error:
            failed += 1
            sys.stdout.write(f"{row}: {error}\n")
    sys.stdout.write(f"{len(ROWS)} rows, {failed} failed\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
