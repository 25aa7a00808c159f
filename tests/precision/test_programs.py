"""Through functions, loops, branches and maps, and under JAX's own transformations."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxopt_core.precision import autocast
from tests.precision.programs import count, dtypes, equations

W = jax.random.normal(jax.random.key(0), (8, 8)) / 8**0.5
X = jax.random.normal(jax.random.key(1), (16, 8))
MESH = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


def layer(w, x):
    return jnp.tanh(x @ w)


def scan(w, x):
    return lax.scan(lambda c, _: (layer(w, c), jnp.mean(c @ w)), x, length=3)


def loop(w, x):
    start = jnp.zeros(()), x
    return lax.while_loop(lambda c: jnp.sum(c[0]) < 3, lambda c: (c[0] + 1, layer(w, c[1])), start)[1]


def cond(w, x):
    return lax.cond(jnp.sum(x) > 0, lambda: layer(w, x), lambda: (x @ w) * 2)


def switch(w, x):
    return lax.switch(jnp.int32(1), [layer, lambda w, x: x @ w, lambda w, x: x * 0.5], w, x)


def remat(w, x):
    return jax.checkpoint(layer, policy=jax.checkpoint_policies.nothing_saveable)(w, x)


def shard_map(w, x):
    def local(w, x):
        return lax.psum(jnp.sum(layer(w, x), 0), "data")

    return jax.shard_map(local, mesh=MESH, in_specs=(P(), P("data")), out_specs=P())(w, x)


def pmap(w, x):
    def local(w, x):
        return lax.psum(jnp.sum(layer(w, x), 0), "data")

    return jax.pmap(local, axis_name="data", in_axes=(None, 0))(w, x.reshape(8, 2, 8))


def nested(w, x):
    body = jax.checkpoint(jax.jit(lambda c, w: (cond(w, c), jnp.sum(c))))
    return lax.scan(body, x, jnp.stack([w, w.T]))


PROGRAMS = [jax.jit(layer), scan, loop, cond, switch, remat, shard_map, pmap, nested]
each_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)


@each_program
def test_products_are_low_and_results_are_not(program):
    found = dtypes(autocast(program), W, X, name="dot_general")
    assert found
    assert set(found) == {"bfloat16"}
    exact, ours = jax.jit(lambda w, x: [program(w, x), autocast(program)(w, x)])(W, X)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=0.05, rtol=0.01)


@pytest.mark.parametrize("program", [p for p in PROGRAMS if p not in (loop, pmap)], ids=lambda f: f.__name__)
def test_gradients_with_jit_on_either_side(program):
    def loss(program, w):
        return sum(jnp.sum(out**2) for out in jax.tree.leaves(program(w, X)))

    def gradients(w):
        functions = program, autocast(program), autocast(jax.jit(program))
        return [jax.grad(functools.partial(loss, f))(w) for f in functions]

    exact, *both = jax.jit(gradients)(W)
    for ours in both:
        assert ours.dtype == jnp.float32
        assert 0 < jnp.linalg.norm(ours - exact) < 0.03 * jnp.linalg.norm(exact)


def test_vmap_on_either_side():
    ws = jnp.stack([W, W.T])

    def program(w, x):
        return cond(w, remat(w, scan(w, x)[0]))

    inside = jax.jit(autocast(jax.vmap(program, in_axes=(0, None))))(ws, X)
    outside = jax.jit(jax.vmap(autocast(program), in_axes=(0, None)))(ws, X)
    np.testing.assert_allclose(inside, outside, atol=0.02)
    np.testing.assert_allclose(outside[1], autocast(program)(W.T, X), atol=0.02)


def test_sums_over_devices_are_float32():
    for program in (shard_map, pmap):
        eqns = equations(autocast(program), W, X)
        sums = [e for e in eqns if e.primitive.name in ("psum", "psum_invariant")]
        assert [str(e.outvars[0].aval.dtype) for e in sums] == ["float32"]
    backwards = equations(jax.grad(lambda w: jnp.sum(autocast(shard_map)(w, X))), W)
    sums = [e for e in backwards if e.primitive.name == "psum_invariant"]
    assert {str(e.outvars[0].aval.dtype) for e in sums} == {"float32"}


def test_autocast_inside_shard_map_and_pmap():
    def local(w, x):
        return lax.psum(jnp.sum(layer(w, x), 0), "data")

    mapped = jax.shard_map(autocast(local), mesh=MESH, in_specs=(P(), P("data")), out_specs=P())
    np.testing.assert_allclose(mapped(W, X), autocast(shard_map)(W, X), atol=0.02)
    assert dtypes(mapped, W, X, name="dot_general") == ["bfloat16"]
    mapped = jax.pmap(autocast(local), axis_name="data", in_axes=(None, 0))
    np.testing.assert_allclose(mapped(W, X.reshape(8, 2, 8)), autocast(pmap)(W, X), atol=0.02)


def test_what_a_function_carries_stays():
    inner = jax.jit(layer, donate_argnums=1, out_shardings=jax.NamedSharding(MESH, P("data")))
    eqn = next(e for e in equations(autocast(inner), W, X) if e.primitive.name == "jit")
    assert eqn.params["donated_invars"] == (False, True)
    assert eqn.params["name"] == "layer"
    assert eqn.params["out_shardings"][0].spec == P("data")
    unrolled = functools.partial(lax.scan, lambda c, x: (c @ W, None), unroll=2, reverse=True, length=4)
    eqn = next(e for e in equations(autocast(lambda x: unrolled(x, None)), X) if e.primitive.name == "scan")
    assert (eqn.params["unroll"], eqn.params["reverse"]) == (2, True)


def test_remat_recomputes():
    def tanhs(f):
        return count(jax.grad(lambda w: jnp.sum(autocast(f)(w, X))), W, name="tanh")

    assert (tanhs(layer), tanhs(remat)) == (1, 2)
    # The gradient of a checkpoint keeps the barrier that makes it recompute.
    text = jax.jit(autocast(jax.grad(lambda w: jnp.sum(remat(w, X))))).lower(W).as_text()
    assert "optimization_barrier" in text


def test_second_derivatives():
    def curvature(program, s):
        return jax.hessian(lambda s: jnp.sum(program(W * s, X) ** 2))(s)

    exact, ours = jax.jit(lambda s: [curvature(f, s) for f in (layer, autocast(layer))])(jnp.float32(1.0))
    np.testing.assert_allclose(ours, exact, rtol=0.05)
    linear = jax.linearize(autocast(layer), W, X)[1](W, X)
    np.testing.assert_allclose(linear, jax.jvp(layer, (W, X), (W, X))[1], atol=0.05)


def test_gradient_inside_autocast():
    ours = autocast(jax.grad(lambda w: jnp.sum(layer(w, X))))(W)
    exact = jax.grad(lambda w: jnp.sum(layer(w, X)))(W)
    assert ours.dtype == jnp.float32
    assert jnp.linalg.norm(ours - exact) < 0.02 * jnp.linalg.norm(exact)


def test_closed_over_tracers_and_arrays():
    # W is an array of the surrounding function, s a tracer of the surrounding gradient.
    grad = jax.grad(lambda s: jnp.sum(autocast(lambda x: (x * s) @ W)(X)))(jnp.float32(1.0))
    np.testing.assert_allclose(grad, jnp.sum(X @ W), rtol=0.02)
    with jax.checking_leaks():
        jax.jit(jax.grad(lambda w: jnp.sum(autocast(scan)(w, X)[0])))(W)


def test_callbacks_see_what_they_were_written_for():
    seen = []

    def fn(x):
        jax.debug.callback(lambda y: seen.append(y.dtype), x @ W)
        return jax.pure_callback(np.asarray, jax.ShapeDtypeStruct((16, 8), jnp.float32), x @ W)

    assert autocast(fn)(X).dtype == jnp.float32
    jax.effects_barrier()
    assert seen == [jnp.float32]
