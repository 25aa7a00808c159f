"""At the start no network's gradients vanish or explode with depth."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxopt_core.losses import cross_entropy
from jaxopt_core.models import DenseNet, ResNet, pure
from jaxopt_core.models.initializers import kaiming_normal, torch_default
from jaxopt_core.models.layers import BatchNorm1d, Linear
from jaxopt_core.models.resnet import BasicBlock

DEPTH, WIDTH = 24, 64


class Stack(nnx.Module):
    """Blocks of a linear layer and a ReLU, with or without normalisation and shortcut."""

    def __init__(self, init, *, norm, residual, rngs):
        self.residual = residual
        self.linears = nnx.List(
            Linear(WIDTH, WIDTH, False, kernel_init=init, rngs=rngs) for _ in range(DEPTH)
        )
        self.norms = nnx.List(BatchNorm1d(WIDTH) if norm else nnx.identity for _ in range(DEPTH))

    def __call__(self, x):
        for linear, norm in zip(self.linears, self.norms, strict=True):
            y = jax.nn.relu(norm(linear(x)))
            x = x + y if self.residual else y
        return x


def growth_per_block(init, norm, residual):
    """By what factor a gradient grows from the end of a block to its beginning, in the geometric mean."""
    apply, params, rest = pure(Stack(init, norm=norm, residual=residual, rngs=nnx.Rngs(0)))
    x, cotangent = (jax.random.normal(jax.random.key(i), (128, WIDTH)) for i in (1, 2))

    def pull_back(params):
        return jax.vjp(lambda x: apply(params, rest, x, train=True)[0], x)[1](cotangent)[0]

    gradient = jax.jit(pull_back)(params)
    return float(jnp.linalg.norm(gradient) / jnp.linalg.norm(cotangent)) ** (1 / DEPTH)


KAIMING, DEFAULT = kaiming_normal(), torch_default(WIDTH)


@pytest.mark.parametrize(
    ("init", "norm", "residual", "expected"),
    [
        # A ReLU halves the variance and Kaiming's start doubles it.
        (KAIMING, False, False, 1.0),
        # Shortcuts alone explode: sqrt(2) by the variances, more because what a ReLU adds is positive.
        (KAIMING, False, True, 1.6),
        # Known for wide layers: sqrt(pi / (pi - 1)) (Yang et al., "A Mean Field Theory of Batch
        # Normalization", 2019), whatever the start.
        (KAIMING, True, False, 1.21),
        (DEFAULT, True, False, 1.21),
        # Normalised branches on a stream whose variance grows add less and less: no power of the depth.
        (KAIMING, True, True, 1.05),
        # PyTorch's default start is for shallow networks: the variance falls to a sixth in each layer.
        (DEFAULT, False, False, np.sqrt(1 / 6)),
    ],
    ids=["kaiming", "shortcuts", "norm", "norm, default", "norm and shortcuts", "default"],
)
def test_by_depth(init, norm, residual, expected):
    assert abs(growth_per_block(init, norm, residual) / expected - 1) < 0.08


SMALL_RESNET = functools.partial(ResNet, BasicBlock, (1, 1, 1, 1), 10, width=8, cifar_stem=True)
MODELS = {"resnet": SMALL_RESNET, "densenet": functools.partial(DenseNet, 8, (3, 3), 8, num_classes=10)}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_networks_learn_in_all_depths(name):
    # This generator compiles in a third of the time.
    rngs = nnx.Rngs(jax.random.key(0, impl="rbg"))
    apply, params, rest = pure(MODELS[name](rngs=rngs))
    images, labels = jax.random.normal(jax.random.key(0), (16, 16, 16, 3)), jnp.arange(16) % 10

    def loss_fn(params):
        return cross_entropy(apply(params, rest, images, train=True)[0], labels)

    run = jax.jit(jax.value_and_grad(loss_fn))
    loss, grads = run(params)
    assert np.log(10) / 2 < loss < 2 * np.log(10)  # as good as guessing
    norms = [float(jnp.linalg.norm(grad)) for grad in jax.tree.leaves(grads) if grad.ndim == 4]
    assert len(norms) > 10
    assert min(norms) > 0.01
    assert max(norms) < 20 * min(norms)


def test_zero_init_residual_makes_blocks_shortcuts():
    model = SMALL_RESNET(zero_init_residual=True, rngs=nnx.Rngs(jax.random.key(0, impl="rbg")))
    assert not model.layer3[0].bn2.scale[...].any()
    assert model.layer3[0].bn1.scale[...].all()
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 8))
    np.testing.assert_array_equal(model.layer1[0](x), jax.nn.relu(x))
