"""As close to float32 as PyTorch's autocast is."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from jaxopt_core.precision import autocast
from tests.precision.nets import NETS
from tests.precision.theirs import run_torch

# Two implementations round in different places, so their errors are two draws from one distribution: they
# have been within 1.1 of each other. 1.5 leaves room for another processor's order of summation.
FACTOR = 1.5


def distance(ours: dict[str, np.ndarray] | np.ndarray, exact: dict[str, np.ndarray] | np.ndarray) -> float:
    a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (ours, exact))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@functools.cache
def ours(name: str, dtype: str | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    net = NETS[name]
    function = net.ours if dtype is None else autocast(net.ours, dtype)
    step = jax.jit(jax.grad(lambda p: function(p, net.x, net.y)[::-1], has_aux=True))
    grads, out = step(net.params)
    assert {g.dtype for g in grads.values()} == {np.dtype(np.float32)}
    return np.asarray(out), jax.tree.map(np.asarray, grads)


@functools.cache
def theirs(name: str, autocast: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    net = NETS[name]
    return run_torch(name, net.params, net.x, net.y, autocast)


@pytest.mark.parametrize("name", NETS)
def test_the_networks_are_the_same(name):
    for mine, other in zip(ours(name, None), theirs(name, False), strict=True):
        assert distance(mine, other) < 1e-6


@pytest.mark.parametrize("name", NETS)
def test_error_is_that_of_torch_autocast(name):
    exact, low, reference = theirs(name, False), ours(name, "bfloat16"), theirs(name, True)
    for mine, other, true in zip(low, reference, exact, strict=True):
        assert 0 < distance(mine, true) < FACTOR * distance(other, true)


@pytest.mark.parametrize("name", NETS)
def test_every_gradient_is_near(name):
    # bfloat16 keeps 8 bits; the worst parameters (early, behind most roundings) were 4e-2 off.
    for key, exact in ours(name, None)[1].items():
        assert distance(ours(name, "bfloat16")[1][key], exact) < 8e-2, key


@pytest.mark.parametrize("name", ["mlp"])
def test_float16_is_closer(name):
    # Three more bits: eight times, or less where a ReLU's sign hangs on a rounding. The loss is a mean of
    # order one, so that no gradient underflows.
    bfloat16, float16 = (distance(ours(name, d)[1], ours(name, None)[1]) for d in ("bfloat16", "float16"))
    assert float16 < bfloat16 / 4
