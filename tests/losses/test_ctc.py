"""ctc_loss against PyTorch: values, gradients, lengths, impossible targets, extremes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_core import losses
from tests.losses import torch_losses

rng = np.random.default_rng(2)
T, N, C = 7, 5, 4
LOGITS = rng.normal(size=(T, N, C)) * 2
TARGETS = np.array([[1, 2, 3], [1, 1, 3], [2, 2, 2], [3, 0, 0], [1, 3, 1]], np.int32)
FRAMES = np.array([7, 5, 6, 4, 3], np.int32)
SIZES = np.array([3, 3, 3, 1, 2], np.int32)
JOINED = np.concatenate([t[:n] for t, n in zip(TARGETS, SIZES, strict=True)])
FEW = np.array([7, 3, 6, 0, 3], np.int32)  # the second does not fit, nor does the fourth
NO_BLANK = LOGITS.copy()
NO_BLANK[:, 2, 0] = -np.inf  # a repeated class cannot be separated

ROWS = {
    "padded": (LOGITS, TARGETS, FRAMES, SIZES, {}),
    "joined": (LOGITS, JOINED, FRAMES, SIZES, {}),
    "another blank": (LOGITS, TARGETS % 3, FRAMES, SIZES, {"blank": 3}),
    "empty target": (LOGITS, TARGETS, FRAMES, SIZES * np.int32([1, 0, 1, 0, 1]), {}),
    "no frames, no target": (
        LOGITS,
        TARGETS,
        FRAMES * np.int32([1, 1, 1, 0, 1]),
        SIZES * np.int32([1, 1, 1, 0, 1]),
        {},
    ),
    "does not fit": (LOGITS, TARGETS, FEW, SIZES, {"zero_infinity": True}),
    "no blank": (NO_BLANK, TARGETS, FRAMES, SIZES, {"zero_infinity": True}),
    "confident": (LOGITS * 50, TARGETS, FRAMES, SIZES, {}),
    "extreme": (LOGITS * 1e5, TARGETS, FRAMES, SIZES, {}),
    "one": (LOGITS[:, 0], TARGETS[0], np.array(6, np.int32), np.array(3, np.int32), {}),
}


def reductions(key):
    return ("mean", "sum", "none") if key in ("empty target", "does not fit", "one") else ("none",)


def ours(logits, targets, frames, sizes, through=True, **arguments):
    def total(x):
        log_probs = jax.nn.log_softmax(x) if through else x
        loss = losses.ctc_loss(log_probs, targets, frames, sizes, **arguments)
        return loss.sum(), loss

    x = jnp.asarray(logits)
    (_, loss), grad = jax.value_and_grad(total, has_aux=True)(x if through else jax.nn.log_softmax(x))
    return loss, grad


def compiled(*args, **arguments):
    return jax.jit(lambda: ours(*args, **arguments))()


def cases():
    """Row and dtype; in float32 only what float32 could get wrong."""
    yield from ((key, "float64", 1e-12, 1e-13) for key in ROWS)
    yield from ((key, "float32", 1e-5, 2e-6) for key in ("does not fit", "confident", "extreme"))


@functools.cache
def all_ours(dtype):
    def run():
        return {
            (key, reduction): ours(row[0].astype(dtype), *row[1:4], reduction=reduction, **row[4])
            for key, row in ROWS.items()
            if (key, dtype) in [case[:2] for case in cases()]
            for reduction in reductions(key)
        }

    with jax.enable_x64(dtype == "float64"):
        return jax.jit(run)()


# Float32 is compared with PyTorch's float64 of the same logits: PyTorch's own float32 gradient, exp of a
# difference of large logarithms, is wrong by 3e-5 in the confident row.
@pytest.mark.parametrize(("key", "dtype", "rtol", "atol"), list(cases()))
def test_rows(key, dtype, rtol, atol):
    logits, targets, frames, sizes, arguments = ROWS[key]
    for reduction in reductions(key):
        loss, grad = all_ours(dtype)[key, reduction]
        theirs, their_grad = torch_losses.ctc_value_and_grad(
            logits.astype(dtype).astype(np.float64), targets, frames, sizes, reduction=reduction, **arguments
        )
        assert loss.dtype == dtype
        np.testing.assert_allclose(loss, theirs, rtol, atol, err_msg=reduction)
        # PyTorch makes NaN of the gradient where a logit is -inf and the loss is 0 * inf.
        their_grad = np.where(np.isnan(their_grad) & np.isneginf(logits), 0, their_grad)
        # Logarithms of 1e6 leave PyTorch's gradient 1e-10 of noise; ours has exact zeros and ones there.
        noise = 1e-9 if key == "extreme" else 0
        np.testing.assert_allclose(grad, their_grad, rtol, atol + noise, err_msg=reduction)


@pytest.mark.usefixtures("x64")
def test_gradient_of_log_probabilities_is_pytorchs():
    loss, grad = compiled(LOGITS, TARGETS, FRAMES, SIZES, through=False)
    theirs, their_grad = torch_losses.ctc_value_and_grad(LOGITS, TARGETS, FRAMES, SIZES, through=False)
    np.testing.assert_allclose(loss, theirs, rtol=1e-12)
    np.testing.assert_allclose(grad, their_grad, rtol=1e-11, atol=1e-14)


def test_infinite_loss_is_not_hidden():
    loss, grad = compiled(np.float32(LOGITS), TARGETS, FEW, SIZES, reduction="none")
    theirs, their_grad = torch_losses.ctc_value_and_grad(LOGITS, TARGETS, FEW, SIZES, reduction="none")
    np.testing.assert_array_equal(np.isinf(loss), [False, True, False, True, False])
    np.testing.assert_allclose(loss, theirs, rtol=1e-5)
    np.testing.assert_array_equal(np.isfinite(grad), np.isfinite(their_grad))


def test_lengths_can_be_traced():
    run = jax.jit(lambda *args: losses.ctc_loss(*args, reduction="none"))
    x = jax.nn.log_softmax(jnp.float32(LOGITS))
    for targets in (TARGETS, JOINED):
        np.testing.assert_allclose(
            run(x, targets, FRAMES, SIZES),
            losses.ctc_loss(x, targets, FRAMES, SIZES, reduction="none"),
            rtol=1e-6,
        )


def test_optax_agrees_where_it_can():
    logits = jnp.float32(LOGITS)
    paddings = [
        (jnp.arange(length)[None] >= jnp.asarray(sizes)[:, None]).astype(jnp.float32)
        for length, sizes in ((T, FRAMES), (3, SIZES))
    ]
    theirs = optax.losses.ctc_loss(logits.swapaxes(0, 1), paddings[0], TARGETS, paddings[1])
    mine = losses.ctc_loss(jax.nn.log_softmax(logits), TARGETS, FRAMES, SIZES, reduction="none")
    np.testing.assert_allclose(mine, theirs, rtol=1e-5)


def test_frames_beyond_the_length_may_hold_anything():
    spoilt = np.where(np.arange(T)[:, None, None] < FRAMES[:, None], LOGITS, np.nan).astype(np.float32)
    loss, grad = compiled(spoilt, TARGETS, FRAMES, SIZES, through=False)
    clean, _ = compiled(np.float32(LOGITS), TARGETS, FRAMES, SIZES, through=False)
    np.testing.assert_allclose(loss, clean, rtol=1e-6)
    assert np.isfinite(grad).all()


WRONG = {
    "frames": (
        (LOGITS, TARGETS, FRAMES + 1, SIZES),
        {},
        "Expected input_lengths to have value at most 7, but got value 8",
    ),
    "no frames": (
        (LOGITS, TARGETS, FRAMES * np.int32([1, 1, 1, 1, 0]) - np.int32([0, 0, 0, 0, 2]), SIZES),
        {},
        "Expected input_lengths to have value at least 0, but got value -2",
    ),
    "size": (
        (LOGITS, TARGETS, FRAMES, SIZES - np.int32([0, 0, 0, 0, 3])),
        {},
        "Expected target_lengths to have value at least 0, but got value -1",
    ),
    "batch": ((LOGITS, TARGETS, FRAMES[:3], SIZES), {}, "input_lengths must be of size batch_size"),
    "targets": ((LOGITS, TARGETS, FRAMES, SIZES[:3]), {}, "target_lengths must be of size batch_size"),
    "blank": ((LOGITS, TARGETS, FRAMES, SIZES), {"blank": 4}, "blank must be in label range"),
    "joined": ((LOGITS, JOINED[:-1], FRAMES, SIZES), {}, "targets"),
    "reduction": (
        (LOGITS, TARGETS, FRAMES, SIZES),
        {"reduction": "max"},
        "max is not a valid value for reduction",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_in_their_words(case):
    (logits, *others), arguments, words = WRONG[case]
    with pytest.raises(Exception, match=words):
        torch_losses.ctc_value_and_grad(logits, *others, **arguments)
    with pytest.raises(ValueError, match=words):
        losses.ctc_loss(np.float32(logits), *others, **arguments)


def test_wrong_kinds():
    x = np.float32(LOGITS)
    with pytest.raises(ValueError, match="target_lengths to have value at most 3"):
        losses.ctc_loss(x, TARGETS, FRAMES, SIZES + 1)
    with pytest.raises(TypeError, match="input_lengths must be integral"):
        losses.ctc_loss(x, TARGETS, np.float32(FRAMES), SIZES)
    with pytest.raises(TypeError, match="targets must be integral"):
        losses.ctc_loss(x, np.float32(TARGETS), FRAMES, SIZES)
    with pytest.raises(ValueError, match="got 1 dimensions"):
        losses.ctc_loss(x[0, 0], TARGETS, FRAMES, SIZES)
