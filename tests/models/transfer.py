"""PyTorch's names and layouts for the trees of a model, and back."""

import jax
import jax.numpy as jnp
import numpy as np

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


def to_torch(*trees):
    """The leaves of all trees as ``{PyTorch's name: array in PyTorch's layout}``."""
    found = {}
    for tree in trees:
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                name = _name(path)
                assert name not in found
                found[name] = np.moveaxis(np.asarray(leaf), *_axes(path, leaf.ndim))
    return found


def from_torch(state, tree):
    """A tree like the given one, with PyTorch's numbers in the leaves."""

    def take(path, leaf):
        value = np.moveaxis(np.asarray(state[_name(path)]), *reversed(_axes(path, leaf.ndim)))
        assert value.shape == leaf.shape, f"{_name(path)}: {value.shape} for {leaf.shape}"
        return jnp.asarray(value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(take, tree)


def _name(path):
    *modules, leaf = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    return ".".join([*modules, LEAVES.get(leaf, leaf)])


def _axes(path, ndim):
    """Where the two channel axes are here and in PyTorch; other axes keep their order."""
    is_kernel = str(getattr(path[-1], "key", path[-1])) == "kernel"
    return ((-1, -2), (0, 1)) if is_kernel and ndim > 1 else ((), ())
