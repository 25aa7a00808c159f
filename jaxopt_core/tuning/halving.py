"""Successive halving inside one compiled program."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_core.tuning.keys import as_data, as_keys
from jaxopt_core.tuning.programs import How, choose_how
from jaxopt_core.tuning.space import Config
from jaxopt_core.tuning.structure import Group, group
from jaxopt_core.tuning.sweep import Sweep
from jaxopt_core.tuning.trainable import Trainable
from jaxopt_core.tuning.trials import Direction, Trial, check_direction

__all__ = ["only_group", "over_trials", "scores", "successive_halving"]


def successive_halving(
    trainable: Trainable,
    configs: Sequence[Config],
    *,
    metric: str,
    direction: Direction = "minimize",
    factor: int = 3,
    how: How = "auto",
    traced: Collection[str] = ("seed",),
) -> Sweep:
    """Trains all configurations for a part, the better ones for a few more, the best to the end.

    After parts 1, ``factor``, ``factor**2``, ... the best ``1/factor`` go on. Choosing them and moving their
    weights together happens inside one compiled program, so nothing waits for the host.

    Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
    2016.

    Args:
      trainable: of several parts.
      configs: of one structure; see :func:`~jaxopt_core.tuning.sweep`.
      metric: to compare. One that is not finite is worse than any that is.
      direction: of the better values. Default ``"minimize"``.
      factor: how many compete for a place. Default 3.
      how: as for :func:`~jaxopt_core.tuning.sweep`.
      traced: likewise.

    Returns:
      A :class:`~jaxopt_core.tuning.Sweep`; those that were given up are ``"pruned"``.

    Raises:
      ValueError: an argument is out of range, or the configurations differ in structure.

    Example:
      >>> def advance(config, x):
      ...     x = x - config["lr"] * x
      ...     return x, {"loss": x * x}
      >>> trainable = Trainable(lambda config: jnp.float32(1), advance, parts=9)
      >>> result = successive_halving(trainable, [{"lr": 0.1 * i} for i in range(1, 10)], metric="loss")
      >>> [len(trial.history) for trial in result.trials], result.best("loss").config
      ([1, 1, 1, 1, 1, 1, 3, 3, 9], {'lr': 0.9})
    """
    check_direction(direction)
    if factor < 2:
        raise ValueError(f"factor: expected 2 or more, got {factor}")
    start = time.perf_counter()
    each = only_group(configs, traced)
    rungs = _rungs(len(configs), trainable.parts, factor)
    sign = 1.0 if direction == "minimize" else -1.0
    lifted = over_trials(choose_how(how, jax.local_devices()[0]))

    def program(numbers: Any, args: Any) -> Any:
        places = jnp.arange(len(configs))
        state = lifted(lambda one: as_data(trainable.init(each.join(one), *args)), numbers)
        like = jax.eval_shape(lambda: trainable.init(each.join(_first(numbers)), *args))
        kept = []
        for parts, survivors in rungs:

            def part(one: Any) -> Any:
                number, state = one
                state, metrics = trainable.advance(each.join(number), as_keys(state, like), *args)
                return as_data(state), dict(metrics)

            def step(state: Any, _: Any, numbers: Any = numbers, part: Any = part) -> Any:
                return lifted(part, (numbers, state))

            state, metrics = jax.lax.scan(step, state, length=parts)
            kept.append((places, metrics))
            best = jnp.argsort(scores(metrics[metric][-1], sign))[:survivors]
            places, numbers, state = jax.tree.map(lambda x, best=best: x[best], (places, numbers, state))
        return kept

    compiled = jax.jit(program).lower(each.stack(configs), trainable.args).compile()
    compile_seconds = time.perf_counter() - start
    kept = jax.tree.map(np.asarray, compiled(each.stack(configs), trainable.args))
    trials = [Trial(number, dict(config), status="pruned") for number, config in enumerate(configs)]
    for places, metrics in kept:
        for i, place in enumerate(places):
            for part in range(len(next(iter(metrics.values())))):
                trials[place].history.append({name: float(value[part][i]) for name, value in metrics.items()})
    for trial in trials:
        trial.metrics = trial.history[-1]
        if not np.isfinite(trial.metrics[metric]):
            trial.fail(f"{metric} is {trial.metrics[metric]} after part {len(trial.history)}")
        elif len(trial.history) == trainable.parts:
            trial.status = "complete"
    return Sweep(trials, 1, compile_seconds, time.perf_counter() - start)


def only_group(configs: Sequence[Config], traced: Collection[str]) -> Group:
    """The group of configurations that must all have one structure, the members in their order."""
    if not configs:
        raise ValueError("configs: expected at least one, got none")
    groups = group(configs, traced)
    if len(groups) > 1:
        first, other = (configs[each.members[0]] for each in groups[:2])
        raise ValueError(
            f"expected configurations that differ in real numbers only, as trials copy each other's weights; "
            f"found {first} and {other}. Use study(...) for several structures"
        )
    return groups[0]


def over_trials(how: str) -> Any:
    """``map(f, batched)`` of that kind."""
    return jax.lax.map if how == "map" else lambda fn, batched: jax.vmap(fn)(batched)


def scores(values: jax.Array, sign: float) -> jax.Array:
    """Smaller is better, and what is not finite is worst."""
    return jnp.where(jnp.isfinite(values), sign * values, jnp.inf)


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[0], tree)


def _rungs(trials: int, parts: int, factor: int) -> list[tuple[int, int]]:
    """Parts to train before each choice, and how many are chosen."""
    rungs, done, rung = [], 0, 1
    while done < parts:
        trials = -(-trials // factor)
        upto = min(rung, parts) if trials > 1 or rung < parts else parts
        rungs.append((upto - done, trials))
        done, rung = upto, rung * factor
    return rungs
