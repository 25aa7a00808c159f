"""Small things to search: a quadratic in parts, and a linear fit by minibatches."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_core as jo
from jaxopt_core.training import init_state, make_step
from jaxopt_core.tuning import Setup, Trainable, minibatch_trainable


def _advance(config, state):
    key, x = state["key"], state["x"] * (1 - config["lr"])
    noise = jax.random.normal(jax.random.fold_in(key, 0)) * config.get("noise", 0.0)
    return {"key": jax.random.split(key)[0], "x": x}, {"loss": x * x + noise}


SHRINKING = Trainable(lambda config: {"key": jax.random.key(0), "x": jnp.float32(1)}, _advance, parts=9)


def loss_fn(params, rest, batch, rng):
    del rng
    return jnp.mean((batch["x"] @ params - batch["y"]) ** 2), (rest, {})


def linear(parts=1, epochs=2):
    """AdamW or SGD on 64 rows, 16 at a time."""
    x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    data = {"x": x, "y": x @ np.float32([1, 2, 3])}

    def setup(config, updates):
        del updates
        make = {"adamw": jo.adamw, "sgd": jo.sgd}[config.get("optimizer", "sgd")]
        tx = make(lr=config["lr"])

        def score_fn(state, valid):
            return {"loss": loss_fn(state.params, {}, valid, None)[0], "w": state.params}

        return Setup(init_state(jnp.zeros(3), {}, tx), make_step(loss_fn, tx), score_fn)

    return minibatch_trainable(setup, data, data, parts=parts, epochs=epochs, batch_size=16)


@contextlib.contextmanager
def counting_compilations():
    """A list that gets an element for every program that XLA compiles."""
    found = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
