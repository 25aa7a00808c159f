"""A small problem for the loop: two classes, a network with dropout and a running mean, data with a state."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_core as jo
from jaxopt_core.training import init_state, make_step


class Shuffled:
    """Batches in a new order each epoch, with a position that can be kept."""

    def __init__(self, examples=56, batch_size=8, seed=0):
        rng = np.random.default_rng(100)
        self.x = rng.normal(size=(examples, 4)).astype(np.float32)
        self.y = (self.x[:, 0] > 0).astype(np.int32)
        self.batch_size, self.seed = batch_size, seed
        self.epoch = self.index = 0

    def __len__(self):
        return len(self.y) // self.batch_size

    def __iter__(self):
        if self.index == len(self):
            self.epoch, self.index = self.epoch + 1, 0
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.y))
        while self.index < len(self):
            picked = order[self.index * self.batch_size :][: self.batch_size]
            self.index += 1
            yield {"x": self.x[picked], "y": self.y[picked]}

    def state(self):
        return {"epoch": self.epoch, "index": self.index}

    def restore(self, state):
        self.epoch, self.index = state["epoch"], state["index"]


def loss_fn(params, rest, batch, rng):
    hidden = jax.nn.relu(batch["x"] @ params["first"]["kernel"])
    hidden = hidden * jax.random.bernoulli(rng, 0.9, hidden.shape).astype(jnp.float32)
    logits = hidden @ params["second"]["kernel"]
    mean = 0.9 * rest["mean"] + 0.1 * hidden.mean()
    right = (logits.argmax(-1).astype(jnp.int32) == batch["y"]).mean(dtype=jnp.float32)
    return jo.losses.cross_entropy(logits, batch["y"]), ({"mean": mean}, {"accuracy": right})


def eval_fn(state, batch):
    hidden = jax.nn.relu(batch["x"] @ state.params["first"]["kernel"])
    losses = jo.losses.cross_entropy(hidden @ state.params["second"]["kernel"], batch["y"], reduction="none")
    return {"loss": (losses.sum(), jnp.asarray(losses.size))}


@functools.cache
def default_step():
    """One for all tests, so that it is compiled once."""
    tx = jo.adamw(lr=1e-2)
    return tx, make_step(loss_fn, tx)


def start(tx=None, seed=0, **options):
    """State and step."""
    tx, step = (tx, make_step(loss_fn, tx, **options)) if tx else default_step()
    keys = jax.random.split(jax.random.key(seed))
    params = {
        "first": {"kernel": 0.5 * jax.random.normal(keys[0], (4, 16))},
        "second": {"kernel": 0.5 * jax.random.normal(keys[1], (16, 2))},
    }
    return init_state(params, {"mean": jnp.zeros(())}, tx, seed=seed), step


def assert_same_bits(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        is_key = jnp.issubdtype(one.dtype, jax.dtypes.prng_key)
        pair = map(jax.random.key_data, (one, other)) if is_key else (one, other)
        np.testing.assert_array_equal(*pair)
