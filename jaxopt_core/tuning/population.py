"""Population-based training inside one compiled program."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxopt_core.tuning.halving import only_group, over_trials, scores
from jaxopt_core.tuning.keys import as_data, as_keys
from jaxopt_core.tuning.programs import How, choose_how
from jaxopt_core.tuning.space import Float, Space
from jaxopt_core.tuning.trainable import Trainable
from jaxopt_core.tuning.trials import Direction, TrialsFailedError, check_direction

__all__ = ["Population", "population_based_training"]


@dataclasses.dataclass(frozen=True)
class Population:
    """What came of a population.

    Attributes:
      schedule: the best member's hyperparameters in each part, ``(parts,)`` each: those of the weights that
        it ended with, back through everyone that they were copied from.
      metrics: of the best member and its ancestors, ``(parts,)`` each.
      state: the best member's state after the last part.
      configs: of all members in every part, ``(parts, members)`` each.
      scores: their metric, ``(parts, members)``.
      parents: whose weights each had at the beginning of the part, ``(parts, members)``.
      compile_seconds: what compiling took.
      seconds: what everything took.
    """

    schedule: dict[str, np.ndarray[Any, Any]]
    metrics: dict[str, np.ndarray[Any, Any]]
    state: Any
    configs: dict[str, np.ndarray[Any, Any]]
    scores: np.ndarray[Any, Any]
    parents: np.ndarray[Any, Any]
    compile_seconds: float
    seconds: float


def population_based_training(
    trainable: Trainable,
    space: Space,
    *,
    members: int = 16,
    metric: str,
    direction: Direction = "minimize",
    quantile: float = 0.25,
    factors: tuple[float, float] = (0.8, 1.25),
    resample: float = 0.25,
    seed: int = 0,
    how: How = "auto",
    traced: Collection[str] = ("seed",),
) -> Population:
    """Trains a population; after every part the worst copy the weights of the best and vary their values.

    Weights, optimizer states and hyperparameters move inside one compiled program; nothing waits for the
    host. What is found is a schedule of hyperparameters, not one value.

    Source: Jaderberg et al., "Population Based Training of Neural Networks", 2017, with truncation selection.

    Args:
      trainable: of several parts; ``advance`` must take the hyperparameters from its configuration, as
        :func:`~jaxopt_core.tuning.minibatch_trainable` does.
      space: :class:`~jaxopt_core.tuning.Float` ranges and constants.
      members: of the population. Default 16.
      metric: to compare.
      direction: of the better values. Default ``"minimize"``.
      quantile: the part of the population that is replaced, and that is copied. Default 0.25.
      factors: by one of which a copied value is multiplied, within its range. Default (0.8, 1.25).
      resample: probability with which it is drawn anew instead. Default 0.25.
      seed: of the population and its variations.
      how: as for :func:`~jaxopt_core.tuning.sweep`.
      traced: likewise.

    Raises:
      ValueError: an argument is out of range, or the space has choices or whole numbers to search.
      TrialsFailedError: no member ends with a finite metric.

    Example:
      >>> def advance(config, x):
      ...     x = x - config["lr"] * x
      ...     return x, {"loss": x * x}
      >>> trainable = Trainable(lambda config: jnp.float32(1), advance, parts=8)
      >>> found = population_based_training(trainable, Space({"lr": Float(0.01, 0.9)}), metric="loss")
      >>> found.schedule["lr"].shape, bool(found.metrics["loss"][-1] < 1e-6)
      ((8,), True)
    """
    check_direction(direction)
    count = int(quantile * members)
    if not 1 <= count <= members // 2:
        raise ValueError(
            f"quantile: expected one or more and at most half of the {members} members to be replaced, got "
            f"{quantile}, which makes {count}"
        )
    for name, each in space.dimensions.items():
        if not isinstance(each, Float):
            raise ValueError(f"{name}: a population can vary real numbers only; expected Float, got {each!r}")
    start = time.perf_counter()
    rng = np.random.default_rng(seed)
    configs = [space.sample(rng) for _ in range(members)]
    group = only_group(configs, traced)
    sign = 1.0 if direction == "minimize" else -1.0
    lifted = over_trials(choose_how(how, jax.local_devices()[0]))
    ranges = {name: each for name, each in space.dimensions.items() if isinstance(each, Float)}

    def program(numbers: Any, key: jax.Array, args: Any) -> Any:
        like = jax.eval_shape(
            lambda: trainable.init(group.join(jax.tree.map(lambda x: x[0], numbers)), *args)
        )
        state = lifted(lambda one: as_data(trainable.init(group.join(one), *args)), numbers)

        def train(one: Any) -> Any:
            number, state = one
            state, metrics = trainable.advance(group.join(number), as_keys(state, like), *args)
            return as_data(state), dict(metrics)

        def generation(carry: Any, part_and_key: Any) -> tuple[Any, Any]:
            state, numbers, score = carry
            part, key = part_and_key
            order = jnp.argsort(score)
            stay = jnp.arange(members)
            chosen = jnp.where(part > 0, stay.at[order[-count:]].set(order[:count]), stay)
            state, numbers = jax.tree.map(lambda x: x[chosen], (state, numbers))
            for i, (name, range_) in enumerate(ranges.items()):
                varied = _vary(range_, numbers[name], jax.random.fold_in(key, i), factors, resample)
                numbers[name] = jnp.where(chosen == stay, numbers[name], varied)
            state, metrics = lifted(train, (numbers, state))
            return (state, numbers, scores(metrics[metric], sign)), (numbers, metrics, chosen)

        parts = jnp.arange(trainable.parts), jax.random.split(key, trainable.parts)
        first: Any = state, numbers, jnp.zeros(members)
        (state, *_), history = jax.lax.scan(generation, first, parts)
        return state, history

    inputs = group.stack(configs), jax.random.key(seed), trainable.args
    compiled = jax.jit(program).lower(*inputs).compile()
    compile_seconds = time.perf_counter() - start
    state, (numbers, metrics, parents) = compiled(*inputs)
    numbers, metrics, parents = jax.tree.map(np.asarray, (numbers, metrics, parents))
    final = np.where(np.isfinite(metrics[metric][-1]), sign * metrics[metric][-1], np.inf)
    best = int(np.argmin(final))
    if not np.isfinite(final[best]):
        raise TrialsFailedError(f"none of {members} members ended with a finite {metric}")
    line = _ancestors(parents, best)
    parts = np.arange(trainable.parts)
    like = jax.eval_shape(
        lambda: trainable.init(group.join({n: v[0, 0] for n, v in numbers.items()}), *trainable.args)
    )
    return Population(
        {name: values[parts, line] for name, values in numbers.items()},
        {name: values[parts, line] for name, values in metrics.items()},
        as_keys(jax.tree.map(lambda x: x[best], state), like),
        numbers,
        metrics[metric],
        parents,
        compile_seconds,
        time.perf_counter() - start,
    )


def _vary(
    range_: Float, values: jax.Array, key: jax.Array, factors: tuple[float, float], resample: float
) -> Any:
    """Values a step up or down, or drawn anew, within their range."""
    how, where, which = jax.random.split(key, 3)
    dtype, shape = values.dtype, values.shape
    low, high = (
        jnp.log(jnp.asarray(b, dtype)) if range_.log else jnp.asarray(b, dtype)
        for b in (range_.low, range_.high)
    )
    drawn = low + (high - low) * jax.random.uniform(where, shape, dtype)
    drawn = jnp.exp(drawn) if range_.log else drawn
    stepped = values * jnp.asarray(factors, dtype)[jax.random.bernoulli(which, 0.5, shape).astype(jnp.int32)]
    new = jnp.where(jax.random.uniform(how, shape) < resample, drawn, stepped)
    return jnp.clip(new, jnp.asarray(range_.low, dtype), jnp.asarray(range_.high, dtype))


def _ancestors(parents: np.ndarray[Any, Any], best: int) -> np.ndarray[Any, Any]:
    """In each part, the member whose weights became the best one's."""
    line = [best]
    for part in range(len(parents) - 1, 0, -1):
        line.append(int(parents[part, line[-1]]))
    return np.asarray(line[::-1])
