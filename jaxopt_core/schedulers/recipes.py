"""The schedules that people write down by name, each a line of the schedulers here.

With ``s = jaxopt_core.schedulers``, ``W`` steps of warm-up and ``T`` steps in all::

    warm-up into cosine       s.sequential_lr([s.warmup(lr, W), s.cosine_annealing_lr(lr, T - W)], [W])
    other warm-ups            s.warmup(lr, W, shape="exponential"), s.warmup(lr, W, shape="constant")
    polynomial (1 - t/T)**p   s.polynomial_lr(lr, T, power=p)
    inverse square root       s.sequential_lr([s.warmup(lr, W), s.inverse_sqrt(lr, W)], [W])
    constant                  lr, or in a sequence s.constant_lr(lr, factor=1.0)
    warm-up, stable, decay    s.warmup_stable_decay(lr, W, stable, decay)
    linear decay 1 - t/T      s.linear_lr(lr, 1.0, 0.0, total_iters=T)
    exponential exp(-t/tau)   s.exponential_decay(lr, tau)
    time decay 1 / (1 + k t)  s.time_decay(lr, k)
    step decay                s.step_lr(lr, step_size, gamma)

``jaxopt-core plot-schedule --schedules "time_decay(0.1, 0.05)" "step_lr(0.1, 30)"`` draws such lines.
"""

from __future__ import annotations

import math
from typing import Any

from jaxopt_core.schedulers.base import Scheduler, whole
from jaxopt_core.schedulers.compose import sequential_lr
from jaxopt_core.schedulers.functions import lambda_lr
from jaxopt_core.schedulers.linear import constant_lr, linear_lr
from jaxopt_core.schedulers.space import Space
from jaxopt_core.schedulers.step import exponential_lr

__all__ = ["exponential_decay", "inverse_sqrt", "time_decay", "warmup", "warmup_stable_decay"]


def warmup(lr: Any, steps: int, start_factor: float = 0.01, shape: str = "linear") -> Scheduler:
    """From ``lr * start_factor`` to ``lr`` in ``steps``, and ``lr`` from then on.

    Args:
      lr: the rate to reach, a number or a scalar array.
      steps: length of the warm-up.
      start_factor: where it starts, as a fraction of ``lr``. Default 0.01.
      shape: ``"linear"``; ``"exponential"``, by a constant factor a step; or ``"constant"``, at
        ``lr * start_factor`` until the end of the warm-up. Default ``"linear"``.

    Returns:
      A schedule, ``count -> rate``; the first of a :func:`sequential_lr`, usually.

    Raises:
      ValueError: ``shape`` is unknown, ``start_factor`` is not between 0 and 1, or ``steps`` is no positive
        integer.

    Example:
      >>> import jaxopt_core as jo
      >>> s = jo.schedulers
      >>> schedule = s.sequential_lr([s.warmup(1.0, 2), s.cosine_annealing_lr(1.0, 4)], [2])
      >>> [f"{schedule(count):.3f}" for count in range(5)]
      ['0.010', '0.505', '1.000', '0.854', '0.500']
    """
    steps = whole("steps", steps)
    if not 0 < start_factor <= 1:
        raise ValueError(f"Expected start_factor greater than 0 and at most 1, but got {start_factor}")
    if shape == "linear":
        return linear_lr(lr, start_factor, 1.0, steps)
    if shape == "constant":
        return constant_lr(lr, start_factor, steps)
    if shape != "exponential":
        raise ValueError(f"shape must be 'linear', 'exponential' or 'constant', but got {shape!r}")

    def exponential_warmup(count: Any) -> Any:
        space = Space(count)
        left = space.xp.maximum(steps - space.count(count), 0)
        return space.xp.exp(space.real(left) / steps * math.log(start_factor))

    return lambda_lr(lr, exponential_warmup)


def warmup_stable_decay(
    lr: Any, warmup_steps: int, stable_steps: int, decay_steps: int, end_factor: float = 0.0
) -> Any:
    """A linear warm-up, a plain, and a line down to ``lr * end_factor``.

    Source: Hu et al., "MiniCPM: Unveiling the Potential of Small Language Models", 2024.

    Args:
      lr: the rate of the plain, a number or a scalar array.
      warmup_steps: length of the warm-up, which starts at a hundredth of ``lr``.
      stable_steps: length of the plain.
      decay_steps: length of the decay.
      end_factor: where it ends, as a fraction of ``lr``. Default 0.

    Returns:
      A schedule, ``count -> rate``.

    Example:
      >>> import jaxopt_core as jo
      >>> schedule = jo.schedulers.warmup_stable_decay(1.0, 2, 3, 2)
      >>> [f"{schedule(count):.3f}" for count in range(8)]
      ['0.010', '0.505', '1.000', '1.000', '1.000', '1.000', '0.500', '0.000']
    """
    parts = [warmup(lr, warmup_steps), linear_lr(lr, 1.0, end_factor, decay_steps)]
    return sequential_lr(
        [parts[0], constant_lr(lr, 1.0), parts[1]], [warmup_steps, warmup_steps + stable_steps]
    )


def inverse_sqrt(lr: Any, timescale: float) -> Scheduler:
    """``lr / sqrt(1 + count / timescale)``.

    After ``W`` steps of warm-up, with ``timescale=W``, this is the Transformer's ``lr * sqrt(W / t)``.

    Source: Vaswani et al., "Attention Is All You Need", 2017, equation 3.

    Args:
      lr: base rate, a number or a scalar array.
      timescale: counts after which the rate has fallen by the square root of 2.

    Returns:
      A schedule, ``count -> rate``.

    Example:
      >>> import jaxopt_core as jo
      >>> [f"{jo.schedulers.inverse_sqrt(1.0, 1)(count):.3f}" for count in (0, 1, 3)]
      ['1.000', '0.707', '0.500']
    """
    _require_positive("timescale", timescale)

    def inverse_sqrt(count: Any) -> Any:
        space = Space(count)
        return 1 / space.xp.sqrt(1 + space.real(count) / timescale)

    return lambda_lr(lr, inverse_sqrt)


def exponential_decay(lr: Any, timescale: float) -> Scheduler:
    """``lr * exp(-count / timescale)``.

    Args:
      lr: base rate, a number or a scalar array.
      timescale: counts after which the rate has fallen by a factor of e.

    Returns:
      A schedule, ``count -> rate``.

    Example:
      >>> import jaxopt_core as jo
      >>> [f"{jo.schedulers.exponential_decay(1.0, 10)(count):.3f}" for count in (0, 10, 20)]
      ['1.000', '0.368', '0.135']
    """
    _require_positive("timescale", timescale)
    return exponential_lr(lr, math.exp(-1 / timescale))


def time_decay(lr: Any, k: float) -> Scheduler:
    """``lr / (1 + k * count)``.

    Args:
      lr: base rate, a number or a scalar array.
      k: speed of the decay, for each count.

    Returns:
      A schedule, ``count -> rate``.

    Example:
      >>> import jaxopt_core as jo
      >>> [f"{jo.schedulers.time_decay(1.0, 0.5)(count):.3f}" for count in (0, 2, 6)]
      ['1.000', '0.500', '0.250']
    """
    if not k >= 0:
        raise ValueError(f"Expected k of at least 0, but got {k}")

    def time_decay(count: Any) -> Any:
        return 1 / (1 + Space(count).real(count) * k)

    return lambda_lr(lr, time_decay)


def _require_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"Expected positive {name}, but got {value}")
