"""Every layer against PyTorch's: outputs, gradients, buffers, starting values, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxopt_core.models import layers, pure
from jaxopt_core.models.initializers import kaiming_normal, kaiming_uniform
from tests.models.transfer import from_torch, to_torch
from tests.oracle_models import layer as torch_layer

ROWS = [
    ("Linear", {"in_features": 5, "out_features": 4}, (3, 5)),
    ("Linear", {"in_features": 5, "out_features": 4, "bias": False}, (2, 3, 5)),
    (
        "Conv1d",
        {"in_channels": 4, "out_channels": 6, "kernel_size": 5, "stride": 2, "padding": 2},
        (2, 11, 4),
    ),
    ("Conv1d", {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": "same"}, (2, 8, 4)),
    ("Conv1d", {"in_channels": 4, "out_channels": 6, "kernel_size": 4, "padding": "same"}, (2, 8, 4)),
    (
        "Conv2d",
        {"in_channels": 3, "out_channels": 4, "kernel_size": 3, "stride": 2, "padding": 1},
        (2, 8, 8, 3),
    ),
    ("Conv2d", {"in_channels": 3, "out_channels": 4, "kernel_size": (3, 2), "padding": (0, 1)}, (2, 5, 6, 3)),
    (
        "Conv2d",
        {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "dilation": 2, "groups": 2, "bias": False},
        (2, 7, 7, 4),
    ),
    ("Conv2d", {"in_channels": 3, "out_channels": 4, "kernel_size": 2, "padding": "valid"}, (2, 5, 5, 3)),
    ("LayerNorm", {"normalized_shape": 6}, (2, 3, 6)),
    ("LayerNorm", {"normalized_shape": 6, "eps": 0.1, "bias": False}, (2, 6)),
    ("LayerNorm", {"normalized_shape": (3, 6)}, (2, 3, 6)),
    ("GroupNorm", {"num_groups": 2, "num_channels": 6}, (2, 3, 3, 6)),
    ("GroupNorm", {"num_groups": 3, "num_channels": 6, "affine": False, "eps": 0.1}, (2, 4, 6)),
    ("BatchNorm1d", {"num_features": 3}, (4, 3)),
    ("BatchNorm1d", {"num_features": 3, "eps": 0.1, "affine": False}, (2, 4, 3)),
    ("BatchNorm2d", {"num_features": 3, "momentum": 0.3}, (2, 4, 5, 3)),
    ("BatchNorm2d", {"num_features": 3, "momentum": None}, (2, 2, 2, 3)),
    ("BatchNorm2d", {"num_features": 3, "track_running_stats": False}, (2, 2, 2, 3)),
]


def run(name, arguments, state, inputs, dtype):
    """Our side of ``oracle_models.layer``."""
    model = getattr(layers, name)(**arguments, param_dtype=dtype, rngs=nnx.Rngs(0))
    apply, params, rest = pure(model)
    params, rest = (from_torch(state, tree) for tree in (params, rest))

    @jax.jit
    def call(params, rest, x):
        def loss(params, x):
            y, new = apply(params, rest, x, train=True)
            return (y * jnp.cos(y)).sum(), (y, new)

        (_, (y, new)), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
        return y, new, grads, apply(params, new, x, train=False)[0]

    outputs = []
    for x in inputs:
        y, rest, (grads, x_grad), evaluated = call(params, rest, jnp.asarray(x, dtype))
        outputs.append(y)
    return [*outputs, evaluated], to_torch(grads) | {"input": x_grad}, to_torch(params, rest)


@pytest.mark.parametrize(("name", "arguments", "shape"), ROWS)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.usefixtures("x64")
def test_layer(name, arguments, shape):
    rng = np.random.default_rng(1)
    inputs = [rng.normal(0.5, 2.0, shape) for _ in range(3)]
    state, expected = torch_layer(name, arguments, None, inputs)
    outputs, grads, after = run(name, arguments, state, inputs, jnp.float64)
    for ours, theirs in zip(outputs, expected.outputs, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)
    for ours, theirs in ((grads, expected.grads), (after, expected.state)):
        assert ours.keys() == theirs.keys()
        for key in ours:
            np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-10, atol=1e-10, err_msg=key)


@pytest.mark.parametrize("padding_idx", [None, 2, -1])
@pytest.mark.usefixtures("x64")
def test_embedding(padding_idx):
    arguments = {"num_embeddings": 5, "embedding_dim": 3, "padding_idx": padding_idx}
    indices = np.array([[0, 2, 4], [2, 2, 1]], np.int32)
    state, expected = torch_layer("Embedding", arguments, None, [indices])
    apply, params, rest = pure(layers.Embedding(**arguments, param_dtype=jnp.float64, rngs=nnx.Rngs(0)))
    params = from_torch(state, params)

    def loss(params):
        y, _ = apply(params, rest, jnp.asarray(indices), train=True)
        return (y * jnp.cos(y)).sum(), y

    grads, y = jax.grad(loss, has_aux=True)(params)
    np.testing.assert_array_equal(y, expected.outputs[0])
    np.testing.assert_allclose(grads["embedding"], expected.grads["weight"], rtol=1e-12, atol=1e-12)


def test_embedding_starts_normal_with_an_empty_padding_row():
    table = np.asarray(layers.Embedding(400, 50, padding_idx=-2, rngs=nnx.Rngs(0)).embedding[...])
    assert not table[398].any()
    rest = np.delete(table, 398, 0)
    assert abs(rest.mean()) < 0.03
    assert abs(rest.std() - 1) < 0.03


POOLS = [
    ("MaxPool2d", {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("MaxPool2d", {"kernel_size": (2, 3)}),
    ("AvgPool2d", {"kernel_size": 2}),
    ("AvgPool2d", {"kernel_size": 3, "stride": (1, 2), "padding": 1}),
]


@pytest.mark.parametrize(("name", "arguments"), POOLS)
@pytest.mark.usefixtures("x64")
def test_pooling(name, arguments):
    # Integers, so that windows have several maxima: the gradient goes to PyTorch's choice.
    x = np.random.default_rng(0).integers(-3, 3, (2, 7, 8, 3)).astype(float)
    _, expected = torch_layer(name, arguments, {}, [x])
    pool = {"MaxPool2d": layers.max_pool2d, "AvgPool2d": layers.avg_pool2d}[name]

    def loss(x):
        y = pool(x, **arguments)
        return (y * jnp.cos(y)).sum(), y

    grads, y = jax.grad(loss, has_aux=True)(jnp.asarray(x))
    np.testing.assert_allclose(y, expected.outputs[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(grads, expected.grads["input"], rtol=1e-12, atol=1e-12)


STARTS = [
    (lambda r: layers.Linear(50, 80, rngs=r), "kernel", 1 / np.sqrt(50)),
    (lambda r: layers.Linear(50, 800, rngs=r), "bias", 1 / np.sqrt(50)),
    (lambda r: layers.Conv2d(8, 30, 3, groups=2, rngs=r), "kernel", 1 / np.sqrt(4 * 9)),
    (lambda r: layers.Conv1d(8, 800, 3, rngs=r), "bias", 1 / np.sqrt(8 * 3)),
]


@pytest.mark.parametrize(("make", "leaf", "bound"), STARTS)
def test_layers_start_uniform_within_torchs_bound(make, leaf, bound):
    values = np.asarray(getattr(make(nnx.Rngs(0)), leaf)[...]).ravel()
    assert 0.98 * bound < np.abs(values).max() <= bound
    # The distance to a uniform distribution function (Kolmogorov-Smirnov; 1.95 is one in a thousand).
    grid = (np.sort(values) / bound + 1) / 2
    assert np.abs(grid - np.linspace(0, 1, values.size)).max() < 1.95 / np.sqrt(values.size)


@pytest.mark.parametrize(("mode", "fan", "a"), [("fan_in", 20 * 9, 0.0), ("fan_out", 10 * 9, 0.5)])
def test_kaiming(mode, fan, a):
    gain = np.sqrt(2 / (1 + a * a))
    shape = (3, 3, 20, 10)
    values = np.asarray(kaiming_normal(a, mode)(jax.random.key(0), shape))
    assert abs(values.std() * np.sqrt(fan) / gain - 1) < 0.06
    assert np.abs(values).max() > 2.5 * values.std()  # not cut off, as Flax's he_normal is
    bound = gain * np.sqrt(3 / fan)
    assert 0.98 * bound < np.abs(kaiming_uniform(a, mode)(jax.random.key(0), shape)).max() <= bound


def test_dropout():
    apply, params, rest = pure(layers.Dropout(0.2, rngs=nnx.Rngs(0)))
    x = jnp.ones(10_000)
    y, _ = apply(params, rest, x, train=True)
    np.testing.assert_allclose(np.unique(y), [0, 1.25], rtol=1e-6)
    assert abs(np.mean(np.asarray(y) == 0) - 0.2) < 0.02
    np.testing.assert_array_equal(apply(params, rest, x, train=False)[0], x)


ERRORS = [
    (lambda r: layers.Conv2d(3, 4, 3, groups=2, rngs=r), "in_channels must be divisible by groups"),
    (lambda r: layers.Conv2d(4, 3, 3, groups=2, rngs=r), "out_channels must be divisible by groups"),
    (lambda r: layers.Conv1d(3, 4, 3, 2, "same", rngs=r), "padding='same' is not supported for strided conv"),
    (lambda r: layers.Embedding(3, 4, 3, rngs=r), "Padding_idx must be within num_embeddings"),
    (lambda r: layers.Dropout(1.5, rngs=r), "dropout probability has to be between 0 and 1, but got 1.5"),
    (lambda r: layers.GroupNorm(4, 6, rngs=r), "num_channels must be divisible by num_groups"),
    (lambda r: layers.GroupNorm(3, 6)(jnp.ones((2, 6, 4))), "channels come last here"),
    (lambda r: layers.LayerNorm((2, 3))(jnp.ones((3, 3))), r"expected input with shape \(\*, 2, 3\)"),
    (lambda r: layers.BatchNorm2d(3, eps=0.0), "batch_norm eps must be positive, but got 0.0"),
    (lambda r: layers.BatchNorm2d(3)(jnp.ones((2, 3))), r"expected 4D input \(got 2D input\)"),
    (lambda r: layers.BatchNorm1d(3)(jnp.ones((2, 2, 2, 3))), r"expected 2D or 3D input \(got 4D input\)"),
    (lambda r: layers.BatchNorm2d(3)(jnp.ones((2, 3, 4, 4))), "expected 3 channels in the last axis"),
    (
        lambda r: layers.BatchNorm1d(3)(jnp.ones((1, 3))),
        "Expected more than 1 value per channel when training",
    ),
    (lambda r: layers.max_pool2d(jnp.ones((1, 4, 4, 1)), 3, padding=2), "pad should be at most half"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(nnx.Rngs(0))
