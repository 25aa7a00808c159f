"""A run in bfloat16 is as good as one in float32."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import jaxopt_core as jo
from jaxopt_core.data import load_digits
from jaxopt_core.models import MLP, pure
from jaxopt_core.precision import autocast


def accuracy(transform):
    data = load_digits()
    apply, params, rest = pure(MLP((64, 64, 10), rngs=nnx.Rngs(0)))
    tx = jo.adamw(lr=1e-2)

    def logits(params, x):
        return apply(params, rest, x, train=True)[0]

    def loss(params, x, y):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y))

    def step(carry, batch):
        params, state = carry
        grads = jax.grad(transform(loss))(params, *batch)
        updates, state = tx.update(grads, state, params)
        return (jo.apply_updates(params, updates), state), None

    @jax.jit
    def train(params, state, x, y, key):
        def epoch(carry, key):
            order = jax.random.permutation(key, len(y))[: len(y) // 96 * 96].reshape(-1, 96)
            return jax.lax.scan(step, carry, (x[order], y[order]))

        return jax.lax.scan(epoch, (params, state), jax.random.split(key, 12))[0][0]

    params = train(params, tx.init(params), data.train.images, data.train.labels, jax.random.key(0))
    predicted = jnp.argmax(transform(logits)(params, data.test.images), -1)
    return float(jnp.mean(predicted == data.test.labels))


@pytest.mark.slow
def test_digits_in_bfloat16_within_one_point():
    exact, low = accuracy(lambda f: f), accuracy(functools.partial(autocast, dtype=jnp.bfloat16))
    assert exact > 0.93
    assert low > exact - 0.01
