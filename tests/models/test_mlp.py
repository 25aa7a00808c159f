"""The MLP: PyTorch's shapes and starting values; the pure triple of any module."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxopt_core.models import MLP, pure


def test_parameters_have_the_expected_paths_and_shapes():
    _, params, rest = pure(MLP((784, 128, 10), rngs=nnx.Rngs(0)))
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    assert shapes == {
        "layers/0/kernel": (784, 128),
        "layers/0/bias": (128,),
        "layers/1/kernel": (128, 10),
        "layers/1/bias": (10,),
    }
    assert not jax.tree.leaves(rest)


@pytest.mark.parametrize("name", ["kernel", "bias"])
def test_starts_as_torch_linear(name):
    model = MLP((400, 300), rngs=nnx.Rngs(0))
    values = np.asarray(getattr(model.layers[0], name)[...]).ravel()
    bound = 1 / np.sqrt(400)
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > 0.98 * bound
    # The standard deviation of a uniform distribution.
    np.testing.assert_allclose(values.std(), bound / np.sqrt(3), rtol=0.1)


def test_output_is_what_the_parameters_say():
    apply, params, rest = pure(MLP((3, 5, 2), rngs=nnx.Rngs(1), activation=jnp.tanh))
    x = jax.random.normal(jax.random.key(0), (4, 3))
    first, second = params["layers"][0], params["layers"][1]
    hidden = np.tanh(np.asarray(x) @ first["kernel"] + np.asarray(first["bias"])[None])
    expected = hidden @ np.asarray(second["kernel"]) + np.asarray(second["bias"])[None]
    logits, _ = apply(params, rest, x, train=False)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("widths", [(), (3,), (3, 0, 2), (3, -1)])
def test_bad_widths(widths):
    with pytest.raises(ValueError, match="widths: expected two or more positive integers, found"):
        MLP(widths, rngs=nnx.Rngs(0))


class Noisy(nnx.Module):
    """Has everything that is not a parameter: running statistics and a random stream."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.norm(x))


def test_rest_changes_in_training_only():
    apply, params, rest = pure(Noisy(nnx.Rngs(0)))
    x = jax.random.normal(jax.random.key(0), (64, 3))
    run = jax.jit(apply, static_argnames="train")

    first, after = run(params, rest, x, train=True)
    assert jax.tree.structure(after) == jax.tree.structure(rest)
    assert not np.allclose(after["norm"]["mean"], rest["norm"]["mean"])
    assert 0.3 < np.mean(np.asarray(first) == 0) < 0.7

    second, _ = run(params, after, x, train=True)
    assert not np.array_equal(first == 0, second == 0)

    judged, same = run(params, after, x, train=False)
    assert not np.any(np.asarray(judged) == 0)
    np.testing.assert_array_equal(same["norm"]["mean"], after["norm"]["mean"])


def test_pure_triple_under_grad_leaves_the_module_alone():
    model = Noisy(nnx.Rngs(0))
    before = np.asarray(model.norm.mean[...])
    apply, params, rest = pure(model)
    grads = jax.grad(lambda p: apply(p, rest, jnp.ones((2, 3)), train=True)[0].sum())(params)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    np.testing.assert_array_equal(model.norm.mean[...], before)


def test_rngs_are_the_randomness_of_one_call():
    class Twice(nnx.Module):
        def __init__(self, rngs):
            self.first, self.second = nnx.Dropout(0.5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.first(x), self.second(x)

    apply, params, rest = pure(Twice(nnx.Rngs(0)))
    x = jnp.ones(64)
    run = jax.jit(lambda rest, key: apply(params, rest, x, train=True, rngs=key))
    (first, second), same = run(rest, jax.random.key(1))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(run(rest, jax.random.key(1))[0], (first, second))
    assert not np.array_equal(run(rest, jax.random.key(2))[0][0], first)
    np.testing.assert_array_equal(run(rest, jax.random.PRNGKey(1))[0], (first, second))
    for before, after in zip(jax.tree.leaves(rest), jax.tree.leaves(same), strict=True):
        assert before.dtype == after.dtype
        assert (before == after).all()
