"""cross_entropy and nll_loss, row by row against PyTorch."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_core import losses
from tests.losses import torch_losses

rng = np.random.default_rng(1)
C = 5
X = rng.normal(size=(6, C)) * 3
Y = np.array([0, 4, 2, 2, 1, 3])
IGNORING = np.array([0, -100, 2, -100, 1, 3])
IMAGE, LABELS = rng.normal(size=(2, C, 3, 4)), rng.integers(0, C, (2, 3, 4))
SOFT, SOFT_IMAGE = rng.dirichlet(np.ones(C), 6), rng.dirichlet(np.ones(C), (2, 3, 4)).transpose(0, 3, 1, 2)
W = rng.uniform(0.2, 3, C)
HUGE = X.copy()
HUGE[0, :3] = [1e4, -1e4, 1e30]
HUGE[1] = [-1e30, 0, 0, 0, -1e30]
HUGE[2, 0] = -np.inf  # a class masked out
HUGE[3] = 88.0

ROWS = {  # in PyTorch's layout: classes on axis 1
    "classes": (X, Y, {}),
    "weight": (X, Y, {"weight": W}),
    "ignored": (X, IGNORING, {}),
    "ignored, weight": (X, IGNORING, {"weight": W}),
    "ignore a class": (X, Y, {"ignore_index": 2}),
    "all ignored": (X, Y * 0 + 1, {"ignore_index": 1}),
    "smoothing": (X, Y, {"label_smoothing": 0.1}),
    "smoothing, all": (X, IGNORING, {"label_smoothing": 0.3, "weight": W}),
    "smoothing of 1": (X, Y, {"label_smoothing": 1.0}),
    "smoothing, a class ignored": (X, Y, {"label_smoothing": 0.3, "ignore_index": 2}),
    "image": (IMAGE, LABELS, {}),
    "image, all": (IMAGE, LABELS, {"weight": W, "ignore_index": 3, "label_smoothing": 0.2}),
    "one": (X[0], Y[0], {}),
    "one, weight": (X[0], Y[0], {"weight": W, "label_smoothing": 0.1}),
    "none at all": (X[:0], Y[:0], {}),
    "probabilities": (X, SOFT, {}),
    "probabilities, weight": (X, SOFT, {"weight": W}),
    "probabilities, smoothing": (X, SOFT, {"weight": W, "label_smoothing": 0.2}),
    "probabilities, image": (IMAGE, SOFT_IMAGE, {"weight": W, "label_smoothing": 0.2}),
    "probabilities, one": (X[0], SOFT[0], {}),
    "extreme": (HUGE, Y, {}),
    "extreme, smoothing": (HUGE, Y, {"label_smoothing": 0.1}),
    "extreme, weight": (HUGE, Y, {"weight": W}),
    "extreme, probabilities": (HUGE, SOFT, {}),
}


REDUCTIONS = ("mean", "sum", "none")


def ours(name, x, y, arguments, axis):
    """Value and gradient in PyTorch's layout, from classes on ``axis``."""

    def total(x):
        at = jnp.moveaxis(x, 0 if x.ndim == 1 else 1, axis)
        target = jnp.asarray(y)
        if y.ndim == x.ndim:
            target = jnp.moveaxis(target, 0 if x.ndim == 1 else 1, axis)
        loss = getattr(losses, name)(at, target, axis=axis, **arguments)
        w = 1 + jnp.arange(loss.size, dtype=loss.dtype).reshape(loss.shape) / 8
        return (loss * w).sum(), loss

    (_, loss), grad = jax.value_and_grad(total, has_aux=True)(jnp.asarray(x))
    return loss, grad


def row(key, dtype):
    x, y, arguments = ROWS[key]
    y = y.astype(dtype) if y.dtype.kind == "f" else y
    return x.astype(dtype), y, {k: v.astype(dtype) if k == "weight" else v for k, v in arguments.items()}


def cases():
    """Loss, row, reduction and axis."""
    for key, (x, _, _) in ROWS.items():
        for reduction in REDUCTIONS:
            yield "cross_entropy", key, reduction, -1
            if x.ndim > 2:
                yield "cross_entropy", key, reduction, 1
            if not re.search("smooth|probabilities", key) and "label_smoothing" not in ROWS[key][2]:
                yield "nll_loss", key, reduction, -1


@functools.cache
def all_ours(dtype):
    """Every case in one program: compiling them one by one takes minutes."""

    def run():
        return {
            case: ours(
                case[0], *row(case[1], dtype)[:2], row(case[1], dtype)[2] | {"reduction": case[2]}, case[3]
            )
            for case in cases()
        }

    with jax.enable_x64(dtype == "float64"):
        return jax.jit(run)()


# Float32's exp and log differ in the last bits.
@pytest.mark.parametrize(("dtype", "rtol", "atol"), [("float64", 1e-13, 1e-14), ("float32", 1e-5, 1e-6)])
@pytest.mark.parametrize("key", ROWS)
def test_rows(key, dtype, rtol, atol):
    x, y, arguments = row(key, dtype)
    for case in cases():
        name, its_key, reduction, _ = case
        if its_key == key:
            loss, grad = all_ours(dtype)[case]
            theirs = torch_losses.value_and_grad(name, x, y, arguments | {"reduction": reduction})
            assert loss.dtype == grad.dtype == dtype
            np.testing.assert_allclose(loss, theirs[0], rtol, atol, err_msg=str(case))
            np.testing.assert_allclose(grad, theirs[1], rtol, atol, err_msg=str(case))


def test_pytorch_axis_of_a_single_sample():
    x, y = jnp.float32(X[0]), jnp.asarray(Y[0])
    assert losses.cross_entropy(x, y, axis=1) == losses.cross_entropy(x, y)
    assert losses.cross_entropy(x, y[None]) == losses.cross_entropy(x, y)


def test_bfloat16_is_computed_in_float32():
    x = jnp.asarray(X, jnp.bfloat16)
    loss = losses.cross_entropy(x, jnp.asarray(Y), reduction="none")
    exact = losses.cross_entropy(x.astype(jnp.float32), jnp.asarray(Y), reduction="none")
    assert loss.dtype == jnp.bfloat16
    np.testing.assert_array_equal(loss, exact.astype(jnp.bfloat16))


def test_unknown_class_is_nan_where_it_cannot_be_read():
    x, y = jnp.float32(X), jnp.asarray(Y).at[1].set(C).at[2].set(-1)
    loss = jax.jit(lambda x, y: losses.cross_entropy(x, y, reduction="none"))(x, y)
    np.testing.assert_array_equal(np.isnan(loss), [False, True, True, False, False, False])
    assert np.isnan(jax.jit(losses.cross_entropy)(x, y))


def test_gradient_without_a_scatter():
    logits, classes = jnp.ones((4, 3)), jnp.array([0, 2, -100, 1])
    for loss in (losses.cross_entropy, losses.nll_loss):
        assert "scatter" not in str(jax.make_jaxpr(jax.grad(loss))(logits, classes))
    curvature = jax.hessian(lambda x: losses.cross_entropy(x, classes, reduction="sum"))(logits)
    p = np.full(3, 1 / 3)
    np.testing.assert_allclose(curvature[1, :, 1], np.diag(p) - np.outer(p, p), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(curvature[2, :, 2], 0)


def test_traced_smoothing():
    x, y = jnp.float32(X), jnp.asarray(Y)
    for s in (0.0, 0.2):
        traced = jax.jit(lambda s: losses.cross_entropy(x, y, label_smoothing=s))(jnp.float32(s))
        np.testing.assert_allclose(traced, losses.cross_entropy(x, y, label_smoothing=s), rtol=1e-6)


WRONG = {  # arguments, our error, words of PyTorch's message that must be in ours too
    "class": (X, Y + 1, {}, IndexError, "Target 5 is out of bounds."),
    "negative class": (X, Y - 1, {}, IndexError, "Target -1 is out of bounds."),
    "batch": (X, Y[:4], {}, ValueError, r"Expected input batch_size \(6\) to match target batch_size \(4\)."),
    "shape": (IMAGE, LABELS[:, :2], {}, ValueError, r"size mismatch \(got input: "),
    "weight": (X, Y, {"weight": np.ones(4)}, ValueError, r"classes but got weight tensor of shape: \[4\]"),
    "smoothing": (X, Y, {"label_smoothing": 1.5}, ValueError, "must be between 0.0 and 1.0. Got: 1.5"),
    "reduction": (X, Y, {"reduction": "avg"}, ValueError, "avg is not a valid value for reduction"),
    "float classes": (X, Y * 1.0, {}, TypeError, "expected target dtype to be"),
    "bool classes": (X, Y > 1, {}, TypeError, "expected target dtype to be"),
    "integer probabilities": (X, X.astype(int), {}, TypeError, "for target with class probabilities, got"),
    "ignored": (X, SOFT, {"ignore_index": 1}, ValueError, "ignore_index is not supported for floating point"),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_in_their_words(case):
    x, y, arguments, kind, words = WRONG[case]
    theirs = torch_losses.error("cross_entropy", x, y, arguments)
    assert re.search(words, theirs)
    y = y.astype(np.float32) if y.dtype == np.float64 else y
    axis = 1 if x.ndim > 2 else -1
    with pytest.raises(kind, match=words):
        losses.cross_entropy(np.float32(x), y, axis=axis, **arguments)


def test_classes_where_pytorch_has_them_are_pointed_out():
    with pytest.raises(ValueError, match="pass axis=1"):
        losses.cross_entropy(np.float32(IMAGE), LABELS)
    with pytest.raises(ValueError, match="axis 4 is out of range"):
        losses.cross_entropy(np.float32(IMAGE), LABELS, axis=4)
    with pytest.raises(TypeError, match="input must be floating point"):
        losses.nll_loss(np.ones((3, 2), int), np.zeros(3, int))
