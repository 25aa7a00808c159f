"""What travels between devices: counted in the compiled programs, with its bytes; and compressed."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_core as jo
from jaxopt_core.parallel import (
    PerDevice,
    assert_replicas_equal,
    bf16_compress,
    collectives,
    count_collectives,
    data_parallel,
    data_parallel_pmap,
    data_parallel_shard_map,
    fp16_compress,
    fsdp,
    powersgd,
    synchronized,
    traffic,
    zero1,
    zero2,
)
from tests.parallel.problems import assert_close, batches, devices, make_step, run, start

SIZE = 4 * (16 * 32 + 32 * 8 + 6)  # bytes of the parameters


def params():
    rng = np.random.default_rng(0)
    shapes = {"in": (16, 32), "out": (32, 8), "odd": (6,)}
    return {name: jnp.asarray(rng.normal(size=shape) / 4, jnp.float32) for name, shape in shapes.items()}


def loss_fn(p, rest, batch, rng):
    del rng
    y = jnp.tanh(batch["x"] @ p["in"]) @ p["out"]
    y = y.at[:, :6].add(p["odd"][None])
    return jnp.mean(jnp.square(y - batch["y"])), (rest, {})


def compiled(way, strategy=None, micro_batches=1, hook=None, count=4):
    tx = synchronized(jo.adamw(1e-2), hook=hook)
    step = way(make_step(loss_fn, tx, micro_batches), devices(count), *([strategy] if strategy else []))
    return step.lower(start(params(), tx), batches(1)[0]).compile()


def reduced(program, op="all-reduce"):
    """Bytes under an operation, with those of the loss."""
    return sum(each.times * each.bytes for each in collectives(program) if each.op == op)


@pytest.mark.parametrize("way", [data_parallel, data_parallel_shard_map, data_parallel_pmap])
def test_replicated_parameters_cost_one_all_reduce(way):
    program = compiled(way)
    assert count_collectives(program) == {"all-reduce": 1}
    assert reduced(program) == SIZE + 4
    assert traffic(collectives(program)) == (SIZE + 4) * 2 * 3 / 4


def test_one_all_reduce_for_four_micro_batches():
    assert count_collectives(compiled(data_parallel_shard_map, micro_batches=4)) == {"all-reduce": 1}
    # In the global view the compiler reduces in every micro-batch: the counter sees into the loop.
    program = compiled(data_parallel, micro_batches=4)
    assert reduced(program) >= 4 * SIZE
    # And it gathers no batch: every device works on its own rows.
    assert set(count_collectives(program)) == {"all-reduce"}


def test_zero_scatters_gradients_and_gathers_updates():
    for strategy in (zero1(), zero2()):
        program = compiled(data_parallel_shard_map, strategy)
        assert count_collectives(program) == {"all-reduce": 1, "reduce-scatter": 2, "all-gather": 2}
        assert reduced(program) == 4 * 6 + 4  # the remainder and the loss
        assert reduced(program, "reduce-scatter") == reduced(program, "all-gather") == SIZE - 4 * 6


def test_zero2_scatters_in_every_micro_batch_and_zero1_once():
    one, two = (compiled(data_parallel_shard_map, s, micro_batches=4) for s in (zero1(), zero2()))
    assert count_collectives(one)["reduce-scatter"] == 2
    assert count_collectives(two)["reduce-scatter"] == 8


def test_fsdp_gathers_parameters_and_no_activations():
    program = compiled(data_parallel_shard_map, fsdp())
    assert count_collectives(program) == {"all-reduce": 1, "reduce-scatter": 2, "all-gather": 2}
    assert reduced(program, "all-gather") == SIZE - 4 * 6
    # In the global view the compiler must not gather activations either: only parameters.
    shapes = {each.bytes for each in collectives(compiled(data_parallel, fsdp())) if each.op == "all-gather"}
    assert shapes <= {4 * 16 * 32, 4 * 32 * 8}


def test_half_precision_travels_as_such():
    program = compiled(data_parallel_shard_map, hook=fp16_compress())
    assert [each.bytes for each in collectives(program) if each.dtype == "f16"] == [SIZE // 2]
    assert reduced(program) == SIZE // 2 + 4
    # XLA on CPU promotes bfloat16 sums to float32, so there is no more to see here than the numbers.
    assert reduced(compiled(data_parallel_shard_map, hook=bf16_compress())) <= SIZE + 4


def test_powersgd_sends_factors():
    both = collectives(compiled(data_parallel_shard_map, hook=powersgd(devices(4), rank=2, start_step=1)))
    full, factors = 4 * (16 * 32 + 32 * 8), 4 * 2 * (16 + 32 + 32 + 8)
    sizes = [each.bytes for each in both if each.bytes not in (4, 28, 24)]
    assert sum(sizes) == full + factors, both  # either branch of the start


@pytest.mark.parametrize(("hook", "tolerance"), [(fp16_compress, 2e-3), (bf16_compress, 2e-2)])
def test_compressed_gradients_train_alike(hook, tolerance):
    expected, _ = train(None)
    got, _ = train(hook())
    assert_close(got["params"], expected["params"], tolerance)
    assert np.any(got["params"]["in"] != expected["params"]["in"])


def test_large_gradients_survive_float16():
    # Four times 40000 is beyond float16, so they must be divided before they are cast.
    tx = synchronized(jo.sgd(1.0), hook=fp16_compress())

    def step(state, batch):
        grads = {"w": jnp.mean(batch["x"], axis=0)}
        updates, opt_state = tx.update(grads, state["opt_state"], state["params"])
        return {"params": jo.apply_updates(state["params"], updates), "opt_state": opt_state}, {}

    zeros = {"w": jnp.zeros(3)}
    state = {"params": zeros, "opt_state": tx.init(zeros)}
    state, _ = data_parallel_shard_map(step, devices(4))(state, {"x": np.full((4, 3), 40000.0, np.float32)})
    np.testing.assert_allclose(state["params"]["w"], -40000.0)


def train(hook, steps=12, optimizer=None):
    tx = synchronized(jo.sgd(0.05) if optimizer is None else optimizer, hook=hook)
    step = data_parallel_shard_map(make_step(loss_fn, tx), devices(4))
    state, losses = run(step, start(params(), tx), batches(1) * steps)
    assert_replicas_equal({key: state[key] for key in ("params", "rest")})
    return state, losses


def test_powersgd_of_full_rank_is_the_mean():
    expected, _ = train(None)
    full = powersgd(devices(4), rank=16, start_step=0, min_compression_rate=0.1)
    assert_close(train(full)[0]["params"], expected["params"], 1e-5)


def test_powersgd_is_exact_before_its_start():
    expected, _ = train(None, steps=4)
    got, _ = train(powersgd(devices(4), rank=1, start_step=4), steps=4)
    assert_close(got["params"], expected["params"], 1e-6)


def test_error_feedback_keeps_what_is_lost():
    _, exact = train(None, steps=60)
    state, fed = train(powersgd(devices(4), rank=1, start_step=0), steps=60)
    _, unfed = train(powersgd(devices(4), rank=1, start_step=0, error_feedback=False), steps=60)
    assert isinstance(state["opt_state"].hook_state.error, PerDevice)
    errors = state["opt_state"].hook_state.error.value
    assert errors["in"].shape == (4, 16, 32)
    assert errors["in"].sharding.shard_shape(errors["in"].shape) == (1, 16, 32)
    assert np.any(errors["in"][0] != errors["in"][1])
    assert abs(fed[-1] - exact[-1]) < abs(unfed[-1] - exact[-1])


def test_hooks_need_a_step_that_communicates_itself():
    tx = synchronized(jo.sgd(0.1), hook=fp16_compress())
    with pytest.raises(ValueError, match="use data_parallel_shard_map"):
        data_parallel(make_step(loss_fn, tx), devices(2))(start(params(), tx), batches(1)[0])
    with pytest.raises(ValueError, match="choose the strategy replicate"):
        data_parallel_shard_map(make_step(loss_fn, tx), devices(2), zero1())(
            start(params(), tx), batches(1)[0]
        )


@pytest.mark.parametrize(
    ("arguments", "message"), [({"rank": 0}, "rank must be"), ({"start_step": -1}, "start_step must")]
)
def test_powersgd_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        powersgd(devices(2), **arguments)
