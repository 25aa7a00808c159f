"""Models and programs that are cheap to make: what a test costs here is compiling."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def blank(leaf):
    """A value for a leaf that no one has given a value: a key, or zeros."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key(0)
    return jnp.asarray(np.zeros(leaf.shape, leaf.dtype))


def quick(make, seed=0):
    """A model of random weights, of which none are its own starting values, in evaluation mode."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return blank(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator="/").split("/")[-1]
        centre = 1.0 if name in ("scale", "var") else 0.0
        return jnp.asarray((centre + rng.uniform(-0.5, 0.5, leaf.shape)).astype(leaf.dtype))

    graph, state = nnx.split(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))
    model = nnx.merge(graph, jax.tree_util.tree_map_with_path(fill, nnx.as_pure(state)))
    model.eval()
    return model
