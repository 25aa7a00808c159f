"""The recipes' formulas, and pictures of schedules."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_core import schedulers as s
from jaxopt_core.schedulers.expression import parse

T, W = 100, 10
T_AXIS = np.arange(T)
RECIPES = {
    "linear warm-up into cosine": (
        s.sequential_lr([s.warmup(0.1, W), s.cosine_annealing_lr(0.1, T - W)], [W]),
        lambda t: 0.01 + 0.99 * t / W if t < W else (1 + math.cos(math.pi * (t - W) / (T - W))) / 2,
    ),
    "exponential warm-up": (s.warmup(0.1, W, shape="exponential"), lambda t: 0.01 ** max(1 - t / W, 0)),
    "constant warm-up": (s.warmup(0.1, W, 0.2, "constant"), lambda t: 0.2 if t < W else 1.0),
    "polynomial": (s.polynomial_lr(0.1, T, power=3), lambda t: (1 - t / T) ** 3),
    "inverse square root": (
        s.sequential_lr([s.warmup(0.1, W), s.inverse_sqrt(0.1, W)], [W]),
        lambda t: 0.01 + 0.99 * t / W if t < W else math.sqrt(W / t),
    ),
    "constant": (s.constant_lr(0.1, 1.0), lambda t: 1.0),
    "warm-up, stable, decay": (
        s.warmup_stable_decay(0.1, W, 50, T - W - 50),
        lambda t: 0.01 + 0.99 * t / W if t < W else min(1.0, (T - t) / (T - W - 50)),
    ),
    "linear decay": (s.linear_lr(0.1, 1.0, 0.0, total_iters=T), lambda t: 1 - t / T),
    "exponential decay": (s.exponential_decay(0.1, 30), lambda t: math.exp(-t / 30)),
    "time decay": (s.time_decay(0.1, 0.3), lambda t: 1 / (1 + 0.3 * t)),
    "step decay": (s.step_lr(0.1, 30, 0.5), lambda t: 0.5 ** (t // 30)),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_formula(recipe):
    schedule, factor = RECIPES[recipe]
    expected = [0.1 * factor(t) for t in range(T)]
    np.testing.assert_allclose(schedule(T_AXIS), expected, rtol=1e-12, atol=1e-17)
    np.testing.assert_allclose(jax.jit(schedule)(jnp.arange(T)), schedule(T_AXIS), rtol=1e-6)


def pixels(path):
    from matplotlib.image import imread

    return imread(path)


def test_plot(tmp_path):
    one, cycle = s.one_cycle_lr(0.1, total_steps=50), s.cyclic_lr(0.1, 0.2, 10, cycle_momentum=False)
    s.plot(s.step_lr(0.1, 10), 50, tmp_path / "one.png")
    s.plot([s.step_lr(0.1, 10), s.step_lr(0.1, 10)], 50, tmp_path / "two.png")
    s.plot(
        {"a": one, "b": cycle, "c": s.multiplicative_lr(0.1, lambda t: 0.9)}, 50, tmp_path / "momentum.png"
    )
    s.plot(s.step_lr(0.1, 10), 50, tmp_path / "log.png", log=True)
    heights = {name: pixels(tmp_path / f"{name}.png").shape[0] for name in ("one", "two", "momentum", "log")}
    assert heights["one"] == heights["log"] < heights["two"] < heights["momentum"]
    assert (pixels(tmp_path / "log.png") != pixels(tmp_path / "one.png")).any()
    with pytest.raises(ValueError, match="at least one schedule"):
        s.plot([], 50, tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"depends on its metric: give values"):
        s.plot(s.reduce_lr_on_plateau(0.1), 50, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_evaluate():
    np.testing.assert_array_equal(s.evaluate(s.step_lr(0.1, 3), 7), s.step_lr(0.1, 3)(np.arange(7)))
    np.testing.assert_allclose(s.evaluate(lambda count: jnp.where(count < 2, 1.0, 0.5), 4), [1, 1, 0.5, 0.5])
    slow = s.reduce_lr_on_plateau(1.0, factor=0.5, patience=0, per_epoch=True)
    assert s.evaluate(slow, 4, values=[1.0, 1.0, 1.0]).tolist() == [1.0, 1.0, 0.5, 0.25]


@pytest.mark.parametrize(
    "text",
    [
        "sequential_lr([warmup(0.1, 5, shape='exponential'), step_lr(1/10, 3, gamma=0.5)], milestones=[5])",
        "chained_scheduler([constant_lr(0.2 - 0.1, factor=1/2), exponential_lr(0.1, 0.9)])",
        "cyclic_lr(0.1, 2*0.1, 4, None, 'triangular2').",
    ],
)
def test_expression(text):
    text = text.rstrip(".")
    schedule, same = parse(text), eval(text, vars(s))
    schedule, same = (each.lr if isinstance(each, s.Cycle) else each for each in (schedule, same))
    np.testing.assert_array_equal(schedule(np.arange(20)), same(np.arange(20)))


@pytest.mark.parametrize(
    "text",
    [
        *("", "step_lr", "1", "step_lr(", "f(1)", "__import__('os').system('true')", "step_lr(0.1, **{})"),
        *(
            "step_lr(*[1, 2])",
            "step_lr(0.1, [i for i in (1,)])",
            "step_lr(0.1, 1/0)",
            "step_lr(0.1, 'a' * 9)",
        ),
        *(
            "lambda_lr(0.1, lambda t: t)",
            "reduce_lr_on_plateau(0.1)",
            "plot(1, 2, 'x')",
            "step_lr(True + 1, 3.5)",
        ),
        *("(" * 500, "step_lr(0.1, " + "-" * 5000 + "1)", "step_lr()", "step_lr(0.1, size=3)"),
    ],
    ids=lambda text: text[:30] or "empty",
)
def test_wrong_expression_is_one_line(text):
    with pytest.raises(ValueError, match=r"^[^\n]{1,400}$"):
        parse(text)
