"""Who holds what: meshes, rules, bytes per device measured and predicted, and padding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

import jaxopt_core as jo
from jaxopt_core.parallel import (
    assert_replicas_equal,
    bytes_per_device,
    data_parallel,
    data_parallel_pmap,
    data_parallel_shard_map,
    describe_sharding,
    estimate_memory,
    fsdp,
    mesh,
    pad_batch,
    place,
    replicate,
    shard,
    state_shardings,
    synchronized,
    zero1,
    zero2,
)
from jaxopt_core.training import init_state
from tests.engine.cases import make
from tests.parallel.problems import batches, bowl_loss, devices, make_step, start

KERNEL, BIAS = 4 * 16 * 8, 4 * 3


def params():
    return {"a": {"kernel": jnp.ones((16, 8)), "bias": jnp.ones(3)}}


def test_axes_and_their_types():
    eight = mesh(fsdp=2)
    assert dict(eight.shape) == {"data": 4, "fsdp": 2}
    assert eight.axis_types == (AxisType.Auto,) * 2
    assert dict(mesh(data=2, model=2, devices=jax.devices()[:4]).shape) == {"data": 2, "fsdp": 1, "model": 2}
    assert mesh(axis_type=AxisType.Explicit).axis_types == (AxisType.Explicit,) * 2


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 3}, r"8 devices cannot be arranged as data=3, fsdp=1, which takes 3"),
        ({"fsdp": 3}, r"8 devices cannot be arranged as data=-1, fsdp=3: 8 is not divisible by 3"),
        ({"fsdp": -1}, r"Only one axis can take the remaining devices; got data=-1, fsdp=-1"),
        ({"data": 0}, r"The size of axis 'data' must be at least 1, or -1"),
    ],
)
def test_a_mesh_that_does_not_fit(sizes, message):
    with pytest.raises(ValueError, match=message):
        mesh(**sizes)


@pytest.mark.parametrize(
    ("rule", "shape", "spec"),
    [
        (shard("data"), (16, 8), P("data")),
        (shard("data"), (6, 8), P(None, "data")),
        (shard("data"), (8, 16), P(None, "data")),
        (shard("data"), (3,), P()),
        (shard("data"), (), P()),
        (shard(), (3, 16), P(None, ("data", "fsdp"))),
        (shard("data", min_size=200), (16, 8), P()),
    ],
)
def test_the_longest_dimension_that_divides(rule, shape, spec):
    assert rule("w", shape, AbstractMesh((4, 2), ("data", "fsdp"))) == spec


def test_rules_compose_by_path():
    chosen = zero1(jo.by_path({"embed": P(), "head": P(None, "data")}, default=shard("data")))
    tree = {name: jnp.ones((8, 8)) for name in ("embed", "head", "other")}
    where = state_shardings(start(tree, jo.adamw()), devices(4), chosen)
    specs = {name: s.spec for name, s in where["opt_state"].slots["exp_avg"].items()}
    assert specs == {"embed": P(None, None), "head": P(None, "data"), "other": P("data", None)}


def test_no_rule_and_no_params_are_errors():
    with pytest.raises(TypeError, match="A rule is a PartitionSpec"):
        state_shardings(start(params(), jo.adamw()), devices(2), zero1("data"))
    with pytest.raises(TypeError, match="must have 'params' and 'opt_state'"):
        state_shardings((params(), ()), devices(2), zero1())
    with pytest.raises(ValueError, match="has no axis 'model'"):
        state_shardings(start(params(), jo.adamw()), devices(2), zero1(shard("model")))


# Bytes of AdamW's parameters and slots on each of 4 devices: 1/4 of what divides, and the remainder.
HELD = {
    "replicate": (replicate(), KERNEL + BIAS, 2 * (KERNEL + BIAS)),
    "zero1": (zero1(), KERNEL + BIAS, 2 * (KERNEL // 4 + BIAS)),
    "zero2": (zero2(), KERNEL + BIAS, 2 * (KERNEL // 4 + BIAS)),
    "fsdp": (fsdp(), KERNEL // 4 + BIAS, 2 * (KERNEL // 4 + BIAS)),
}


@pytest.mark.parametrize("way", [data_parallel, data_parallel_shard_map], ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", HELD)
def test_bytes_per_device_after_a_step(name, way):
    strategy, of_params, of_slots = HELD[name]
    tx = synchronized(jo.adamw())
    state, _ = way(make_step(bowl_loss, tx), devices(4), strategy)(start(params(), tx), batches(1)[0])
    assert set(bytes_per_device(state["params"]).values()) == {of_params}
    slots = state["opt_state"].inner_state.slots
    assert set(bytes_per_device(slots).values()) == {of_slots}
    assert len(bytes_per_device(slots)) == 4


@pytest.mark.parametrize("optimizer", ["sgd", "nadam", "asgd", "adafactor", "muon", "rprop"])
@pytest.mark.parametrize("strategy", [replicate, zero1, zero2, fsdp], ids=lambda s: s.__name__)
def test_the_prediction_is_what_is_held(optimizer, strategy):
    tx, four = make(optimizer), devices(2, fsdp=2)
    tree = {"kernel": jnp.ones((16, 8))} | ({} if optimizer == "muon" else {"bias": jnp.ones(3)})
    state = {"params": tree, "opt_state": tx.init(tree)}
    placed = place(state, state_shardings(state, four, strategy()))
    estimate = estimate_memory(tree, tx, four, strategy())
    assert set(bytes_per_device(placed["params"]).values()) == {estimate.params}
    assert set(bytes_per_device(placed["opt_state"]).values()) == {estimate.opt_state}
    assert estimate.kept == estimate.params + estimate.opt_state
    assert estimate.size == sum(x.size for x in tree.values())


def gpt2(layers, width, vocabulary=50257, positions=1024):
    """The shapes of a GPT-2, in Flax's layout, layers stacked."""

    def f(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    block = {
        "attn": {"qkv": f(layers, width, 3 * width), "qkv_bias": f(layers, 3 * width)},
        "proj": {"kernel": f(layers, width, width), "bias": f(layers, width)},
        "up": {"kernel": f(layers, width, 4 * width), "bias": f(layers, 4 * width)},
        "down": {"kernel": f(layers, 4 * width, width), "bias": f(layers, width)},
        "norms": f(layers, 4, width),
    }
    return {
        "wte": f(vocabulary, width), "wpe": f(positions, width), "h": block, "ln_f": f(2, width),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("layers", "width", "billions"),
    [(12, 768, 0.124), (24, 1024, 0.355), (36, 1280, 0.774), (48, 1600, 1.558), (80, 8448, 69.0)],
)
def test_from_gpt2_to_70_billion(layers, width, billions):
    shapes = gpt2(layers, width)
    whole = estimate_memory(shapes, jo.adamw(), {"data": 64})
    assert whole.size == pytest.approx(billions * 1e9, rel=0.02)
    assert whole.total == pytest.approx(16 * whole.size, rel=1e-6)  # the count and the rate are left
    split = estimate_memory(lambda: shapes, jo.adamw(), {"data": 1, "fsdp": 64}, fsdp())
    assert split.kept == pytest.approx(12 * whole.size / 64, rel=0.01)
    assert split.gathered == pytest.approx(4 * whole.size, rel=0.01)
    assert "64 devices" in str(split)


def test_the_table_of_who_holds_what():
    tx = jo.adamw()
    step = data_parallel(make_step(bowl_loss, tx), devices(4), zero1())
    state = step.place(start(params(), tx))
    lines = describe_sharding(state["opt_state"]).splitlines()
    assert lines[0].split()[:4] == ["array", "shape", "dtype", "devices"]
    (line,) = [line for line in lines if line.startswith("slots/exp_avg/a/kernel")]
    assert line.split()[1:] == ["(16,", "8)", "float32", "4", "'data',", "-", "128", "B"]
    assert "whole" in next(line for line in lines if "exp_avg/a/bias" in line)
    total = next(iter(bytes_per_device(state["opt_state"]).values()))
    assert lines[-1].split() == ["total", str(total), "B"]


def test_replicas_that_differ_are_found():
    four = devices(4)
    equal = jax.device_put(jnp.ones(4), jax.sharding.NamedSharding(four, P()))
    assert_replicas_equal({"w": equal, "rng": jax.device_put(jax.random.key(0), equal.sharding)})
    values = [
        jax.device_put(np.full(4, float(i == 2), np.float32), d) for i, d in enumerate(four.devices.flat)
    ]
    odd = jax.make_array_from_single_device_arrays((4,), equal.sharding, values)
    with pytest.raises(AssertionError, match="'w' differs between"):
        assert_replicas_equal({"w": odd})


def test_a_state_like_the_training_packages_is_divided():
    tx = jo.adamw()
    where = state_shardings(init_state(params(), {}, tx), devices(4), zero1())
    assert where.opt_state.slots["exp_avg"]["a"]["kernel"].spec == P("data", None)
    assert where.params["a"]["kernel"].spec == where.step.spec == P()


def test_a_parameter_without_gradient_stays():
    tx = synchronized(jo.adamw(0.1))

    def step(state, batch):
        grads = {"kernel": jnp.ones((16, 8)) * jnp.mean(batch["x"]), "bias": None}
        updates, opt_state = tx.update(grads, state["opt_state"], state["params"])
        return {"params": jo.apply_updates(state["params"], updates), "opt_state": opt_state}, {}

    own = params()["a"]
    opt_state = tx.init(own)
    opt_state = opt_state._replace(inner_state=jo.leafwise.count_per_parameter(opt_state.inner_state, own))
    state = {"params": own, "opt_state": opt_state}
    for strategy in (replicate(), zero1(), fsdp()):
        got, _ = data_parallel_shard_map(step, devices(4), strategy)(state, batches(1)[0])
        np.testing.assert_array_equal(got["params"]["bias"], own["bias"])
        assert np.all(np.asarray(got["params"]["kernel"]) != 1)


def test_pmap_has_one_axis():
    with pytest.raises(ValueError, match="all devices along 'data'"):
        data_parallel_pmap(lambda state, batch: (state, {}), mesh(fsdp=2))


def test_a_jitted_step_is_traced_for_its_devices():
    tx = synchronized(jo.adamw(1e-2))
    step_fn = jax.jit(make_step(bowl_loss, tx))
    state, (batch,) = start(params(), tx), batches(1)
    expected, _ = step_fn(state, batch)  # traced on one device first
    got, _ = data_parallel_shard_map(step_fn, devices(4), fsdp())(state, batch)
    assert got["params"]["a"]["kernel"].sharding.spec == P("data")
    np.testing.assert_allclose(got["params"]["a"]["kernel"], expected["params"]["a"]["kernel"], rtol=1e-6)


def test_a_donated_state_is_gone_and_a_kept_one_is_not():
    tx = synchronized(jo.adamw())
    for donate in (True, False):
        step = data_parallel(make_step(bowl_loss, tx), devices(2), donate=donate)
        state = step.place(start(params(), tx))
        step(state, batches(1)[0])
        assert state["params"]["a"]["kernel"].is_deleted() == donate


@pytest.mark.parametrize("count", [1, 3, 4, 5, 13])
def test_weights_of_padded_rows(count):
    x = np.arange(1.0, count + 1, dtype=np.float32)
    padded = pad_batch({"x": x, "scalar": 3}, 4)
    assert len(padded["x"]) % 4 == 0
    assert padded["scalar"] == 3
    assert np.mean(padded["x"] * padded["weight"]) == pytest.approx(np.mean(x), rel=1e-6)
    fixed = pad_batch({"x": jnp.asarray(x)}, 4, rows=16, name="w")
    assert fixed["x"].shape == fixed["w"].shape == (16,)
    assert np.mean(fixed["x"] * fixed["w"]) == pytest.approx(np.mean(x), rel=1e-6)


@pytest.mark.parametrize(
    ("batch", "kind", "message"),
    [
        ({"x": np.ones(3), "weight": np.ones(3)}, ValueError, "has an entry 'weight' already"),
        ({"x": np.ones(0)}, ValueError, "without rows"),
        ({"x": np.ones(3), "y": np.ones(2)}, ValueError, "'x' has 3, 'y' has 2"),
        ((np.ones(3),), TypeError, "a dict of arrays; got tuple"),
    ],
)
def test_what_cannot_be_padded(batch, kind, message):
    with pytest.raises(kind, match=message):
        pad_batch(batch, 4)
