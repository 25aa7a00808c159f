"""What goes in, what comes out, what is refused, and how often a call compiles."""

from __future__ import annotations

import functools
import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jaxopt_core.models import pure
from jaxopt_core.precision import _memo, autocast
from tests.precision.programs import dtypes

W, X = jnp.eye(4) / 3, jnp.full((3, 4), 1 / 3)


def test_other_arguments_and_results_pass_as_they_are():
    def fn(x, w, flag, *, times, names):
        assert isinstance(flag, bool)
        assert isinstance(times, int)
        return {"y": x @ w * times, "names": names, "flag": flag, "none": None}

    out = autocast(fn)(X, W, True, times=3, names=("a", "b"))
    assert out["y"].dtype == jnp.float32
    assert (out["names"], out["flag"], out["none"]) == (("a", "b"), True, None)
    np.testing.assert_allclose(out["y"], X @ W * 3, rtol=1e-2)


def test_numpy_arrays_and_keys():
    out = autocast(lambda x, key: x @ W + jax.random.uniform(key, (3, 4)))(np.asarray(X), jax.random.key(0))
    np.testing.assert_allclose(out, X @ W + jax.random.uniform(jax.random.key(0), (3, 4)), rtol=1e-2)


def test_name_and_docstring_stay():
    def fn(x):
        """Says what."""
        return x

    assert (autocast(fn).__name__, autocast(fn).__doc__) == ("fn", "Says what.")


@pytest.mark.parametrize("dtype", ["float32", jnp.float8_e4m3fn, "int8"])
def test_other_types_are_refused(dtype):
    with pytest.raises(ValueError, match="only supports dtypes of bfloat16, float16; got"):
        autocast(jnp.matmul, dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", jnp.float16, np.dtype("float16")], ids=repr)
def test_ways_to_say_a_type(dtype):
    assert dtypes(autocast(jnp.matmul, dtype), X, W, name="dot_general") == [str(jnp.dtype(dtype))]


def test_a_function_is_traced_anew_at_every_call():
    # Under jit this would be a stale value. Autocast is used on closures over models that are trained.
    scale = [1.0]
    fn = autocast(lambda x: x * scale[0])
    first, scale[0] = fn(X), 2.0
    np.testing.assert_array_equal(fn(X), 2 * first)


def test_a_model_changed_in_place_is_an_error():
    model = nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"changes '0/mean/value' .* would lose the change"):
        autocast(lambda m, x: m(x))(model, X)
    model.eval()
    assert autocast(lambda m, x: m(x))(model, X).shape == (3, 4)


def test_a_model_as_a_pure_function_updates_its_statistics():
    model = nnx.Sequential(nnx.Linear(4, 8, rngs=nnx.Rngs(0)), nnx.BatchNorm(8, rngs=nnx.Rngs(0)))
    apply, params, rest = pure(model)
    x = jax.random.normal(jax.random.key(0), (16, 4))
    exact, ours = (f(params, rest, x, train=True) for f in (apply, autocast(apply)))
    for a, b, before in zip(*map(jax.tree.leaves, (ours[1], exact[1], rest)), strict=True):
        np.testing.assert_allclose(a, b, atol=0.02)
        assert a.dtype == before.dtype
    assert any(jnp.any(a != b) for a, b in zip(*map(jax.tree.leaves, (ours[1], rest)), strict=True))


@jax.jit
def looping(w, x):
    return jnp.sum(jax.nn.relu(lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, length=3)[0]))


def nothing(x, w):
    del w
    return x


def branch(w, x):
    return jnp.sum(lax.cond(True, jnp.matmul, nothing, x, w))


def plain(w, x):
    return jnp.sum(jax.nn.softmax(x @ w) ** 2)


# The gradient of an eager branch or loop compiles at every call in JAX itself, and with autocast.
@pytest.mark.parametrize(
    "step",
    [autocast(branch), jax.grad(autocast(plain)), jax.grad(autocast(looping)), autocast(jax.grad(looping))],
    ids=["branch", "gradient", "gradient of jit", "of a gradient"],
)
def test_eager_calls_compile_once(step):
    compiled, other = [], 2 * W
    step(W, X)
    with count_compilations(compiled):
        step(W, X)
        step(other, X)
    assert compiled == []


class count_compilations:
    """Collects the durations of compilations."""

    def __init__(self, into):
        self.into = into

    def __enter__(self):
        jax.monitoring.register_event_duration_secs_listener(self.listen)

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self.listen)

    def listen(self, event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            self.into.append(duration)


def test_the_count_of_compilations_counts():
    compiled = []
    with count_compilations(compiled):
        jax.jit(lambda x: jnp.cosh(x) * 1.2345)(X)
    assert compiled


@pytest.mark.slow
def test_what_is_remembered_of_a_program_goes_with_it():
    def once():
        jax.eval_shape(autocast(jax.jit(functools.partial(looping, W))), X)
        gc.collect()
        return len(_memo._memos)

    once()
    before = once()
    for _ in range(5):
        once()
    assert once() <= before
