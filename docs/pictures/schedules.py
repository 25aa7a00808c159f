"""Draws ``schedules.svg``: the schedules that people write down by name.

Run ``python -m docs.pictures.schedules`` in the checkout.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from jaxopt_core import schedulers as s
from jaxopt_core.figures import COLORS, STYLE

LR, W, T = 1.0, 10, 100
PANELS = {
    "warm-up, then ...": {
        "cosine": s.sequential_lr([s.warmup(LR, W), s.cosine_annealing_lr(LR, T - W)], [W]),
        "1/sqrt": s.sequential_lr([s.warmup(LR, W), s.inverse_sqrt(LR, W)], [W]),
        "stable, decay": s.warmup_stable_decay(LR, W, 50, 40),
    },
    "decays": {
        "linear": s.linear_lr(LR, 1.0, 0.0, T),
        "(1 - t/T)**2": s.polynomial_lr(LR, T, 2.0),
        "exp(-t/25)": s.exponential_decay(LR, 25),
        "1/(1 + t/10)": s.time_decay(LR, 0.1),
        "steps": s.step_lr(LR, 30, 0.3),
    },
    "cycles": {
        "warm restarts": s.cosine_annealing_warm_restarts(LR, 20, 2),
        "one cycle": s.one_cycle_lr(LR, T).lr,
        "triangular2": s.cyclic_lr(0.1, LR, 15, mode="triangular2").lr,
    },
}


def main() -> None:
    """Writes the picture beside this script."""
    mpl.rcParams |= STYLE | {"svg.hashsalt": "schedules", "svg.fonttype": "path", "font.size": 9.5}
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    for axes, (title, panel) in zip(
        figure.subplots(1, len(PANELS), sharey=True), PANELS.items(), strict=True
    ):
        for color, (name, schedule) in zip(COLORS, panel.items(), strict=False):
            axes.plot(s.evaluate(schedule, T), color=color, label=name)
        axes.set_title(title)
        axes.set_xlabel("update")
        axes.set_ylim(0, 1.4)
        axes.legend(fontsize=8, ncols=2, loc="upper right")
    figure.axes[0].set_ylabel("rate")
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
