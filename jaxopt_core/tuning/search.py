"""Random search, and choosing a value by cross-validation, in one call each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxopt_core.tuning.space import Config, Space
from jaxopt_core.tuning.sweep import Sweep, sweep
from jaxopt_core.tuning.trainable import Trainable
from jaxopt_core.tuning.trials import Direction, TrialsFailedError, check_direction

__all__ = ["CrossValidated", "cross_validate", "random_search"]


def random_search(
    train: Trainable | Callable[..., Any], space: Space, *, trials: int = 64, seed: int = 0, **options: Any
) -> Sweep:
    """A :func:`~jaxopt_core.tuning.sweep` over random configurations.

    Source: Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", 2012.

    Args:
      train: as for :func:`~jaxopt_core.tuning.sweep`.
      space: to draw from.
      trials: how many. Default 64.
      seed: of the draws.
      **options: as for :func:`~jaxopt_core.tuning.sweep`.

    Example:
      >>> from jaxopt_core.tuning import Float, Space
      >>> found = random_search(lambda config: config["x"] ** 2, Space({"x": Float(-1.0, 1.0)}), trials=100)
      >>> bool(found.best().metrics["value"] < 1e-3)
      True
    """
    if trials < 1:
        raise ValueError(f"trials: expected 1 or more, got {trials}")
    rng = np.random.default_rng(seed)
    return sweep(train, [space.sample(rng) for _ in range(trials)], **options)


@dataclasses.dataclass(frozen=True)
class CrossValidated:
    """What came of a cross-validation.

    Attributes:
      best: the configuration with the best mean.
      means: over the folds, ``(configs,)``; NaN where a fold failed.
      errors: standard errors of the means, ``(configs,)``.
      values: of the metric, ``(configs, folds)``.
      sweep: all trials.
    """

    best: Config
    means: np.ndarray[Any, Any]
    errors: np.ndarray[Any, Any]
    values: np.ndarray[Any, Any]
    sweep: Sweep


def cross_validate(
    train_fn: Callable[[Config, Any, Any], Any],
    configs: Sequence[Config],
    data: Mapping[str, Any],
    *,
    folds: int = 5,
    metric: str = "value",
    direction: Direction = "minimize",
    seed: int = 0,
    **options: Any,
) -> CrossValidated:
    """Chooses among configurations, such as learning rates, by k-fold cross-validation in one program.

    All folds of all configurations are trials of one sweep. Folds have equal sizes: up to ``folds - 1``
    examples that the division leaves over are in no fold.

    Args:
      train_fn: ``(config, train, valid) -> metrics``, pure; trains on the one and measures on the other.
      configs: to choose from.
      data: name -> array, examples along the first axis.
      folds: Default 5.
      metric: to compare. Default ``"value"``, of a function that returns one number.
      direction: of the better values. Default ``"minimize"``.
      seed: of the assignment of examples to folds.
      **options: as for :func:`~jaxopt_core.tuning.sweep`.

    Raises:
      ValueError: there are fewer examples than folds, or fewer than two folds.
      TrialsFailedError: no configuration has a finite metric in every fold.

    Example:
      >>> import jax.numpy as jnp, jaxopt_core as jo
      >>> x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
      >>> def train_fn(config, train, valid):
      ...     ridge = train["x"].T @ train["x"] + config["penalty"] * jnp.eye(2)
      ...     w = jnp.linalg.solve(ridge, train["x"].T @ train["y"])
      ...     return jnp.mean((valid["x"] @ w - valid["y"]) ** 2)
      >>> data = {"x": x, "y": x @ np.float32([1, 2])}
      >>> cross_validate(train_fn, [{"penalty": 10.0}, {"penalty": 0.1}], data).best
      {'penalty': 0.1}
    """
    check_direction(direction)
    examples = len(next(iter(data.values())))
    if not 2 <= folds <= examples:
        raise ValueError(f"folds: expected 2 to {examples}, the number of examples, got {folds}")
    order = np.random.default_rng(seed).permutation(examples)[: examples // folds * folds].reshape(folds, -1)
    # Row f: the fold that is left out, and the others.
    inside = np.stack([np.delete(order, f, axis=0).reshape(-1) for f in range(folds)])
    arrays = {name: jnp.asarray(array) for name, array in data.items()}
    indices = jnp.asarray(inside, jnp.int32), jnp.asarray(order, jnp.int32)

    def of_fold(config: Config, arrays: Any, inside: Any, outside: Any) -> Any:
        config = dict(config)
        fold = config.pop("fold")
        train, valid = ({name: x[rows[fold]] for name, x in arrays.items()} for rows in (inside, outside))
        return train_fn(config, train, valid)

    every = [{**config, "fold": fold} for config in configs for fold in range(folds)]
    traced = (*options.pop("traced", ("seed",)), "fold")
    result = sweep(of_fold, every, args=(arrays, *indices), traced=traced, **options)
    found = [
        trial.metrics.get(metric, np.nan) if trial.status == "complete" else np.nan for trial in result.trials
    ]
    values = np.asarray(found, np.float64).reshape(len(configs), folds)
    means, sign = values.mean(axis=1), 1.0 if direction == "minimize" else -1.0
    if not np.isfinite(means).any():
        failure = next((trial.failure for trial in result.trials if trial.failure), f"{metric} is not finite")
        raise TrialsFailedError(f"no configuration has a finite {metric} in every fold: {failure}")
    best = int(np.argmin(np.where(np.isfinite(means), sign * means, np.inf)))
    return CrossValidated(
        dict(configs[best]), means, values.std(axis=1, ddof=1) / np.sqrt(folds), values, result
    )
