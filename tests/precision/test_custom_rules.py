"""Custom derivative rules are kept, and rewritten like the rest."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxopt_core.precision import autocast
from tests.precision.programs import dtypes, equations

W = jax.random.normal(jax.random.key(0), (8, 8)) / 8**0.5
X = jax.random.normal(jax.random.key(1), (4, 8))


@jax.custom_vjp
def straight_through(x):
    return jnp.round(x)


straight_through.defvjp(lambda x: (straight_through(x), None), lambda _, g: (g,))


@jax.custom_jvp
def steep(x):
    return 100 * x


@steep.defjvp
def _(primals, tangents):
    return steep(*primals), tangents[0]  # whatever its slope, its gradient passes as it is


@jax.custom_vjp
def clipped(x):
    return x


clipped.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -0.5, 0.5),))


@jax.custom_vjp
def product(x, w):
    return x @ w


def _product_bwd(saved, g):
    x, w, doubled = saved
    assert {x.dtype, w.dtype, doubled.dtype, g.dtype} == {np.dtype(np.float32)}
    return g @ w.T, 2 * (x.T @ g) + 0 * jnp.sum(doubled)


# x and w are arguments, which JAX prunes from what is saved; the third is not.
product.defvjp(lambda x, w: (x @ w, (x, w, jnp.tanh(x @ w) * 2)), _product_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def scaled(factor, x, shift):
    return factor * x + shift.astype(x.dtype)


scaled.defvjp(lambda f, x, s: (scaled(f, x, s), None), lambda f, _, g: (10 * f * g, None))


@jax.custom_vjp
def symbolic(x, w):
    return x @ w


def _symbolic_fwd(x, w):
    return x.value @ w.value, (w.value, x.value if w.perturbed else None)


def _symbolic_bwd(saved, g):
    w, x = saved
    return g @ w.T, None if x is None else x.T @ g


symbolic.defvjp(_symbolic_fwd, _symbolic_bwd, symbolic_zeros=True)


def compare(fn, *args, rtol=0.03):
    """Gradients near those without autocast, under jit on either side of it; returns them."""

    def gradients(*args):
        functions = fn, autocast(fn), autocast(jax.jit(fn))
        return [jax.grad(lambda *a, f=f: jnp.sum(f(*a)), range(len(args)))(*args) for f in functions]

    exact, ours, inside = jax.jit(gradients)(*args)
    for a, b, c in zip(ours, inside, exact, strict=True):
        assert a.dtype == b.dtype == c.dtype
        assert jnp.linalg.norm(a - c) <= rtol * jnp.linalg.norm(c)
        assert jnp.linalg.norm(b - c) <= rtol * jnp.linalg.norm(c)
    return ours


def test_straight_through():
    grad = compare(lambda w: straight_through(5 * (X @ w)), W)[0]
    assert jnp.abs(grad).max() > 1  # inlined, it would be zero


def test_clipping():
    grad = jax.grad(lambda x: jnp.sum(autocast(lambda x: 1000 * clipped(x @ jnp.eye(8)))(x)))(X)
    np.testing.assert_array_equal(grad, jnp.full((4, 8), 0.5))


def test_custom_jvp():
    grad = compare(lambda w: steep(jnp.tanh(X @ w)), W)[0]
    assert jnp.abs(grad).max() < 20  # inlined, it would be a hundred times that
    assert dtypes(autocast(lambda w: steep(X @ w)), W, name="custom_jvp_call") == ["bfloat16"]


@pytest.mark.parametrize("shape", ["plain", "scan", "remat", "cond", "vmap"])
def test_rules_inside_of_programs(shape):
    def layer(x, w):
        return product(straight_through(3 * steep(x)) / 3, w) * 0.1

    programs = {
        "plain": lambda w: layer(X, w),
        "scan": lambda w: lax.scan(lambda c, _: (layer(c, w), None), X, length=2)[0],
        "remat": lambda w: jax.checkpoint(layer)(X, w),
        "cond": lambda w: lax.cond(True, lambda: layer(X, w), lambda: X),
        "vmap": lambda w: jax.vmap(layer, in_axes=(0, None))(X[:, None], w),
    }
    compare(programs[shape], W, rtol=0.05)


def test_products_in_a_rule_are_low_and_the_rule_sees_float32():
    grad = compare(product, X, W)
    np.testing.assert_allclose(grad[1], 2 * X.T @ jnp.ones((4, 8)), rtol=0.05, atol=0.05)
    step = jax.grad(lambda x, w: jnp.sum(autocast(product)(x, w)), (0, 1))
    assert set(dtypes(step, X, W, name="dot_general")) == {"bfloat16"}


def test_what_a_rule_saves_is_low():
    _, backward = jax.vjp(autocast(lambda x: product(jnp.tanh(x @ W), W)), X)
    saved = [str(leaf.dtype) for leaf in jax.tree.leaves(backward) if leaf.shape == X.shape]
    assert saved
    assert set(saved) == {"bfloat16"}


def test_integer_arguments_and_static_ones():
    grad = compare(lambda x: scaled(3.0, x @ jnp.eye(8), jnp.arange(8)[None]), X)[0]
    np.testing.assert_array_equal(grad, jnp.full((4, 8), 30.0))


def test_symbolic_zeros():
    compare(symbolic, X, W)
    eqns = equations(jax.grad(lambda x: jnp.sum(autocast(symbolic)(x, W))), X)
    # Only the input moves, so that the rule does not compute the weight's gradient.
    assert sum(e.primitive.name == "dot_general" for e in eqns) == 2


def test_rules_of_jax_itself():
    compare(lambda w: jax.nn.relu(X @ w) + jax.nn.silu(X @ w) + jax.nn.logsumexp(X @ w), W)


def test_a_rule_that_closes_over_what_is_differentiated_raises_as_ever():
    def closing(w):
        @jax.custom_vjp
        def f(x):
            return x @ w

        f.defvjp(lambda x: (f(x), None), lambda _, g: (g @ w.T,))
        return jnp.sum(jax.jit(f)(X))

    with pytest.raises(Exception, match="closed-over value"):
        jax.grad(autocast(closing))(W)
