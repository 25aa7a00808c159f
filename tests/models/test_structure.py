"""Full-size networks: torchvision's names, shapes and numbers of parameters; nothing is computed."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxopt_core import models
from jaxopt_core.models import DenseNet, ResNet, pure
from jaxopt_core.models.resnet import BasicBlock, Bottleneck
from tests import oracle_models as oracle
from tests.models.transfer import LEAVES
from tests.thinning import slow_unless

# Numbers of parameters as torchvision's documentation has them.
PUBLISHED = {
    "resnet18": (11_689_512, functools.partial(oracle.resnet, "BasicBlock", (2, 2, 2, 2))),
    "resnet34": (21_797_672, functools.partial(oracle.resnet, "BasicBlock", (3, 4, 6, 3))),
    "resnet50": (25_557_032, functools.partial(oracle.resnet, "Bottleneck", (3, 4, 6, 3))),
    "resnet101": (44_549_160, functools.partial(oracle.resnet, "Bottleneck", (3, 4, 23, 3))),
    "resnet152": (60_192_808, functools.partial(oracle.resnet, "Bottleneck", (3, 8, 36, 3))),
    "densenet121": (7_978_856, functools.partial(oracle.densenet, 32, (6, 12, 24, 16), 64)),
    "densenet169": (14_149_480, functools.partial(oracle.densenet, 32, (6, 12, 32, 32), 64)),
}


def shapes(model):
    """Our shapes in PyTorch's names and order of axes."""
    found = {}
    for path, leaf in nnx.to_flat_state(nnx.state(model)):
        *modules, name = map(str, path)
        shape = leaf.shape
        if name == "kernel":
            shape = (shape[-1], shape[-2], *shape[:-2])
        found[".".join([*modules, LEAVES.get(name, name)])] = shape
    return found


@pytest.mark.parametrize("name", slow_unless(("resnet18", "resnet50", "densenet121").__contains__, PUBLISHED))
def test_names_and_shapes_are_torchvisions(name):
    count, theirs = PUBLISHED[name]
    model = nnx.eval_shape(lambda: getattr(models, name)(rngs=nnx.Rngs(0)))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == count
    assert shapes(model) == oracle.names(theirs)


def test_options_of_resnets():
    wide = nnx.eval_shape(lambda: models.resnet50(width_per_group=128, rngs=nnx.Rngs(0)))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(wide, nnx.Param))) == 68_883_240
    grouped = nnx.eval_shape(lambda: models.resnet50(groups=32, width_per_group=4, rngs=nnx.Rngs(0)))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(grouped, nnx.Param))) == 25_028_904


def test_cifar_stem_keeps_the_size():
    def size(**options):
        sizes = []

        class Spy(models.layers.BatchNorm2d):
            def __call__(self, x):
                sizes.append(x.shape[1])
                return super().__call__(x)

        def logits(x):
            return ResNet(BasicBlock, (1, 1, 1, 1), 5, norm_layer=Spy, width=2, rngs=nnx.Rngs(0), **options)(
                x
            )

        jax.eval_shape(logits, jnp.zeros((2, 32, 32, 3)))
        return sizes[0], sizes[1], sizes[-1]

    assert size(cifar_stem=True) == (32, 32, 4)
    assert size() == (16, 8, 1)


# That the numbers stay is seen against PyTorch, with remat, in test_against_torch.
@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize(
    ("make", "blocks"),
    [
        (functools.partial(ResNet, Bottleneck, (1, 2, 1, 1), 5, width=4), 5),
        (functools.partial(DenseNet, 4, (2, 3), 8), 5),
    ],
    ids=["resnet", "densenet"],
)
def test_remat_puts_a_barrier_around_each_block(make, blocks, remat):
    apply, params, rest = pure(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0), remat=remat)))
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)

    def loss(params, rest, x):
        return apply(params, rest, x, train=True)[0].sum()

    barriers = jax.jit(jax.grad(loss)).lower(params, rest, images).as_text().count("optimization_barrier")
    assert barriers >= blocks if remat else barriers == 0


@pytest.mark.slow
def test_remat_drops_the_same_elements_again():
    def grads(remat):
        model = DenseNet(2, (1,), 4, 2, 0.5, 3, in_channels=1, remat=remat, rngs=nnx.Rngs(0))
        apply, params, rest = pure(model)
        x = jax.random.normal(jax.random.key(0), (4, 8, 8, 1))

        def loss(params):
            return jnp.square(apply(params, rest, x, train=True)[0]).sum()

        return jax.jit(jax.grad(loss))(params)

    for plain, again in zip(*(jax.tree.leaves(grads(remat)) for remat in (False, True)), strict=True):
        np.testing.assert_allclose(plain, again, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda r: ResNet(BasicBlock, (1, 1, 1), rngs=r), "layers: expected four positive integers"),
        (lambda r: ResNet(Bottleneck, (1, 1, 0, 1), rngs=r), r"found \(1, 1, 0, 1\)"),
        (lambda r: ResNet(BasicBlock, (1, 1, 1, 1), groups=2, rngs=r), "BasicBlock only supports groups=1"),
        (lambda r: DenseNet(block_config=(), rngs=r), "block_config: expected positive integers"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make(nnx.Rngs(0))
