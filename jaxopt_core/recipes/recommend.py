"""Ratings by matrix factorisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxopt_core import evaluation
from jaxopt_core.data.batches import Arrays
from jaxopt_core.data.ratings import load_movielens, make_low_rank_ratings
from jaxopt_core.models import MatrixFactorization, NeuralCF, pure
from jaxopt_core.recipes.classification import whole_batch
from jaxopt_core.recipes.names import named
from jaxopt_core.recipes.recipe import Recipe

__all__ = ["build"]

_RANKED_USERS = 500


def build(options: Any) -> Recipe:
    """See :func:`~jaxopt_core.recipes.build_recipe`; ``hidden`` is the number of factors."""
    factors = options.hidden[0] if options.hidden else 4
    kind = named("model", options.model, {"mf": MatrixFactorization, "ncf": NeuralCF})
    ratings = make_low_rank_ratings() if options.data is None else load_movielens(options.data)
    mean = float(np.mean(ratings.train["ratings"]))
    start = {"global_bias": mean} if options.model == "mf" else {}
    model = kind(ratings.num_users, ratings.num_items, factors, **start, rngs=nnx.Rngs(options.seed))
    apply, params, rest = pure(model)
    offset = 0.0 if options.model == "mf" else mean

    def predict(params: Any, rest: Any, batch: Any, **how: Any) -> tuple[jax.Array, Any]:
        found, rest = apply(params, rest, batch["users"], batch["items"], **how)
        return found + offset, rest

    def loss_fn(params: Any, rest: Any, batch: Any, rng: jax.Array) -> Any:
        found, rest = predict(params, rest, batch, train=True, rngs=rng)
        return jnp.mean((found - batch["ratings"]) ** 2), (rest, {})

    def measure(params: Any, rest: Any, batch: Any) -> Any:
        found, _ = predict(params, rest, batch, train=False)
        squares = jnp.where(batch["mask"], (found - batch["ratings"]) ** 2, 0)
        count = batch["mask"].sum(dtype=jnp.int32)
        return {"loss": (squares.sum(), count)}

    test = _used(ratings.test)
    held_out = Arrays(test, whole_batch(len(test["ratings"]), 8192), shuffle=False)

    def examine(params: Any, rest: Any, folder: Path) -> tuple[dict[str, float], list[str]]:
        predicted = jax.jit(lambda batch: predict(params, rest, batch, train=False)[0])
        found = evaluation.collect(predicted, held_out, ["ratings"])
        error = evaluation.SquaredError()
        error.add(found["ratings"], found["output"])
        squares = (found["ratings"] - found["output"]) ** 2
        interval = evaluation.confidence_interval(lambda x: float(np.sqrt(x.mean())), squares)
        ranking = evaluation.Ranking(k=10)
        items = np.arange(ratings.num_items, dtype=np.int32)
        for user in np.unique(test["users"])[:_RANKED_USERS]:
            of_user = {"users": np.full_like(items, user), "items": items}
            scores = np.array(predicted(of_user))
            scores[ratings.train["items"][ratings.train["users"] == user]] = -np.inf
            relevant = np.zeros(len(items))
            mine = test["users"] == user
            relevant[test["items"][mine]] = test["ratings"][mine] > mean
            if relevant.any():
                ranking.add(relevant[None], scores[None])
        evaluation.plot_errors(folder / "errors.png", found["ratings"], found["output"])
        known = {} if ratings.noise is None else {"noise": ratings.noise}
        return {
            "rmse": error.rmse,
            "rmse_low": interval.low,
            "rmse_high": interval.high,
            "mae": error.mae,
            **known,
            "hit_rate_10": ranking.hit_rate,
            "ndcg_10": ranking.ndcg,
        }, ["errors.png"]

    return Recipe(
        title=f"{ratings.name}, {options.model} with {factors} factors: {len(ratings.train['ratings'])} "
        f"ratings to train on, {len(ratings.test['ratings'])} to test",
        params=params,
        rest=rest,
        loss_fn=loss_fn,
        measure=measure,
        train=Arrays(_used(ratings.train), options.batch_size, seed=options.seed, drop_last=True),
        test=held_out,
        per_step=options.batch_size,
        unit="ratings",
        headline="loss",
        best="min",
        examine=examine,
    )


def _used(ratings: dict[str, Any]) -> dict[str, Any]:
    return {name: ratings[name] for name in ("users", "items", "ratings")}
