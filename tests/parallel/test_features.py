"""What a training step has besides an optimizer, on several devices: the numbers of one device."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxopt_core as jo
from jaxopt_core.models import pure
from jaxopt_core.models.layers import BatchNorm1d, Dropout, Linear
from jaxopt_core.parallel import (
    assert_replicas_equal,
    count_collectives,
    data_parallel,
    data_parallel_pmap,
    data_parallel_shard_map,
    device_key,
    example_keys,
    fsdp,
    gather_params,
    shards,
    synchronized,
    total,
    zero1,
    zero2,
)
from jaxopt_core.training import init_state
from jaxopt_core.training import make_step as training_step
from tests.parallel.problems import assert_close, batches, bowl_loss, devices, make_step, run, start

WAYS = (data_parallel, data_parallel_shard_map, data_parallel_pmap)
# pmap is jit(shard_map) today, so most of it repeats what the second way shows.
BY_PMAP = pytest.param(data_parallel_pmap, marks=pytest.mark.slow)
ways = pytest.mark.parametrize("way", [*WAYS[:2], BY_PMAP], ids=lambda way: way.__name__)
explicit = pytest.mark.parametrize("way", [WAYS[1], BY_PMAP], ids=lambda way: way.__name__)


class Net(nnx.Module):
    def __init__(self, axis_name=None):
        rngs = nnx.Rngs(0)
        self.first = Linear(16, 8, rngs=rngs)
        self.norm = BatchNorm1d(8, axis_name=axis_name)
        self.last = Linear(8, 8, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.norm(self.first(x))))


def norm_loss(apply):
    def loss_fn(params, rest, batch, rng):
        del rng
        y, rest = apply(params, rest, batch["x"], train=True)
        return jnp.mean(jnp.square(y - batch["y"])), (rest, {})

    return loss_fn


def dropout_loss(params, rest, batch, rng):
    """Every row has a key of its own, so it drops the same elements wherever it is."""

    def row(x, key):
        keep = jax.random.bernoulli(key, 0.5, (8,))
        return jnp.where(keep, jnp.tanh(x @ params["kernel"]), 0.0)

    y = jax.vmap(row)(batch["x"], example_keys(rng, len(batch["x"])))
    return jnp.mean(jnp.square(y - batch["y"])), (rest, {"kept": jnp.mean(y != 0, dtype=jnp.float32)})


def kernel():
    return {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(16, 8)), jnp.float32)}


def on_one(loss_fn, tx, params, data, rest=None, **kind):
    return run(jax.jit(make_step(loss_fn, tx, **kind)), start(params, tx, rest), data)


@pytest.mark.parametrize(("way", "count"), list(zip(WAYS, (8, 2, 4), strict=True)))
def test_dropout_drops_the_same_elements(way, count):
    tx = synchronized(jo.adamw(1e-2))
    state, losses = on_one(dropout_loss, tx, kernel(), batches())
    step = way(make_step(dropout_loss, tx), devices(count))
    got, got_losses = run(step, start(kernel(), tx), batches())
    assert_close(got["params"], state["params"], 1e-6)
    np.testing.assert_allclose(got_losses, losses, rtol=1e-6)


@pytest.mark.parametrize("way", WAYS[:2], ids=lambda way: way.__name__)
def test_dropout_and_accumulation(way):
    tx = synchronized(jo.adamw(1e-2))
    whole, _ = on_one(dropout_loss, tx, kernel(), batches())
    step = way(make_step(dropout_loss, tx, micro_batches=4), devices(2))
    # Row i of a part is in micro-batch i % 4, and keeps its key.
    assert_close(run(step, start(kernel(), tx), batches())[0]["params"], whole["params"], 1e-6)


@explicit
def test_a_devices_own_key_differs(way):
    def step(state, batch):
        key = device_key(jax.random.key(0))
        return state, {"spread": (jax.random.uniform(key) - 0.5) ** 2 + 0 * jnp.mean(batch["x"])}

    _, metrics = way(step, devices(8), trains=False)({}, batches(1)[0])
    once = (jax.random.uniform(jax.random.key(0)) - 0.5) ** 2
    assert abs(float(metrics["spread"]) - float(once)) > 1e-3


def test_a_flax_dropout_under_jit_is_that_of_one_device():
    model = nnx.Sequential(Linear(16, 8, rngs=nnx.Rngs(0)), Dropout(0.5, rngs=nnx.Rngs(1)))
    apply, params, rest = pure(model)

    def loss_fn(params, rest, batch, rng):
        y, rest = apply(params, rest, batch["x"], train=True, rngs=rng)
        return jnp.mean(jnp.square(y - batch["y"])), (rest, {})

    tx = synchronized(jo.sgd(0.1))
    expected, _ = on_one(loss_fn, tx, params, batches(), rest)
    got, _ = run(data_parallel(make_step(loss_fn, tx), devices(8)), start(params, tx, rest), batches())
    assert_close(got["params"], expected["params"], 1e-6)


@ways
def test_synchronised_batch_norm(way):
    apply, params, rest = pure(Net())
    tx = synchronized(jo.sgd(0.1, momentum=0.9))
    expected, losses = on_one(norm_loss(apply), tx, params, batches(), rest)
    apply, _, _ = pure(Net(None if way is data_parallel else "data"))
    step = way(make_step(norm_loss(apply), tx), devices(4))
    got, got_losses = run(step, start(params, tx, rest), batches())
    assert_replicas_equal(got)
    assert_close((got["params"], got["rest"]), (expected["params"], expected["rest"]), 1e-6)
    np.testing.assert_allclose(got_losses, losses, rtol=1e-6)


def test_local_batch_norm_is_ddps():
    # By hand: the mean of the gradients of the parts, and the first part's running statistics.
    apply, params, rest = pure(Net())
    tx = synchronized(jo.sgd(0.1))
    loss_fn = norm_loss(apply)
    (batch,) = batches(1)
    step = data_parallel_shard_map(make_step(loss_fn, tx), devices(4))
    got, _ = step(start(params, tx, rest), batch)
    grads, rests = [], []
    grad_fn = jax.jit(jax.grad(loss_fn, has_aux=True))
    for i in range(4):
        part = {name: x[8 * i : 8 * i + 8] for name, x in batch.items()}
        grad, (after, _) = grad_fn(params, rest, part, None)
        grads.append(grad)
        rests.append(after)
    mean = jax.tree.map(lambda *g: sum(g[1:], start=g[0]) / len(g), *grads)
    expected = jax.tree.map(lambda p, g: p - np.float32(0.1) * g, params, mean)
    assert_replicas_equal(got)
    assert_close(got["params"], expected, 1e-6)
    assert_close(got["rest"], rests[0], 1e-6)
    assert not np.allclose(rests[0]["norm"]["mean"], rests[1]["norm"]["mean"])


def bowls():
    rng = np.random.default_rng(5)
    return {
        "a": {"kernel": jnp.asarray(rng.normal(size=(16, 8)), jnp.float32)},
        "b": {"kernel": jnp.asarray(rng.normal(size=(16, 8)), jnp.float32), "bias": jnp.ones(3)},
    }


def scaled_chain():
    # The bound is well below the norms, so a norm of one part only would show.
    links = jo.gradients.clip_grad_norm(0.05, axis_name=shards), jo.adamw(1e-2), jo.averaging.ema(0.5)
    scaled = jo.precision.with_loss_scale(
        optax.chain(*links), jo.precision.dynamic_loss_scale(), axis_name=shards
    )
    return synchronized(scaled)


@pytest.mark.parametrize(
    ("way", "strategy"),
    [(WAYS[0], zero1), (WAYS[1], None), (WAYS[1], zero1)],
    ids=["jit-zero1", "shard_map", "shard_map-zero1"],
)
def test_clipping_loss_scaling_and_ema(way, strategy):
    tx, data = scaled_chain(), batches()
    data[1]["x"][3, 0] = np.inf  # a row on the first device only: all must skip
    expected, _ = on_one(bowl_loss, tx, bowls(), data, scaled=True)
    step = way(make_step(bowl_loss, tx, scaled=True), devices(4), strategy and strategy())
    got, _ = run(step, start(bowls(), tx), data)
    assert_replicas_equal(got)
    inner = got["opt_state"].inner_state
    assert int(inner.skipped) == 1
    assert float(inner.loss_scale.scale) == 2.0**15
    assert float(jo.gradients.read_norm(inner.inner_state)) > 0.1
    assert_close(got["params"], expected["params"], 1e-6)
    assert_close(
        jo.averaging.averaged_params(inner), jo.averaging.averaged_params(expected["opt_state"]), 1e-6
    )


@pytest.mark.parametrize("strategy", [zero1, zero2, fsdp], ids=lambda s: s.__name__)
def test_accumulation_in_every_strategy(strategy):
    tx = synchronized(jo.adamw(1e-2))
    expected, losses = on_one(bowl_loss, tx, bowls(), batches())
    step = data_parallel_shard_map(make_step(bowl_loss, tx, micro_batches=2), devices(4, 2), strategy())
    got, got_losses = run(step, start(bowls(), tx), batches())
    assert_close(got["params"], expected["params"], 1e-6)
    np.testing.assert_allclose(got_losses, losses, rtol=1e-6)


@pytest.mark.parametrize("way", [pytest.param(WAYS[0], marks=pytest.mark.slow), WAYS[1]])
def test_fsdp_of_a_loss_that_gathers_itself(way):
    def loss_fn(params, rest, batch, rng):
        return bowl_loss(gather_params(params), rest, batch, rng)

    tx = synchronized(jo.adamw(1e-2))
    step_fn = training_step(loss_fn, tx)
    state = init_state(bowls(), {}, tx)
    expected, _ = jax.jit(step_fn)(state, batches(1)[0])
    got, _ = way(step_fn, devices(4, 2), fsdp())(state, batches(1)[0])
    assert got.params["a"]["kernel"].sharding.shard_shape((16, 8)) == (8, 8)
    assert_close(got, expected, 1e-6)


@pytest.mark.parametrize("way", [pytest.param(WAYS[0], marks=pytest.mark.slow), WAYS[1]])
def test_fsdp_that_gathers_one_layer_at_a_time(way):
    def loss_fn(params, rest, batch, rng):
        del rng
        x = batch["x"]
        for name, layer in params.items():

            @jax.checkpoint
            def apply(layer, x, name=name):
                return jnp.tanh(x @ gather_params(layer, prefix=name)["kernel"])

            x = apply(layer, x)
        return jnp.mean(jnp.square(x - batch["y"])), (rest, {})

    rng = np.random.default_rng(0)
    params = {
        f"layer{i}": {"kernel": jnp.asarray(rng.normal(size=shape), jnp.float32)}
        for i, shape in enumerate([(16, 16), (16, 8)])
    }
    tx = synchronized(jo.adamw(1e-2))
    step_fn = training_step(loss_fn, tx)
    state = init_state(params, {}, tx)
    expected, _ = jax.jit(step_fn)(state, batches(1)[0])
    step = way(step_fn, devices(4), fsdp())
    got, _ = step(state, batches(1)[0])
    assert_close(got, expected, 1e-6)
    if way is data_parallel_shard_map:
        # The last layer's gradient needs its input only; the first is gathered twice at most.
        counts = count_collectives(step.lower(state, batches(1)[0]).compile())
        assert counts["reduce-scatter"] == 2
        assert 2 <= counts["all-gather"] <= 4


def test_a_norm_of_one_part_is_refused():
    tx = synchronized(optax.chain(jo.gradients.clip_grad_norm(1.0), jo.adamw()))
    step = data_parallel_shard_map(make_step(bowl_loss, tx), devices(4), zero1())
    with pytest.raises(ValueError, match=r"axis_name=jaxopt_core\.parallel\.shards"):
        step(start(bowls(), tx), batches(1)[0])


@ways
def test_the_training_packages_step(way):
    def loss_fn(params, rest, batch, rng):
        return bowl_loss(params, rest, batch, rng)

    tx = synchronized(jo.adamw(1e-2))
    step_fn = training_step(loss_fn, tx)
    state = init_state(bowls(), {}, tx)
    expected, metrics = jax.jit(step_fn)(state, batches(1)[0])
    got, got_metrics = way(step_fn, devices(8))(state, batches(1)[0])
    assert_close(got, expected, 1e-6)
    np.testing.assert_allclose(float(got_metrics["loss"]), float(metrics["loss"]), rtol=1e-6)


@pytest.mark.usefixtures("x64")
@ways
def test_an_uneven_batch_is_padded_and_its_mean_is_right(way):
    tx = synchronized(jo.sgd(0.1))
    (batch,) = batches(1, rows=13, dtype=np.float64)
    params = jax.tree.map(lambda p: p.astype(jnp.float64), bowls())
    expected, losses = on_one(bowl_loss, tx, params, [batch])
    step = way(make_step(bowl_loss, tx), devices(8), pad="weight")
    got, got_losses = run(step, start(params, tx), [batch])
    assert_close(got["params"], expected["params"], 1e-12)
    np.testing.assert_allclose(got_losses, losses, rtol=1e-12)


@ways
def test_padding_that_the_loss_ignores_is_refused(way):
    def loss_fn(params, rest, batch, rng):
        return bowl_loss(params, rest, {"x": batch["x"], "y": batch["y"]}, rng)

    tx = synchronized(jo.sgd(0.1))
    step = way(make_step(loss_fn, tx), devices(8), pad="weight")
    with pytest.raises(ValueError, match=r"never reads batch\['weight'\]"):
        step(start(bowls(), tx), batches(1, rows=13)[0])


@ways
def test_an_uneven_batch_is_an_error(way):
    tx = synchronized(jo.sgd(0.1))
    with pytest.raises(ValueError, match="batch of 13 rows cannot be divided over 8 devices: drop 5 rows"):
        way(make_step(bowl_loss, tx), devices(8))(start(bowls(), tx), batches(1, rows=13)[0])


@explicit
def test_forgotten_synchronisation_is_an_error(way):
    tx = jo.sgd(0.1)
    with pytest.raises(ValueError, match="never averaged its gradients"):
        way(make_step(bowl_loss, tx), devices(2))(start(bowls(), tx), batches(1)[0])


@explicit
def test_accumulating_local_gradients_across_steps_is_refused(way):
    tx = jo.gradients.accumulate(synchronized(jo.sgd(0.1)), 2)
    with pytest.raises(ValueError, match="would add up gradients that differ between devices"):
        way(make_step(bowl_loss, tx), devices(2))(start(bowls(), tx), batches(1)[0])


@explicit
def test_accumulating_averaged_gradients_across_steps(way):
    tx = synchronized(jo.gradients.accumulate(jo.sgd(0.1), 2, reduction="mean"))
    expected, _ = on_one(bowl_loss, tx, bowls(), batches(2))
    got, _ = run(way(make_step(bowl_loss, tx), devices(2)), start(bowls(), tx), batches(2))
    assert_close(got["params"], expected["params"], 1e-6)


@explicit
def test_counts_are_added_and_not_averaged(way):
    def step(state, batch, wrapped=True):
        count = jnp.sum(batch["x"] > 0)
        return state, {"positive": total(count).astype(jnp.float32) if wrapped else count}

    (batch,) = batches(1)
    _, metrics = way(step, devices(4), trains=False)({}, batch)
    assert float(metrics["positive"]) == np.sum(batch["x"] > 0)
    with pytest.raises(TypeError, match=r"'positive' is int32.*total"):
        way(functools.partial(step, wrapped=False), devices(4), trains=False)({}, batch)


@pytest.mark.parametrize("way", [pytest.param(WAYS[0], marks=pytest.mark.slow), WAYS[1]])
def test_lbfgs(way):
    def loss_fn(params, batch):
        return jnp.mean(jnp.square(batch["x"] @ params["kernel"] - batch["y"]))

    tx = synchronized(jo.lbfgs(max_iter=3))

    def step(state, batch):
        value_and_grad = jax.value_and_grad(functools.partial(loss_fn, batch=batch))
        value, grads = value_and_grad(state["params"])
        updates, opt_state = tx.update(
            grads, state["opt_state"], state["params"], value=value, value_and_grad_fn=value_and_grad
        )
        params = jo.apply_updates(state["params"], updates)
        return {"params": params, "opt_state": opt_state}, {"loss": value}

    with jax.enable_x64(True):
        params = {"kernel": jnp.zeros((16, 8))}
        state, data = {"params": params, "opt_state": tx.init(params)}, batches(dtype=np.float64)
        expected, _ = run(jax.jit(step), state, data)
        got, _ = run(way(step, devices(4)), state, data)
        assert_close(got["params"], expected["params"], 1e-12)


@explicit
def test_schedules_see_the_loss_of_the_whole_batch(way):
    def update(grads, state, params=None, *, value):
        del params
        return grads, state + value

    follows = optax.GradientTransformationExtraArgs(lambda params: jnp.zeros([]), update)
    tx = synchronized(follows)
    step_fn = training_step(bowl_loss, tx)
    got, metrics = way(step_fn, devices(4))(init_state(bowls(), {}, tx), batches(1)[0])
    assert_replicas_equal(got)
    np.testing.assert_allclose(got.opt_state.inner_state, metrics["loss"], rtol=1e-6)


@pytest.mark.parametrize(
    ("way", "strategy"), [(WAYS[0], None), (WAYS[1], zero1)], ids=["jit", "shard_map-zero1"]
)
def test_sparse_gradients(way, strategy):
    tx = synchronized(jo.sparse_adam(0.1))

    def step(state, batch):
        ids, rows = batch["ids"], batch["rows"]
        grads = {"table": jo.sparse_rows(ids, rows / np.float32(len(ids)), 16)}
        updates, opt_state = tx.update(grads, state["opt_state"], state["params"])
        params = jo.apply_updates(state["params"], updates)
        return {"params": params, "opt_state": opt_state}, {"loss": jnp.mean(rows)}

    rng = np.random.default_rng(0)
    data = [{"ids": rng.integers(0, 16, 8), "rows": rng.normal(size=(8, 4)).astype("f")} for _ in range(3)]
    params = {"table": jnp.ones((16, 4))}
    state = {"params": params, "opt_state": tx.init(params)}
    expected, _ = run(jax.jit(step), state, data)
    got, _ = run(way(step, devices(4), strategy and strategy()), state, data)
    assert_replicas_equal(got)
    assert_close(got, expected, 1e-6)
