"""The optimizers inside Optax's wrappers do what they do alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_core as jo
from jaxopt_core.leafwise import Leafwise
from tests.engine.cases import (
    NAMES,
    REPRESENTATIVE,
    assert_close,
    assert_equal,
    differ,
    gradients,
    make,
    parameters,
    run,
)

DENSE = [name for name in NAMES if name != "sparse_adam"]
SEVERAL = ["sgd", "adamw", "nadam", "adafactor", "muon"]
several = pytest.mark.parametrize("optimizer", SEVERAL)


@pytest.fixture
def optax_promotes():
    """MultiSteps and lookahead multiply floats by flags, which strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def follow(tx: Any, params: Any, grads: list[Any], **extra: Any) -> tuple[list[Any], Any]:
    """The parameters after each of the gradients, and the last state."""
    state, history = tx.init(params), []
    # Eagerly, wrappers with a lax.cond would compile at every step.
    update = tx.update if isinstance(tx, Leafwise) else jax.jit(tx.update)
    for grad in grads:
        updates, state = update(grad, state, params, **extra)
        params = optax.apply_updates(params, updates)
        history.append(params)
    return history, state


def some_gradients(optimizer: str, steps: int = 4) -> list[Any]:
    return [gradients(optimizer, t) for t in range(steps)]


@pytest.mark.parametrize("optimizer", REPRESENTATIVE)
def test_is_an_optax_transformation(optimizer):
    tx = make(optimizer)
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    assert isinstance(tx, optax.GradientTransformation)
    init, update = tx
    assert (init, update) == (tx.init, tx.update)


@pytest.mark.parametrize("optimizer", DENSE)
def test_apply_updates_of_optax_is_the_step(optimizer):
    params, tx = parameters(optimizer), make(optimizer)
    updates, _ = tx.update(gradients(optimizer, 0), tx.init(params), params)
    assert_equal(optax.apply_updates(params, updates), jo.apply_updates(params, updates))


@several
def test_chain_with_clipping(optimizer):
    grads = some_gradients(optimizer)
    tx = optax.chain(optax.clip_by_global_norm(0.5), make(optimizer))
    history, _ = follow(tx, parameters(optimizer), grads)
    norms = [np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(grad))) for grad in grads]
    clipped = [
        jax.tree.map(lambda g: jnp.asarray(g * np.float32(0.5 / norm)), grad)  # noqa: B023
        for grad, norm in zip(grads, norms, strict=True)
    ]
    assert min(norms) > 0.5
    expected, _ = follow(make(optimizer), parameters(optimizer), clipped)
    # Muon rounds the gradient to bfloat16: a bit of difference before it is one of 2**-8 after.
    assert_close(history, expected, atol=5e-3 if optimizer == "muon" else 1e-5)


@several
def test_chain_scales_the_update(optimizer):
    tx = optax.chain(make(optimizer), optax.scale(0.5))
    params, grads = parameters(optimizer), gradients(optimizer, 0)
    halved, _ = tx.update(grads, tx.init(params), params)
    whole, _ = make(optimizer).update(grads, make(optimizer).init(params), params)
    assert_equal(halved, jax.tree.map(lambda u: 0.5 * u, whole))


def test_chain_passes_extra_arguments_on():
    class Halved:
        """A stateful schedule: half the metric of the update before."""

        def init(self) -> Any:
            return jnp.float32(1)

        def update(self, state: Any, *, value: Any, **extra: Any) -> Any:
            del state, extra
            return value / 2

        def __call__(self, state: Any, **extra: Any) -> Any:
            del extra
            return state

    params = {"w": jnp.zeros(2)}
    tx = optax.chain(optax.clip_by_global_norm(1e6), jo.sgd(lr=Halved()))
    history, _ = follow(tx, params, [{"w": jnp.ones(2)}] * 2, value=jnp.float32(0.5), unknown=None)
    assert [p["w"].tolist() for p in history] == [[-1.0, -1.0], [-1.25, -1.25]]


@several
def test_masked(optimizer):
    params, grads = parameters(optimizer), some_gradients(optimizer)
    mask = jax.tree_util.tree_map_with_path(lambda path, _: "kernel" in jax.tree_util.keystr(path), params)
    history, state = follow(optax.masked(make(optimizer), mask), params, grads)
    alone = make(optimizer)
    expected, _ = follow(alone, params["layer"]["kernel"], [g["layer"]["kernel"] for g in grads])
    assert_close([p["layer"]["kernel"] for p in history], expected)
    # What is masked out passes as it came.
    untouched = sum((g["layer"]["bias"] for g in grads), start=params["layer"]["bias"])
    assert_close(history[-1]["layer"]["bias"], untouched)
    for slot in state.inner_state.slots.values():
        assert isinstance(slot["layer"]["bias"], optax.MaskedNode)


def test_partition_of_muon_and_adamw():
    rng = np.random.default_rng(0)
    params = {
        "dense": {"kernel": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), "bias": jnp.ones(3)},
        "scale": jnp.ones(()),
    }
    grads = [
        jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params) for _ in range(4)
    ]
    labels = jax.tree.map(lambda p: "matrix" if p.ndim == 2 else "rest", params)
    both = {"matrix": jo.muon(lr=0.125, axes=(1, 0)), "rest": jo.adamw(lr=0.5)}
    history, state = follow(optax.partition(both, labels), params, grads)

    matrices, _ = follow(both["matrix"], params["dense"]["kernel"], [g["dense"]["kernel"] for g in grads])
    rest, _ = follow(
        both["rest"],
        {"bias": params["dense"]["bias"], "scale": params["scale"]},
        [{"bias": g["dense"]["bias"], "scale": g["scale"]} for g in grads],
    )
    assert_close([p["dense"]["kernel"] for p in history], matrices)
    assert_close([{"bias": p["dense"]["bias"], "scale": p["scale"]} for p in history], rest)
    assert set(jo.read_hyperparams(state)["lr"]) == {
        "inner_states/matrix/inner_state",
        "inner_states/rest/inner_state",
    }


@several
def test_multi_steps_averages(optimizer, optax_promotes):
    del optax_promotes
    params, grads = parameters(optimizer), some_gradients(optimizer, 6)
    history, state = follow(optax.MultiSteps(make(optimizer), 2), params, grads)
    means = [jax.tree.map(lambda a, b: a + (b - a) / 2, *grads[i : i + 2]) for i in range(0, 6, 2)]
    expected, alone = follow(make(optimizer), params, means)
    assert_close(history[1::2], expected)
    assert_equal(history[0], params)
    assert_equal(history[2], history[1])
    assert int(state.inner_opt_state.count) == 3
    assert_close(state.inner_opt_state, alone)


def test_multi_steps_in_half_precision(optax_promotes):
    del optax_promotes
    params = parameters("adamw", jnp.bfloat16)
    grads = [gradients("adamw", t, jnp.bfloat16) for t in range(2)]
    history, _ = follow(optax.MultiSteps(make("adamw"), 2), params, grads)
    assert {p.dtype for p in jax.tree.leaves(history)} == {jnp.bfloat16.dtype}
    assert differ(history[1], params)


@several
def test_apply_if_finite(optimizer):
    params, (first, second) = parameters(optimizer), some_gradients(optimizer, 2)
    broken = {"layer": first["layer"] | {"bias": jnp.full_like(first["layer"]["bias"], jnp.nan)}}
    tx = optax.apply_if_finite(make(optimizer), 5)
    history, state = follow(tx, params, [first, broken, second])
    expected, alone = follow(make(optimizer), params, [first, second])
    assert_equal(history[1], history[0])
    assert_close(history[2], expected[1])
    assert_close(state.inner_state, alone)
    assert int(state.inner_state.count) == 2


@several
def test_lookahead(optimizer, optax_promotes):
    del optax_promotes
    start, grads = parameters(optimizer), some_gradients(optimizer, 4)
    tx = optax.lookahead(make(optimizer), sync_period=2, slow_step_size=0.5)
    history, _ = follow(tx, optax.LookaheadParams.init_synced(start), grads)

    fast = slow = start
    alone, state = make(optimizer), make(optimizer).init(start)
    for t, grad in enumerate(grads):
        updates, state = alone.update(grad, state, fast)
        fast = jo.apply_updates(fast, updates)
        if t % 2:
            fast = slow = jax.tree.map(lambda s, f: s + 0.5 * (f - s), slow, fast)
        assert_close(history[t].fast, fast)
        assert_close(history[t].slow, slow)


@several
def test_conditionally_mask_and_skip(optimizer):
    # Another wrapper that selects between two states leaf by leaf.
    tx = optax.conditionally_mask(make(optimizer), lambda step: step % 2 == 0)
    params, grads = parameters(optimizer), some_gradients(optimizer)
    history, _ = follow(tx, params, grads)
    expected, _ = follow(make(optimizer), params, grads[::2])
    assert_close(history[::2], expected)
    assert_equal(history[1], history[0])


def test_sparse_update_in_a_chain():
    tx = optax.chain(optax.identity(), make("sparse_adam"))
    result = run(tx, "sparse_adam")
    assert_equal(result.params, run(make("sparse_adam"), "sparse_adam").params)


def test_sparse_and_dense_in_a_partition():
    params = {"table": jnp.ones((4, 2)), "kernel": jnp.ones((2, 2))}
    grads = {"table": jo.sparse_rows(jnp.asarray([1]), jnp.ones((1, 2)), 4), "kernel": jnp.ones((2, 2))}
    tx = optax.partition(
        {"sparse": make("sparse_adam"), "dense": make("adam")}, {"table": "sparse", "kernel": "dense"}
    )
    updates, _ = tx.update(grads, tx.init(params), params)
    after = jo.apply_updates(params, updates)
    assert differ(after["table"][1], params["table"][1])
    assert_equal(after["table"][0], params["table"][0])
    assert differ(after["kernel"], params["kernel"])
