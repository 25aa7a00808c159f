"""Every class of the table, and the rules for numbers, scalars and constants."""

from __future__ import annotations

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Primitive

from jaxopt_core.precision import _table as table
from jaxopt_core.precision import autocast, autocast_report

# Seen after a product, so that it is low: (3, 4), positive and smooth.
X = jnp.linspace(0.1, 0.9, 12).reshape(3, 4)
W = jnp.eye(4)


def ran(fn, *args, dtype="bfloat16"):
    """What the operations that ``fn`` does to a product ran in: (name, type) pairs."""
    rows = autocast_report(lambda w, x, *rest: fn(x @ w, *rest), dtype)(W, X, *args)
    assert (rows[0].name, rows[0].ran) == ("dot_general", dtype)
    return [(row.name, row.ran) for row in rows[1:]]


def test_the_table_names_primitives_that_exist():
    names = {obj.name for obj in gc.get_objects() if issubclass(type(obj), Primitive)}
    listed = table.PRODUCTS | table.FLOAT32 | table.WIDEST | table.FOLLOW | table.COMPARE
    assert listed <= names


def test_no_primitive_is_in_two_classes():
    classes = [table.PRODUCTS, table.FLOAT32, table.WIDEST, table.FOLLOW, table.COMPARE]
    assert sum(map(len, classes)) == len(frozenset().union(*classes))


@pytest.mark.parametrize(
    ("name", "fn"),
    {
        "dot_general": lambda y: y @ W,
        "conv_general_dilated": lambda y: lax.conv(y[None, None], W[None, None, :2, :2], (1, 1), "SAME"),
    }.items(),
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_products_are_low(name, fn, dtype):
    assert (name, dtype) in ran(fn, dtype=dtype)


@pytest.mark.parametrize(
    ("name", "fn"),
    {
        "exp": jnp.exp,
        "expm1": jnp.expm1,
        "log": jnp.log,
        "log1p": jnp.log1p,
        "pow": lambda y: lax.pow(y, y),
        "rsqrt": lax.rsqrt,
        "reduce_sum": lambda y: lax.reduce_sum(y, (0,)),
        "reduce_prod": lambda y: jnp.prod(y, 0),
        "cumsum": lambda y: lax.cumsum(y, 0),
        "cumprod": lambda y: lax.cumprod(y, 0),
        "cumlogsumexp": lambda y: lax.cumlogsumexp(y, 0),
        "erf_inv": lax.erf_inv,
        "lgamma": lax.lgamma,
        "sinh": jnp.sinh,
        "acos": lax.acos,
        "tan": lax.tan,
        "scatter-add": lambda y: y.at[jnp.array([0, 0])].add(1.0),
        "reduce_window_sum": lambda y: lax.reduce_window(y, 0.0, lax.add, (2, 2), (1, 1), "VALID"),
        "dot_general": lambda y: jnp.vdot(y, y),  # no free dimension: a sum
        "integer_pow": lambda y: lax.integer_pow(y, -1),  # a reciprocal
        "div": lambda y: 1.0 / y,
        "svd": lambda y: lax.linalg.svd(y, compute_uv=False),  # in no list: as traced
        "fft": jnp.fft.rfft,
    }.items(),
)
def test_float32(name, fn):
    assert (name, "float32") in ran(fn)
    assert (name, "bfloat16") not in ran(fn)


@pytest.mark.parametrize(("dtype", "type_of_powers"), [("bfloat16", "bfloat16"), ("float16", "float32")])
def test_powers_leave_the_range_of_float16(dtype, type_of_powers):
    assert ran(lambda y: jnp.tanh(lax.integer_pow(y, 3)), dtype=dtype)[0] == ("integer_pow", type_of_powers)
    assert ran(lambda y: jnp.tanh(lax.square(y)), dtype=dtype)[0] == ("square", type_of_powers)


@pytest.mark.parametrize(
    "fn",
    [
        *(jnp.tanh, lax.logistic, jnp.sqrt, jnp.sin, jnp.abs, lax.neg, lax.erf, lax.floor, lax.sort),
        *(lax.cummax, jnp.transpose, jnp.ravel, pytest.param(lambda y: y[1:], id="slice")),
    ],
)
def test_the_rest_follows_its_input(fn):
    assert {where for _, where in ran(fn)} == {"bfloat16"}


@pytest.mark.parametrize(
    "fn",
    [lambda y: jnp.max(y, 0), lambda y: y[jnp.array([0, 0])], lambda y: jnp.broadcast_to(y, (2, 3, 4))],
    ids=["max", "gather", "broadcast"],
)
def test_exact_operations_whose_gradients_are_sums(fn):
    assert "float32, rounded" in {where for _, where in ran(fn)}
    grad = jax.make_jaxpr(jax.grad(lambda x: jnp.sum(autocast(lambda x: jnp.sin(fn(x @ W)))(x))))(X)
    sums = [e for e in grad.eqns if e.primitive.name in ("reduce_sum", "scatter-add")]
    assert sums
    assert {str(e.outvars[0].aval.dtype) for e in sums} == {"float32"}


TWO = {
    "add": lax.add,
    "sub": lax.sub,
    "mul": lax.mul,
    "max": lax.max,
    "concatenate": lambda a, b: lax.concatenate([a, b], 0),
    "select_n": lambda a, b: lax.select(a > b, a, b),
    "dynamic_update_slice": lambda a, b: lax.dynamic_update_slice(a, b, (0, 0)),
}


@pytest.mark.parametrize(("name", "fn"), TWO.items())
def test_widest_input(name, fn):
    assert (name, "float32") in ran(fn, X)
    assert (name, "bfloat16") in ran(lambda y: fn(y, jnp.tanh(y)))


def test_widest_of_a_float32_array_is_not_narrowed():
    out = autocast(lambda x, b: (x @ W) + b)(X, jnp.full((3, 4), 2.0**-20))
    np.testing.assert_array_equal(out - jnp.bfloat16(X).astype(np.float32), jnp.full((3, 4), 2.0**-20))


@pytest.mark.parametrize(
    "fn", [lambda y: y + 1.0, lambda y: y * 0.5, lambda y: jnp.maximum(y, 0.3)], ids=["add", "mul", "max"]
)
def test_numbers_do_not_widen(fn):
    assert {where for _, where in ran(lambda y: jnp.tanh(fn(y)))} <= {"bfloat16"}


@pytest.mark.parametrize(
    "fn", [lambda y: y * 0.1, lambda y: y - 0.1, lambda y: y / 3.3], ids=["mul", "sub", "div"]
)
def test_a_number_that_is_not_exact_is_not_rounded(fn):
    (_, where), *_ = ran(fn)
    assert where == "float32, rounded"
    low = np.asarray(X.astype(jnp.bfloat16).astype(jnp.float32))
    np.testing.assert_array_equal(autocast(lambda x: fn(x @ W))(X), jnp.bfloat16(fn(low)).astype(jnp.float32))


def test_a_scalar_argument_does_not_widen():
    assert ran(lambda y, s: y * s, jnp.float32(3.0)) == [("mul", "float32, rounded")]
    # 65536 itself is an infinity in float16: the loss scale of the first step.
    scaled = autocast(lambda x, s: x @ W * s, "float16")(X / 1e3, jnp.float32(65536.0))
    np.testing.assert_allclose(scaled, X / 1e3 * 65536.0, rtol=2e-3)


def test_what_derives_from_numbers_does_not_widen():
    assert ("add", "bfloat16") in ran(lambda y: y + jnp.where(y > 0.5, 0.0, -1e9))
    assert ("mul", "float32, rounded") in ran(lambda y: y * jnp.full((3, 4), 0.1))


@pytest.mark.parametrize(
    "fn", [lambda y: jnp.log(y + 1e-12), lambda y: jnp.log(jnp.maximum(y, 1e-12))], ids=["add", "max"]
)
def test_a_number_that_would_be_zero_is_not_lost(fn):
    out = autocast(lambda x: fn(x @ W), "float16")(jnp.zeros((3, 4)))
    np.testing.assert_allclose(out, np.log(1e-12), rtol=1e-6)


def test_norms_and_softmax_are_float32_as_a_whole():
    assert {where for name, where in ran(jax.nn.log_softmax) if name in ("sub", "exp", "log")} == {"float32"}
    assert {where for name, where in ran(jax.nn.softmax) if name in ("sub", "exp", "div")} == {"float32"}
    assert {where for name, where in ran(jnp.var) if name in ("sub", "square", "reduce_sum")} == {"float32"}


@pytest.mark.usefixtures("x64")
def test_other_types_are_left_alone():
    wide, whole = jnp.ones((2, 2), jnp.float64) / 3, jnp.arange(4).reshape(2, 2)
    z = lax.complex(wide, wide)
    for fn, x in [(jnp.exp, wide), (jnp.dot, wide), (jnp.dot, whole), (jnp.dot, z)]:
        args = (x, x) if fn is jnp.dot else (x,)
        np.testing.assert_array_equal(autocast(fn)(*args), fn(*args))
        assert autocast(fn)(*args).dtype == x.dtype
    half = jnp.ones((2, 2), jnp.float16)
    assert autocast(jnp.dot)(half, half).dtype == jnp.float16
    assert autocast_report(jnp.dot)(half, half) == ()


@pytest.mark.parametrize("precision", ["high", "highest"])
def test_explicit_precision_stays(precision):
    def fn(w, x):
        return jnp.matmul(x, w, precision=precision)

    (row,) = autocast_report(fn)(W, X)
    assert (row.ran, row.why) == ("float32", "explicit precision: as traced")
    np.testing.assert_array_equal(autocast(fn)(W, X), fn(W, X))


def test_the_global_precision_is_not_an_explicit_one():
    with jax.default_matmul_precision("highest"):
        (row,) = autocast_report(jnp.matmul)(X, W)
    assert row.ran == "bfloat16"
