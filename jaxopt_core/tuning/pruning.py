"""Successive halving for trials that report together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaxopt_core.extras import needs_extra

if TYPE_CHECKING:
    import optuna

__all__ = ["halving_pruner"]


def halving_pruner(factor: int = 3, first: int = 1) -> optuna.pruners.BasePruner:
    """An Optuna pruner that keeps the best ``1/factor`` after parts ``first``, ``first * factor``, ...

    A trial is compared with all that have reported at the same part, those of its own batch, of batches
    before and of other workers.

    Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020 (ASHA). Optuna's
    ``SuccessiveHalvingPruner`` is the same for trials that report one by one; of a batch that reports
    together it compares each only with those whose turn came before.

    Args:
      factor: how many compete for a place. Default 3.
      first: part after which trials are compared for the first time. Default 1.

    Raises:
      ValueError: ``factor`` is below 2 or ``first`` below 1.
    """
    if factor < 2 or first < 1:
        raise ValueError(f"expected factor of 2 or more and first of 1 or more, got {factor} and {first}")
    with needs_extra("tune"):
        from optuna.pruners import BasePruner

    class HalvingPruner(BasePruner):
        def prune(self, study: optuna.Study, trial: Any) -> bool:
            step = trial.last_step
            if step is None or not _is_rung(step, factor, first):
                return False
            sign = 1 if study.direction.name == "MINIMIZE" else -1
            reported = [
                sign * other.intermediate_values[step]
                for other in study.get_trials(deepcopy=False)
                if step in other.intermediate_values
            ]
            places = -(-len(reported) // factor)
            own = sign * trial.intermediate_values[step]
            return sum(value < own for value in reported) >= places

    return HalvingPruner()


def _is_rung(step: int, factor: int, first: int) -> bool:
    rung = first
    while rung < step:
        rung *= factor
    return rung == step
