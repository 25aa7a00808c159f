"""LSTM and GRU against PyTorch, argument by argument, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxopt_core.models import GRU, LSTM, pure
from tests import oracle_sequences as oracle
from tests.models.quick import quick
from tests.models.transfer import to_torch

rng = np.random.default_rng(0)
T, N, C, H = 5, 3, 4, 6
LENGTHS = [5, 2, 3]
CASES = {
    "one layer": ({}, None),
    "lengths": ({}, LENGTHS),
    "no bias": ({"bias": False}, LENGTHS),
    "both directions": ({"bidirectional": True}, None),
    "everything": ({"bidirectional": True, "num_layers": 2, "batch_first": True}, LENGTHS),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layer", [LSTM, GRU])
def test_values_and_gradients(layer, case):
    arguments, lengths = CASES[case]
    x = rng.normal(size=(N, T, C) if arguments.get("batch_first") else (T, N, C))
    rows = arguments.get("num_layers", 1) * (2 if arguments.get("bidirectional") else 1)
    states = [rng.normal(size=(rows, N, H)) for _ in range(2 if layer is LSTM else 1)]
    sizes = {"input_size": C, "hidden_size": H}
    weights, (*expected, grads) = oracle.recurrent(layer.__name__, sizes | arguments, x, states, lengths)

    with jax.enable_x64(True):
        model = nnx.eval_shape(lambda: layer(C, H, **arguments, param_dtype=jnp.float64, rngs=nnx.Rngs(0)))
        graph, params, others = nnx.split(model, nnx.Param, ...)
        assert nnx.as_pure(params).keys() == weights.keys()
        others = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.uint32), nnx.as_pure(others))

        def run(params, x, states):
            module = nnx.merge(graph, params, others)
            module.eval()
            output, final = module(x, tuple(states) if layer is LSTM else states[0], lengths)
            outputs = [output, *(final if layer is LSTM else [final])]
            return sum((y * jnp.cos(y)).sum() for y in outputs), outputs

        grad = jax.jit(
            jax.value_and_grad(run, argnums=(0, 1, 2), has_aux=True),
        )
        (_, outputs), (d_params, d_x, d_states) = grad(weights, x, states)
    found = [*outputs, d_x, *d_states]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    for name, theirs in grads.items():
        np.testing.assert_allclose(to_torch(d_params)[name], theirs, rtol=1e-10, atol=1e-12)


def test_one_sequence_without_a_batch():
    model = quick(functools.partial(LSTM, C, H))
    x = jnp.float32(rng.normal(size=(T, C)))
    output, (h, c) = jax.jit(model)(x)
    batched, (h1, c1) = jax.jit(model)(x[:, None])
    assert output.shape == (T, H)
    assert h.shape == c.shape == (1, H)
    np.testing.assert_allclose(output, batched[:, 0], rtol=1e-6)
    np.testing.assert_allclose(h, h1[:, 0], rtol=1e-6)
    np.testing.assert_allclose(c, c1[:, 0], rtol=1e-6)


def test_dropout_between_layers_in_training_only():
    apply, params, rest = pure(quick(functools.partial(GRU, C, H, 2, dropout=0.5)))
    run = jax.jit(apply, static_argnames="train")
    x = jnp.float32(rng.normal(size=(T, N, C)))
    (first, _), after = run(params, rest, x, train=True)
    (second, _), _ = run(params, after, x, train=True)
    (judged, _), _ = run(params, rest, x, train=False)
    (again, _), _ = run(params, after, x, train=False)
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(judged, again)


def test_starting_values_are_within_pytorchs_bound():
    make = jax.jit(lambda: pure(LSTM(50, 100, rngs=nnx.Rngs(0))).params)
    for value in jax.tree.leaves(make()):
        assert 0.095 < float(abs(value).max()) <= 0.1  # 1 / sqrt(100)


def test_bfloat16():
    model = nnx.eval_shape(lambda: LSTM(C, H, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    output, (h, _) = nnx.eval_shape(lambda model, x: model(x), model, jnp.ones((T, N, C)))
    assert output.dtype == h.dtype == jnp.bfloat16


def test_errors():
    rngs = nnx.Rngs(0)
    with pytest.raises(ValueError, match="hidden_size must be greater than zero"):
        LSTM(C, 0, rngs=rngs)
    with pytest.raises(ValueError, match="num_layers must be greater than zero"):
        LSTM(C, H, 0, rngs=rngs)
    with pytest.raises(ValueError, match=r"dropout should be a number in range \[0, 1\]"):
        GRU(C, H, 2, dropout=1.5, rngs=rngs)
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last recurrent layer"):
        model = quick(functools.partial(GRU, C, H, dropout=0.5))
    with pytest.raises(ValueError, match=r"input.size\(-1\) must be equal to input_size. Expected 4, got 3"):
        model(jnp.ones((T, N, 3)))
    with pytest.raises(ValueError, match="Expected input to be 2D or 3D, got 4D"):
        model(jnp.ones((1, T, N, C)))
    with pytest.raises(ValueError, match="Expected hidden size"):
        model(jnp.ones((T, N, C)), jnp.ones((1, N, C)))
    with pytest.raises(ValueError, match="Length of all samples has to be greater than 0"):
        model(jnp.ones((T, N, C)), None, [0, 1, 2])
    with pytest.raises(ValueError, match="more than the 5 steps"):
        model(jnp.ones((T, N, C)), None, [1, 2, 6])
    with pytest.raises(ValueError, match="batch_size 3"):
        model(jnp.ones((T, N, C)), None, [1, 2])
