"""Runs a row on both sides and compares every parameter and every slot after every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tests import oracle
from tests.equivalence import measure, trees
from tests.equivalence.ours import Record, run_ours
from tests.equivalence.rows import Row, Tolerance
from tests.equivalence.theirs import run_torch

__all__ = ["check"]


def check(row: Row, params: Mapping[str, np.ndarray] | None = None) -> None:
    """Fails with the first value that differs by more than the row's tolerance.

    Args:
      row: the case.
      params: initial values, path -> array in PyTorch's layout; by default those of the row's tree.
    """
    guard = params is None and row.gradients in ("normal", "quadratic")
    if params is None:
        params = trees.parameters(row.tree, row.dtype)
    grads = _gradients(row, params)
    with jax.enable_x64(row.dtype == "float64"):
        ours = run_ours(row, params, grads)
    histories = run_torch(row, params, grads)
    if guard:
        _check_that_it_moves(row, params, histories[row.tolerance.reference])
    if row.bucketed:
        histories = {v: [step._replace(slots={}) for step in history] for v, history in histories.items()}
    compare(ours, histories, row.tolerance, params)
    _check_steps(ours, grads)


def _gradients(row: Row, params: Mapping[str, np.ndarray]) -> Any:
    if row.gradients == "quadratic":
        return trees.quadratic(params)
    return trees.flat_gradients(row.gradients, params, row.dtype, row.steps)


def compare(
    ours: Record,
    histories: Mapping[str, Sequence[oracle.Step]],
    tolerance: Tolerance,
    initial: Mapping[str, Any],
) -> None:
    expected = measure.series(histories[tolerance.reference])
    noise = measure.noise(histories, initial, tolerance.reference)
    made = {name for name in expected if name != "step"}
    extra = set(ours) - made - {"step", "count"} - {"momentum_buffer_set"}
    assert made <= set(ours), f"slots {sorted(made - set(ours))} are missing; there are {sorted(ours)}"
    assert not extra, f"slots {sorted(extra)} are not PyTorch's"
    misses: dict[str, str] = {}
    for name in sorted(made, key=lambda n: n == "params"):
        for path, values in expected[name].items():
            start = initial[path] if name in measure.FROM_PARAMS else None
            found = _miss(f"{name} of {path!r}", ours[name].get(path), values, start, noise[name], tolerance)
            if found:
                assert found.error <= tolerance.stray_rtol, found.message
                misses.setdefault(path, found.message)
    assert len(misses) <= tolerance.strays, next(iter(misses.values()))


class _Miss(NamedTuple):
    error: float
    message: str


def _miss(
    label: str, actual: Any, expected: Sequence[Any], start: Any, noise: np.ndarray, tolerance: Tolerance
) -> _Miss | None:
    """The first step at which a series is over its limit, and its largest error."""
    made = [t for t, value in enumerate(expected) if value is not None]
    if not made:
        return None
    assert actual is not None, f"{label}: PyTorch has it, we do not"
    have, want = actual[made[0]], expected[made[0]]
    assert have is not None, f"{label} at step {made[0] + 1}: PyTorch has it, we do not"
    assert have.shape == want.shape, f"{label}: shape {have.shape}, PyTorch's {want.shape}"
    assert have.dtype == want.dtype, f"{label}: dtype {have.dtype}, PyTorch's {want.dtype}"
    assert noise.max() < 0.5, (
        f"{label}: PyTorch disagrees with itself by {noise.max():.3g}; this tests nothing"
    )
    errors = measure.relative_errors(actual, expected, start)
    limits = np.fmax(tolerance.floor(want.dtype), tolerance.factor * noise)
    if (errors <= limits).all():
        return None
    t = int(np.argmax(~(errors <= limits)))
    message = (
        f"{label} at step {t + 1}: relative error {errors[t]:.3g} is over {limits[t]:.3g} "
        f"({tolerance.reason})\n ours    {np.ravel(actual[t])[:6]}\n PyTorch {np.ravel(expected[t])[:6]}"
    )
    return _Miss(float(errors.max()), message)


def _check_steps(ours: Record, grads: Any) -> None:
    """A parameter's step is the number of gradients it has had, and is kept only if steps differ."""
    if callable(grads):
        grads = [{}] * len(ours["count"][""])
    had = np.cumsum([[g is not None for g in step.values()] for step in grads], axis=0)
    for t, count in enumerate(ours["count"][""]):
        assert count == t + 1, f"count is {count} after {t + 1} updates"
    if any(map(_incomplete, grads)):
        for i, path in enumerate(grads[0]):
            first = next(t for t, step in enumerate(grads) if _incomplete(step))
            assert ours["step"][path][:first] == [None] * first, (
                "slots['step'] came before a gradient was missing"
            )
            assert [int(s) for s in ours["step"][path][first:]] == had[first:, i].tolist(), (
                f"step of {path!r}"
            )
    else:
        assert "step" not in ours, "slots['step'] without a missing gradient"


def _check_that_it_moves(row: Row, params: Mapping[str, np.ndarray], history: Sequence[oracle.Step]) -> None:
    """Guards a row against comparing nothing, as it would in bfloat16 with a small learning rate."""
    if row.arguments.get("lr") == 0:
        return
    for path, value in params.items():
        moved = value.size == 0 or any(not np.array_equal(step.params[path], value) for step in history)
        assert moved, f"PyTorch never changes {path!r}: the row tests nothing"


def _incomplete(step: Mapping[str, Any]) -> bool:
    return any(grad is None for grad in step.values())
