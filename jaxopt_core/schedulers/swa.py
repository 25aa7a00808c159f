"""The annealing to a constant rate that stochastic weight averaging wants."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxopt_core.schedulers.base import Group, Scheduler, check_rate
from jaxopt_core.schedulers.space import Space

__all__ = ["swa_lr"]


def swa_lr(lr: Any, swa_lr: Any, anneal_epochs: Any = 10, anneal_strategy: str = "cos") -> Scheduler:
    """Anneals the rate from ``lr`` to ``swa_lr`` and keeps it there, as ``torch.optim.swa_utils.SWALR``.

    ``lr * (1 - alpha) + swa_lr * alpha``, where ``alpha`` rises from 0 to 1 in ``anneal_epochs`` counts,
    along half a cosine or a line.

    Args:
      lr: the rate at count 0. As a later child of ``sequential_lr`` the annealing starts, as in PyTorch, from
        whatever the rate is there.
      swa_lr: the rate to end at.
      anneal_epochs: counts of the annealing. Default 10.
      anneal_strategy: ``"cos"`` or ``"linear"``. Default ``"cos"``.

    Returns:
      A schedule, ``count -> rate``.

    Raises:
      ValueError: in PyTorch's words; a rate is negative.

    Example:
      Train with one schedule for 75 epochs, then average:

      >>> import jaxopt_core as jo
      >>> s = jo.schedulers
      >>> schedule = s.sequential_lr([s.step_lr(0.1, 50), s.swa_lr(0.1, 0.05, anneal_epochs=5)], [75])
      >>> [f"{schedule(count):.3f}" for count in (0, 50, 75, 80, 99)]
      ['0.100', '0.010', '0.010', '0.050', '0.050']
    """
    check_rate(lr)
    check_rate(swa_lr, "swa_lr")
    if anneal_strategy not in ("cos", "linear"):
        raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
    if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
        raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
    return _SWA(lr, swa_lr, anneal_epochs, anneal_strategy)


@dataclasses.dataclass(frozen=True, repr=False)
class _SWA(Scheduler):
    lr: Any
    swa_lr: Any
    anneal_epochs: int
    anneal_strategy: str
    name = "swa_lr"

    def __call__(self, count: Any) -> Any:
        space = Space(count, self.lr, self.swa_lr)
        before, after = self._weights(space, space.count(count))
        return space.done(space.real(self.lr) * before + space.real(self.swa_lr) * after)

    def enter(self, group: Group) -> None:
        super().enter(group)
        group["swa_lr"] = self.swa_lr

    def first(self, group: Group) -> Any:
        return self.step(group, 0, 1)

    def restart(self, group: Group) -> Any:
        return self.step(group, 0, 1)

    def step(self, group: Group, epoch: Any, calls: Any) -> Any:
        del epoch
        space = Space(group["lr"], group["swa_lr"], calls)
        lr, target = space.real(group["lr"]), space.real(group["swa_lr"])
        step = space.count(calls) - 1
        step = step if self.anneal_epochs else space.xp.maximum(step, 1)
        old, reached = self._weights(space, step - 1)
        before, after = self._weights(space, step)
        over = old == 0
        start = space.xp.where(over, target, (lr - reached * target) / space.xp.where(over, 1, old))
        return space.done(start * before + target * after)

    def _weights(self, space: Space, count: Any) -> tuple[Any, Any]:
        """Of the rate at the start and of the one at the end; each exact where it is small."""
        steps = max(1, self.anneal_epochs)
        done = space.xp.clip(count, 0, steps) if self.anneal_epochs else space.xp.ones_like(count)
        if self.anneal_strategy == "cos":
            return space.wave(steps - done, steps), space.wave(done, steps)
        return space.real(steps - done) / steps, space.real(done) / steps
