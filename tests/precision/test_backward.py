"""The backward pass: low products, float32 sums, half of the memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jaxopt_core.precision import autocast
from tests.precision.nets import NETS, gelu_tower
from tests.precision.programs import products

LOW = {"bfloat16": "bf16", "float16": "f16"}


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("name", NETS)
def test_products_are_low_in_hlo_forwards_and_backwards(name, dtype):
    net = NETS[name]
    found = products(jax.grad(lambda p: autocast(net.ours, dtype)(p, net.x, net.y)[1]), net.params)
    # Backwards there are two for each, but none for the input of the first, which is no parameter.
    assert len(found) >= 3 * net.products - 1
    for types in found:
        assert f"x{LOW[dtype]}>" in types
        assert "xf32>" not in types


@pytest.mark.parametrize("name", NETS)
def test_no_sum_is_low(name):
    net = NETS[name]
    with jax.allow_f16_reductions(False):  # lowering a sum in 16 bits raises
        jax.jit(jax.grad(lambda p: autocast(net.ours)(p, net.x, net.y)[1])).lower(net.params)


def saved_bytes(fn, params, x):
    """What is kept of the activations for the backward pass; they have the leading dimension of ``x``."""
    backward = jax.eval_shape(lambda params, x: jax.vjp(fn, params, x)[1], params, x)
    saved = [leaf for leaf in jax.tree.leaves(backward) if leaf.shape[:1] == x.shape[:1]]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in saved)


def test_residuals_of_layers_halve():
    keys = jax.random.split(jax.random.key(0), 12)
    params = [(jax.random.normal(key, (32, 32)) / 32**0.5, jnp.zeros(32)) for key in keys]
    x = jnp.ones((256, 32))
    exact, ours = saved_bytes(gelu_tower, params, x), saved_bytes(autocast(gelu_tower), params, x)
    # The loss at the end is float32: the thirteenth part.
    assert 0.45 < ours / exact < 0.55


def test_residuals_of_a_transformer_layer():
    # Half, but for the norms and the stream between the layers, which are float32 in PyTorch as well.
    net = NETS["transformer"]
    both = net.ours, autocast(net.ours)
    exact, ours = (saved_bytes(lambda p, x, f=f: f(p, x, net.y)[1], net.params, net.x) for f in both)
    assert ours / exact < 0.75


@pytest.mark.parametrize("dtype", LOW)
def test_gradients_have_the_parameters_types(dtype):
    params = {"w": jnp.ones((4, 4)), "b": jnp.ones(4), "s": jnp.ones(()), "low": jnp.ones(4, jnp.bfloat16)}

    def loss(p):
        y = jnp.ones((3, 4)) @ p["w"] + p["b"][None]
        return jnp.sum(y * p["s"]) + jnp.sum(p["low"].astype(jnp.float32))

    grads = jax.grad(autocast(loss, dtype))(params)
    assert jax.tree.map(lambda g: g.dtype, grads) == jax.tree.map(lambda p: p.dtype, params)
