"""Penalties equal those of a PyTorch loss; the noise has the law that it says."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxopt_core as jo
from jaxopt_core import gradients
from tests.gradients import theirs
from tests.gradients.test_accumulate import assert_equal
from tests.gradients.test_clip import as_jax, tree


def follow(tx, params, grads):
    params = as_jax(params)
    state, update, history = tx.init(params), jax.jit(tx.update), []
    for grad in grads:
        updates, state = update(as_jax(grad), state, params)
        params = jo.apply_updates(params, updates)
        history.append(params)
    return history


@pytest.mark.usefixtures("x64")
def test_l1_as_a_term_of_the_loss():
    params, grads = tree(99), [tree(t) for t in range(100)]
    params["z"] = params["bias"] + 1j * params["bias"][::-1]
    for t, grad in enumerate(grads):
        grad["z"] = grad["bias"] * (1 + 0.5j * t)
    expected = theirs.train(params, grads, "Adam", l1=0.3)
    # JAX's gradients are the conjugates of PyTorch's.
    conjugated = [grad | {"z": grad["z"].conj()} for grad in grads]
    history = follow(optax.chain(gradients.l1_regularization(0.3), jo.adam()), params, conjugated)
    assert_equal(history, expected, 1e-10)


@pytest.mark.usefixtures("x64")
def test_l2_is_pytorchs_weight_decay():
    params, grads = tree(99), [tree(t) for t in range(100)]
    expected = theirs.train(params, grads, "Adam", weight_decay=0.3)
    assert_equal(follow(optax.chain(gradients.l2_regularization(0.3), jo.adam()), params, grads), expected)


@pytest.mark.parametrize("penalty", [gradients.l1_regularization, gradients.l2_regularization])
def test_paths_and_missing_gradients(penalty):
    tx = penalty(jo.by_path({"bias": 0.0}, default=0.5))
    params = {"bias": jnp.ones(1), "kernel": jnp.ones(1), "frozen": jnp.ones(1)}
    grads = {"bias": jnp.zeros(1), "kernel": jnp.zeros(1), "frozen": None}
    got, _ = tx.update(grads, tx.init(params), params)
    assert (float(got["bias"][0]), float(got["kernel"][0]), got["frozen"]) == (0.0, 0.5, None)
    with pytest.raises(ValueError, match="matches no parameter"):
        penalty(jo.by_path({"typo": 0.0}, default=0.5)).init(params)


def test_strength_can_be_set():
    tx = optax.chain(gradients.l2_regularization(jnp.asarray(0.5)), jo.sgd(lr=1.0))
    params = jnp.ones(1)
    state = jo.set_hyperparams(tx.init(params), l2=0.25)
    assert tx.update(jnp.zeros(1), state, params)[0].tolist() == [-0.25]


def test_noise_has_its_law_and_repeats():
    tx = gradients.gradient_noise(0.5, key=3)
    zeros = {"a": jnp.zeros(20_000), "b": jnp.zeros(20_000), "z": jnp.zeros(20_000, jnp.complex64)}
    state = tx.init(zeros)
    first, state = tx.update(zeros, state)
    second, _ = tx.update(zeros, state)
    for real in (first["a"], second["b"], first["z"].real, first["z"].imag):
        # five standard errors of mean and standard deviation
        assert abs(float(real.mean())) < 5 * 0.5 / 20_000**0.5
        assert abs(float(real.std()) - 0.5) < 5 * 0.5 / 40_000**0.5
    for one, other in [("a", "b"), ("a", "a")]:
        correlation = np.corrcoef(first[one], second[other] if one == other else first[other])[0, 1]
        assert abs(correlation) < 5 / 20_000**0.5
    np.testing.assert_array_equal(tx.update(zeros, tx.init(zeros))[0]["a"], first["a"])


def test_noise_can_spare_parameters_and_anneal():
    tx = gradients.gradient_noise(
        jo.by_path({"a": 0.0}, default=lambda t: 1.0 / (1.0 + t.astype(jnp.float32))), key=jax.random.key(0)
    )
    zeros = {"a": jnp.zeros(5000), "b": jnp.zeros(5000)}
    _, state = tx.update(zeros, tx.init(zeros))
    second, _ = tx.update(zeros, state)
    assert not np.any(second["a"])
    assert abs(float(second["b"].std()) - 0.5) < 0.03


def test_noise_differs_between_shards():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    tx = gradients.gradient_noise(1.0, key=0, axis_name=jo.by_path({"rows": "data"}, default=None))
    zeros = {"rows": jnp.zeros(16), "whole": jnp.zeros(2)}
    specs = {"rows": P("data"), "whole": P()}
    run = jax.shard_map(
        lambda g: tx.update(g, tx.init(g))[0], mesh=mesh, in_specs=(specs,), out_specs=specs, check_vma=False
    )
    assert len(set(np.asarray(jax.jit(run)(zeros)["rows"]).tolist())) == 16


def test_wrong_arguments():
    with pytest.raises(ValueError, match="Invalid l1 strength: -1"):
        gradients.l1_regularization(-1.0)
    with pytest.raises(ValueError, match="Invalid std value: -1"):
        gradients.gradient_noise(-1.0, key=0)
    rows = {"table": jo.sparse_rows(jnp.asarray([1]), jnp.ones((1, 1)), 3)}
    params = {"table": jnp.ones((3, 1))}
    tx = gradients.l2_regularization(0.5)
    with pytest.raises(TypeError, match="'table' is sparse"):
        tx.update(rows, tx.init(params), params)
