"""Draws ``mistakes.png`` and ``attributions.png``: what a small network gets wrong, and what it looks at.

Run ``python -m docs.pictures.digits`` in the checkout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import optax
from flax import nnx

import jaxopt_core as jo
from jaxopt_core import data, evaluation
from jaxopt_core.models import MLP, pure

FOLDER = Path(__file__).parent
DIGITS = data.load_digits()
APPLY, PARAMS, REST = pure(MLP((64, 64, 10), rngs=nnx.Rngs(0)))


def logits_of(params: Any, images: jax.Array) -> jax.Array:
    """Scores of ``(N, 8, 8)`` or ``(N, 64)`` images."""
    return APPLY(params, REST, images.reshape(len(images), 64), train=False)[0]


def train(epochs: int) -> Any:
    """The parameters after some epochs."""
    tx = jo.adamw(lr=3e-3)

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> Any:
        def loss_fn(params: Any) -> jax.Array:
            logits = logits_of(params, batch["images"])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
            return losses.mean(where=batch["mask"])

        updates, state = tx.update(jax.grad(loss_fn)(params), state, params)
        return jo.apply_updates(params, updates), state

    params, state = PARAMS, tx.init(PARAMS)
    batches = data.Arrays(DIGITS.train._asdict(), 64)
    for _ in range(epochs):
        for batch in batches:
            params, state = step(params, state, batch)
    return params


def main() -> None:
    """Draws both."""
    params = train(epochs=6)
    images, labels = DIGITS.test.images.reshape(-1, 8, 8), DIGITS.test.labels
    probabilities = jax.nn.softmax(logits_of(params, images))
    evaluation.plot_mistakes(FOLDER / "mistakes.png", images, labels, probabilities)
    some = images[:8]
    explained = evaluation.integrated_gradients(lambda x: logits_of(params, x), some)
    saliency = evaluation.saliency(lambda x: logits_of(params, x), some)
    maps = {"saliency": saliency, "integrated\ngradients": explained.attributions}
    evaluation.plot_attributions(FOLDER / "attributions.png", some, maps)


if __name__ == "__main__":
    main()
