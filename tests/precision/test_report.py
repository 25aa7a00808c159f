"""The report: what ran in what, where, and why."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jaxopt_core.precision import autocast_report, no_autocast


def model(w, x):
    with jax.named_scope("head"):
        y = jax.nn.softmax(x @ w)
    with no_autocast():
        z = y @ w
    return lax.scan(lambda c, _: (jnp.tanh(c @ w), None), z, length=2)[0], jnp.var(x)


W, X = jnp.eye(4), jnp.ones((3, 4))
ROWS = autocast_report(model)(W, X)


def test_products():
    found = [(row.ran, row.scope, row.why, row.shape) for row in ROWS if row.name == "dot_general"]
    assert found == [
        ("bfloat16", "head", "low list", (3, 4)),
        ("float32", "no_autocast", "no_autocast: as traced", (3, 4)),
        ("bfloat16", "", "low list", (3, 4)),  # inside of the loop
    ]


def test_every_row_names_a_line_of_this_file():
    first = model.__code__.co_firstlineno
    for row in ROWS:
        assert f"{__file__}:" in row.source, row
        line = int(row.source.removeprefix(f"{__file__}:").split(":")[0])
        assert first < line <= first + 5


def test_equal_rows_are_counted():
    rows = autocast_report(lambda w, x: sum(x @ w for _ in range(3)))(W, X)
    assert [(row.name, row.times) for row in rows][:1] == [("dot_general", 3)]


def test_as_text():
    lines = str(ROWS).splitlines()
    assert lines[0].split() == ["operation", "ran", "in", "times", "source", "scope", "why"]
    assert len(lines) == len(ROWS) + 1
    assert "precision/test_report.py:" in lines[1]
    assert any(line.startswith("exp[3,4]") and "float32 list" in line for line in lines)


def test_the_other_type():
    assert autocast_report(jnp.matmul, "float16")(X, W)[0].ran == "float16"


def test_a_gradient_can_be_reported():
    rows = autocast_report(jax.grad(lambda w: jnp.sum(jnp.tanh(X @ w))))(W)
    assert [row.ran for row in rows if row.name == "dot_general"] == ["bfloat16"] * 2
