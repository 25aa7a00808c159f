"""What goes wrong in a low type, and does not here."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jaxopt_core.precision import autocast, no_autocast
from tests.precision.programs import dtypes, equations

LEAST = float(np.finfo(np.float32).min)
BOTH = pytest.mark.parametrize("dtype", ["bfloat16", "float16"])


def distance(ours, exact):
    return float(jnp.linalg.norm(ours - exact) / jnp.linalg.norm(exact))


def together(*functions):
    """The gradients of several functions, compiled once."""
    return jax.jit(lambda *args: [jax.grad(f)(*args) for f in functions])


def test_an_accumulator_over_a_loop_is_exact():
    # 4096 additions of 0.001 to a running sum: in bfloat16 it stops growing at 0.5.
    w, xs = jnp.full((4, 4), 0.25), jnp.full((4096, 4), 1e-3)

    def total(w, xs):
        return lax.scan(lambda carry, x: (carry + x @ w, None), jnp.zeros(4), xs)[0]

    def total_of_while(w, xs):
        return lax.fori_loop(0, len(xs), lambda i, carry: carry + xs[i] @ w, jnp.zeros(4))

    low = lax.scan(lambda c, x: (c + x, None), jnp.bfloat16(0), xs[:, 0].astype(jnp.bfloat16))[0]
    assert low <= 0.5
    for fn in (total, total_of_while):
        np.testing.assert_allclose(jax.jit(autocast(fn))(w, xs), 4.096, rtol=2e-3)
        assert dtypes(autocast(fn), w, xs, name="dot_general") == ["bfloat16"]


@BOTH
@pytest.mark.parametrize(("how", "fill"), [("where", LEAST), ("add", LEAST), ("array", LEAST), ("add", -1e9)])
def test_a_fully_masked_row_is_uniform(dtype, how, fill):
    w, x, mask = jnp.eye(4), jnp.ones((2, 4)), jnp.array([[True] * 4, [False] * 4])

    def attention(w, x):
        logits = x @ w
        if how == "where":
            logits = jnp.where(mask, logits, fill)
        elif how == "add":
            logits = logits + jnp.where(mask, 0.0, fill)
        else:
            logits = jnp.where(mask, logits, jnp.full((2, 4), fill))
        return jax.nn.softmax(logits)

    out, backward = jax.jit(lambda w: jax.vjp(lambda w: autocast(attention, dtype)(w, x), w))(w)
    np.testing.assert_array_equal(out, jnp.full((2, 4), 0.25))
    assert jnp.isfinite(backward(jnp.ones((2, 4)))[0]).all()


@BOTH
def test_infinities_stay(dtype):
    out = autocast(lambda x: jnp.where(x > 2, x @ jnp.eye(2), -jnp.inf), dtype)(jnp.full((2, 2), 1.0))
    assert jnp.isneginf(out).all()


def test_a_weight_used_64_times():
    w = jax.random.normal(jax.random.key(0), (32, 32)) / 32**0.5
    xs = jax.random.normal(jax.random.key(1), (64, 4, 32))

    def used(w, xs):
        return lax.scan(lambda c, x: (c + jnp.sum(jnp.tanh(x @ w)), None), jnp.zeros(()), xs)[0]

    def cast_once(w, xs):  # what a cache of casts comes to
        low, xs = w.astype(jnp.bfloat16), xs.astype(jnp.bfloat16)
        zero = jnp.zeros((), jnp.float32)
        return lax.scan(lambda c, x: (c + jnp.sum(jnp.tanh(x @ low)).astype(c.dtype), None), zero, xs)[0]

    def written_out(w, xs):
        return sum(jnp.sum(jnp.tanh(x @ w)) for x in xs[:3])

    exact, ours, cached = together(used, autocast(used), cast_once)(w, xs)
    assert distance(ours, exact) < 0.6 * distance(cached, exact)
    # Outside of loops as well: each use casts anew, and the sum of their gradients is float32.
    sums = [e for e in equations(jax.grad(autocast(written_out)), w, xs) if e.primitive.name == "add_any"]
    of_weights = [e.outvars[0].aval.dtype for e in sums if e.outvars[0].aval.shape == w.shape]
    assert of_weights == [jnp.float32] * 2


def test_a_low_value_that_a_loop_shares_has_its_gradient_summed_in_float32():
    def shared(w, xs):
        key = jnp.tanh(w @ jnp.eye(8))  # low, and read by every iteration
        return lax.scan(lambda c, x: (c + jnp.sum(x * key), None), jnp.zeros(()), xs)[0]

    w, xs = jnp.full((8, 8), 0.5), jnp.full((512, 8, 8), 1.01)
    exact, ours = together(shared, autocast(shared))(w, xs)
    np.testing.assert_allclose(ours, exact, rtol=1e-2)


def test_the_bias_of_a_product():
    b, x = jnp.zeros(8), jnp.ones((65536, 4))

    def layer(b):
        return x @ jnp.ones((4, 8)) + b

    out = equations(autocast(lambda b: jnp.tanh(layer(b))), jnp.zeros((1, 8)))
    assert [str(e.outvars[0].aval.dtype) for e in out if e.primitive.name == "tanh"] == ["bfloat16"]
    # Flax's Dense(dtype=bfloat16) sums these gradients in bfloat16, and finds 8192.
    grad = jax.grad(lambda b: jnp.sum(autocast(lambda b: layer(b[None]))(b)))(b)
    np.testing.assert_array_equal(grad, jnp.full(8, 65536.0))


def test_a_gradient_that_a_gate_spreads_is_summed_in_float32():
    def gated(g, x):
        return jnp.sum(jnp.sin(jax.nn.sigmoid(g @ jnp.eye(8)) * (x @ jnp.eye(8))))

    g, x = jnp.zeros((1, 8)), jnp.full((4096, 8), 0.5)
    exact, ours = together(gated, autocast(gated))(g, x)
    np.testing.assert_allclose(ours, exact, rtol=1e-2)


def test_ctc_needs_no_autocast():
    logits = jax.random.normal(jax.random.key(0), (2, 16, 6))
    labels = jnp.tile(jnp.arange(1, 5)[None], (2, 1))

    def ctc(logits):
        return jnp.mean(optax.ctc_loss(logits, jnp.zeros((2, 16)), labels, jnp.zeros((2, 4))))

    def exempt(logits):
        with no_autocast():
            return ctc(logits)

    exact, low, ours = jax.jit(lambda x: [f(x) for f in (ctc, autocast(ctc), autocast(exempt))])(logits)
    assert abs(low - exact) > 1e-5 * exact
    assert ours == exact
    assert "bfloat16" in dtypes(autocast(ctc), logits, name="dot_general")
    assert set(dtypes(autocast(jax.grad(exempt)), logits, name="dot_general")) == {"float32"}


def test_no_autocast_holds_for_all_inside_and_nothing_outside():
    w, x = jnp.eye(4), jnp.full((3, 4), 1 / 3)

    @no_autocast()
    def inner(w, x):
        return lax.scan(lambda c, _: (jax.jit(jnp.matmul)(c, w), None), x, length=2)[0]

    def fn(w, x):
        return inner(w, x) @ w

    assert dtypes(autocast(fn), w, x, name="dot_general") == ["float32", "bfloat16"]
    # Under a gradient the scope's name is wrapped, and its backward products are exempt as well.
    backwards = dtypes(autocast(jax.grad(lambda w: jnp.sum(inner(w, x)))), w, name="dot_general")
    assert set(backwards) == {"float32"}


def test_enabled_false_inside_autocast():
    w, x = jnp.eye(4), jnp.full((3, 4), 1 / 3)
    off = autocast(jnp.matmul, enabled=False)
    np.testing.assert_array_equal(off(x, w), x)
    assert dtypes(autocast(lambda w, x: off(off(x, w), w)), w, x, name="dot_general") == ["float32"] * 2
    assert dtypes(autocast(autocast(jnp.matmul, "float16")), w, x.T, name="dot_general") == ["float16"]


def test_random_numbers_are_those_of_float32():
    def noisy(key, x):
        return jax.random.normal(key, x.shape), jax.random.bernoulli(key, 0.5, x.shape)

    key, x = jax.random.key(0), jnp.ones((8, 8))
    both = jax.jit(lambda key: [f(key, x) for f in (noisy, autocast(noisy))])(key)
    for exact, ours in zip(*both, strict=True):
        np.testing.assert_array_equal(ours, exact)
