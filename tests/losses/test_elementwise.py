"""Losses without classes, row by row against PyTorch: values, gradients, extremes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_core import losses
from tests.losses import torch_losses

rng = np.random.default_rng(0)
SHAPE = (4, 3)
X = rng.normal(size=SHAPE) * 2
Y = rng.normal(size=SHAPE)
Y[0, 0] = X[0, 0]  # where absolute values have their corner
Y[0, 1] = X[0, 1] + 1.0  # where smooth_l1 and huber change
Y[0, 2] = X[0, 2] - 1.0
P = rng.uniform(size=SHAPE)
P[0] = [0.0, 1.0, 0.5]
W = rng.uniform(0.5, 2, SHAPE)
HUGE = np.array([[1e4, -1e4, 88.0], [-88.0, 104.0, -104.0], [1e30, -1e30, 1e-30], [0.0, -0.0, 700.0]])
INFINITE = np.array([[np.inf, -np.inf, 0.0], [1.0, np.nan, -1.0], [0, 0, 0], [0, 0, 0.0]])
LOGP = np.log(rng.dirichlet(np.ones(3), 4))

ROWS = {
    "mse": ("mse_loss", X, Y, {}),
    "mse weighted": ("mse_loss", X, Y, {"weight": W}),
    "mse infinite": ("mse_loss", INFINITE, Y, {}),
    "l1": ("l1_loss", X, Y, {}),
    "l1 weighted": ("l1_loss", X, Y, {"weight": W}),
    "l1 infinite": ("l1_loss", INFINITE, Y, {}),
    "smooth l1": ("smooth_l1_loss", X, Y, {}),
    "smooth l1, small beta": ("smooth_l1_loss", X, Y, {"beta": 0.25}),
    "smooth l1, beta 0": ("smooth_l1_loss", X, Y, {"beta": 0.0}),
    "smooth l1 infinite": ("smooth_l1_loss", INFINITE, Y, {}),
    "huber": ("huber_loss", X, Y, {}),
    "huber, large delta": ("huber_loss", X, Y, {"delta": 2.5}),
    "huber weighted": ("huber_loss", X, Y, {"delta": 0.5, "weight": W}),
    "huber infinite": ("huber_loss", INFINITE, Y, {}),
    "bce": ("binary_cross_entropy_with_logits", X, P, {}),
    "bce extreme": ("binary_cross_entropy_with_logits", HUGE, P, {}),
    "bce infinite": ("binary_cross_entropy_with_logits", INFINITE, P, {}),
    "bce weight": ("binary_cross_entropy_with_logits", X, P, {"weight": W[:, :1]}),
    "bce pos_weight": ("binary_cross_entropy_with_logits", X, P, {"pos_weight": W[0]}),
    "bce both": ("binary_cross_entropy_with_logits", HUGE, P, {"pos_weight": W[0], "weight": W[0]}),
    "kl": ("kl_div", LOGP, P, {}),
    "kl log_target": ("kl_div", LOGP, X, {"log_target": True}),
    "kl extreme": ("kl_div", HUGE, P, {}),
    "kl infinite": ("kl_div", INFINITE, P, {}),
    "kl broadcast": ("kl_div", LOGP, P[1:2], {}),
}


def reductions(name):
    return ("mean", "sum", "none", "batchmean") if name == "kl_div" else ("mean", "sum", "none")


def ours(name, x, y, arguments):
    def total(x):
        loss = getattr(losses, name)(x, jnp.asarray(y), **arguments)
        w = 1 + jnp.arange(loss.size, dtype=loss.dtype).reshape(loss.shape) / 8
        return (loss * w).sum(), loss

    (_, loss), grad = jax.value_and_grad(total, has_aux=True)(jnp.asarray(x))
    return loss, grad


def row(key, dtype):
    name, x, y, arguments = ROWS[key]
    cast = {k: v.astype(dtype) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    return name, x.astype(dtype), y.astype(dtype), cast


@functools.cache
def all_ours(dtype):
    """Every row with every reduction, in one program: compiling them one by one takes minutes."""

    def run():
        cases = {key: row(key, dtype) for key in ROWS}
        return {
            (key, reduction): ours(name, x, y, arguments | {"reduction": reduction})
            for key, (name, x, y, arguments) in cases.items()
            for reduction in reductions(name)
        }

    with jax.enable_x64(dtype == "float64"):
        return jax.jit(run)()


# A few roundings of sums of twelve; float32's exp and log differ in the last bit.
@pytest.mark.parametrize(("dtype", "rtol", "atol"), [("float64", 1e-14, 1e-14), ("float32", 1e-6, 5e-7)])
@pytest.mark.parametrize("key", ROWS)
def test_rows(key, dtype, rtol, atol):
    name, x, y, arguments = row(key, dtype)
    for reduction in reductions(name):
        loss, grad = all_ours(dtype)[key, reduction]
        theirs = torch_losses.value_and_grad(name, x, y, arguments | {"reduction": reduction})
        assert loss.dtype == grad.dtype == dtype
        np.testing.assert_allclose(loss, theirs[0], rtol, atol, err_msg=reduction)
        np.testing.assert_allclose(grad, theirs[1], rtol, atol, err_msg=reduction)


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_target_of_another_shape_warns_and_broadcasts(name):
    x, y = np.float32(X), np.float32(Y[:, :1])
    with pytest.warns(UserWarning, match=r"Using a target size \(.*4, 1.*\) that is different"):
        loss, grad = ours(name, x, y, {})
    their_loss, their_grad = torch_losses.value_and_grad(name, x, y, {})
    np.testing.assert_allclose(loss, their_loss, rtol=1e-6)
    np.testing.assert_allclose(grad, their_grad, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "binary_cross_entropy_with_logits"])
@pytest.mark.usefixtures("x64")
def test_gradient_of_the_target(name):
    y = np.clip(P, 0.1, 0.9)
    grad = jax.grad(lambda y: getattr(losses, name)(jnp.asarray(X), y))(jnp.asarray(y))
    if name == "binary_cross_entropy_with_logits":
        np.testing.assert_allclose(grad, -X / X.size, rtol=1e-12)
    else:
        _, theirs = torch_losses.value_and_grad(name, y, X, {})
        np.testing.assert_allclose(grad, theirs, rtol=1e-12)


WRONG = {
    "reduction": ("mse_loss", X, Y, {"reduction": "all"}),
    "batchmean": ("l1_loss", X, Y, {"reduction": "batchmean"}),
    "delta": ("huber_loss", X, Y, {"delta": 0.0}),
    "beta": ("smooth_l1_loss", X, Y, {"beta": -1.0}),
    "bce shape": ("binary_cross_entropy_with_logits", X, Y[:, :1], {}),
    "bce weight": ("binary_cross_entropy_with_logits", X, P, {"weight": np.ones(4)}),
    "bce pos_weight": ("binary_cross_entropy_with_logits", X, P, {"pos_weight": np.ones(4)}),
    "mse weight": ("mse_loss", X, Y, {"weight": W[0]}),
    "huber weight": ("huber_loss", X, Y, {"weight": W[0]}),
    "mse shape": ("mse_loss", X, Y[:3], {}),
    "kl shape": ("kl_div", X, Y[:3], {}),
    "kl reduction": ("kl_div", X, Y, {"reduction": "batch"}),
}
WORDS = {  # of PyTorch's message, which must be in ours too
    "reduction": "all is not a valid value for reduction",
    "batchmean": "batchmean is not a valid value for reduction",
    "delta": "huber_loss does not support non-positive values for delta",
    "beta": "smooth_l1_loss does not support negative values for beta",
    "bce shape": "must be the same as input size",
    "bce weight": "The size of",
    "bce pos_weight": "The size of",
    "mse weight": "Weights and input must have the same size",
    "huber weight": "Weights and input must have the same size",
    "mse shape": "must match the size of",
    "kl shape": "must match the size of",
    "kl reduction": "batch is not a valid value for reduction",
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("case", WRONG)
def test_errors_in_their_words(case):
    name, x, y, arguments = WRONG[case]
    assert WORDS[case] in torch_losses.error(name, x, y, arguments)
    with pytest.raises(ValueError, match=WORDS[case]):
        getattr(losses, name)(np.float32(x), np.float32(y), **arguments)


def test_integer_targets_of_bce_are_refused():
    with pytest.raises(TypeError, match="floating point"):
        losses.bce_with_logits(jnp.zeros(3), jnp.zeros(3, int))
