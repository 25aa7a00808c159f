"""Networks against PyTorch's: forward, every gradient, ten training steps with their statistics."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxopt_core as jo
from jaxopt_core.models import MLP, DenseNet, ResNet, pure
from jaxopt_core.models.resnet import BasicBlock, Bottleneck
from tests import oracle_models as oracle
from tests.compiling import AS_USERS
from tests.models.transfer import from_torch, to_torch

STEPS = 10
LR = 1e-3  # with 0.01 ten steps of the bottlenecks amplify float32's rounding a million times, in PyTorch too


class Case(NamedTuple):
    """Ours and PyTorch's, the shape of a batch, and options of ours that must not change the numbers."""

    ours: Any
    theirs: Any
    shape: tuple[int, ...]
    float64: dict[str, Any] = {}  # noqa: RUF012


CASES = {
    "mlp": Case(
        functools.partial(MLP, (12, 16, 16, 5)), functools.partial(oracle.mlp, (12, 16, 16, 5)), (8, 12)
    ),
    # Shortcuts with and without a projection, the stem with pooling.
    "basic blocks": Case(
        functools.partial(ResNet, BasicBlock, (1, 1, 1, 1), 5, width=4),
        functools.partial(oracle.resnet, "BasicBlock", (1, 1, 1, 1), 5, 4),
        (4, 48, 48, 3),
    ),
    "bottlenecks, cifar stem": Case(
        functools.partial(ResNet, Bottleneck, (1, 1, 1, 1), 5, width=4, cifar_stem=True),
        functools.partial(oracle.resnet, "Bottleneck", (1, 1, 1, 1), 5, 4, cifar_stem=True),
        (4, 16, 16, 3),
        {"remat": True},
    ),
    "densenet": Case(
        functools.partial(DenseNet, 4, (2, 2), 8, num_classes=5),
        functools.partial(oracle.densenet, 4, (2, 2), 8, 5),
        (4, 32, 32, 3),
        {"remat": True},
    ),
}


def batches(shape):
    rng = np.random.default_rng(0)
    return [(rng.normal(size=shape), rng.integers(0, 5, shape[0])) for _ in range(STEPS)]


def trained(make, state, data, dtype, options=None):
    """Our side of ``oracle_models.trained``; all numbers come from ``state``, so none are drawn."""
    apply, params, rest = pure(nnx.eval_shape(lambda: make(param_dtype=dtype, rngs=nnx.Rngs(0))))
    params, rest = (from_torch(state, tree) for tree in (params, rest))
    tx = jo.sgd(lr=LR, momentum=0.9)

    @functools.partial(jax.jit, compiler_options=options)
    def step(params, rest, opt_state, x, labels):
        def loss_fn(params):
            logits, new = apply(params, rest, x, train=True)
            losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), (logits, new)

        (loss, (logits, new)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return jo.apply_updates(params, updates), new, opt_state, loss, logits, grads

    arrays = [(jnp.asarray(x, dtype), jnp.asarray(y, jnp.int32)) for x, y in data]
    evaluate = jax.jit(functools.partial(apply, train=False), compiler_options=options)
    evaluated, _ = evaluate(params, rest, arrays[0][0])
    opt_state, losses, first = tx.init(params), [], None
    for x, labels in arrays:
        params, rest, opt_state, loss, logits, grads = step(params, rest, opt_state, x, labels)
        losses.append(float(loss))
        first = first or (np.asarray(logits), to_torch(grads))
    return oracle.Run(np.asarray(evaluated), first[0], np.array(losses), first[1], to_torch(params, rest))


def parts(run):
    """What is compared, each with a name."""
    yield "evaluated", run.evaluated
    yield "logits", run.logits
    yield "losses", run.losses
    yield from ((f"gradient of {name}", grad) for name, grad in run.grads.items())
    yield from run.state.items()


def distances(run, reference):
    """Largest difference in proportion to the largest element, for each part."""
    ours, theirs = dict(parts(run)), dict(parts(reference))
    assert ours.keys() == theirs.keys()
    return {
        name: np.abs(ours[name] - theirs[name]).max() / max(np.abs(theirs[name]).max(), 1e-3) for name in ours
    }


@pytest.mark.parametrize("name", CASES)
def test_float64(name):
    case = CASES[name]
    state, data = oracle.weights(case.theirs()), batches(case.shape)
    expected = oracle.trained(case.theirs(), state, data, lr=LR, dtype="float64")
    with jax.enable_x64(True):
        found = distances(
            trained(functools.partial(case.ours, **case.float64), state, data, jnp.float64), expected
        )
    assert max(found.values()) < 1e-10, found
    # The steps went somewhere, and the statistics with them.
    moved = [np.abs(expected.state[key] - state[key]).max() for key in state]
    assert min(moved) > 1e-6
    assert np.median(moved) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_float32(name):
    """As near to PyTorch in float64 as PyTorch in float32 is, up to a factor for luck."""
    case = CASES[name]
    state, data = oracle.weights(case.theirs()), batches(case.shape)
    expected = oracle.trained(case.theirs(), state, data, lr=LR, dtype="float64")
    theirs = distances(oracle.trained(case.theirs(), state, data, lr=LR, dtype="float32"), expected)
    ours = distances(trained(case.ours, state, data, jnp.float32, AS_USERS), expected)
    noise = max(theirs.values())
    assert max(ours.values()) < 5 * noise < 1e-3, (ours, theirs)
