import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_core.tuning import MemoryLimitError, Trainable, TrialsFailedError, programs, stage, sweep
from jaxopt_core.tuning.trainable import in_one_part
from jaxopt_core.tuning.trials import Trial
from tests.tuning.problems import SHRINKING, counting_compilations, linear

RATES = [0.01, 0.02, 0.05, 0.1, 0.2]
ONE = jax.devices()[:1]


def alone(trainable, config):
    """A trial without any of the machinery."""

    @jax.jit
    def run(traced, data):
        state = trainable.init(traced, *data)
        for _ in range(trainable.parts):
            state, metrics = trainable.advance(traced, state, *data)
        return metrics

    return run({name: jnp.float32(value) for name, value in config.items()}, trainable.args)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "devices"), [("map", 1), ("map", 3), ("vmap", 8)])
def test_every_trial_ends_where_it_would_alone(how, devices):
    trainable = linear(parts=3)
    result = sweep(trainable, [{"lr": lr} for lr in RATES], how=how, devices=jax.devices()[:devices])
    assert [trial.failure for trial in result.trials] == [""] * 5
    assert result.programs == 1
    expected = alone(trainable, result.trials[3].config)
    np.testing.assert_allclose(result.trials[3].metrics["w"], expected["w"], rtol=2e-6)
    assert len({trial.metrics["loss"] for trial in result.trials}) == 5
    assert len(result.trials[3].history) == 3


@pytest.mark.parametrize("parts", [1, 2])
def test_threads_change_nothing(parts, monkeypatch):
    configs = [{"lr": lr} for lr in RATES]
    found = []
    for lanes in (1, 2, 4):
        monkeypatch.setattr(stage, "count_lanes", lambda how, devices, lanes=lanes: lanes)
        result = sweep(linear(parts=parts), configs, how="map", devices=ONE)
        assert result.programs == 1
        found.append([trial.history for trial in result.trials])
    for threads in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, threads, found[0])


@pytest.mark.parametrize("devices", [1, 2])
def test_arguments_that_are_numbers_and_keys(devices):
    def train(config, factor, key):
        return config["x"] * factor + jax.random.normal(key)

    args, configs = (3.0, jax.random.key(0)), [{"x": 1.0}, {"x": 2.0}]
    result = sweep(train, configs, args=args, how="map", devices=jax.devices()[:devices])
    assert result.trials[1].metrics["value"] - result.trials[0].metrics["value"] == pytest.approx(3, rel=1e-6)


def test_as_many_threads_as_memory_is_there_for():
    def compiled(memory):
        def third_largest(numbers, state):
            waves = jnp.sin(numbers["x"] * jnp.arange(4096.0))
            return state + jnp.sort(waves)[-3]

        shapes = jax.ShapeDtypeStruct((), jnp.float32)
        lifted = programs.Lifted(third_largest, shapes, "map", ONE, 4, memory)
        state = lifted([0, 3, 5], {"x": np.arange(8, dtype=np.float32)}, lifted.blank(8))
        ((_, threads),) = lifted._compiled.values()
        return threads, np.concatenate(state)

    every, kept = compiled(1 << 30)
    assert every == 4
    assert kept[[1, 2, 4, 6, 7]].tolist() == [0.0] * 5  # what was not asked for is as it was
    assert (kept[[3, 5]] > 0.99).all()
    few, same = compiled(1 << 15)
    assert 1 <= few < 4
    assert (same == kept).all()


@pytest.mark.parametrize(("how", "devices"), [("map", [1]), ("vmap", [1]), ("map", [1, 2])])
def test_trials_run_on_the_devices_that_are_named(how, devices):
    def add(numbers, state, x):
        return state + numbers["x"] + x

    chosen = [jax.devices()[i] for i in devices]
    shapes = jax.ShapeDtypeStruct((), jnp.float32)
    lifted = programs.Lifted(add, shapes, how, chosen, len(chosen), 1 << 30, (np.float32(1),))
    state = lifted(range(4), {"x": np.arange(4, dtype=np.float32)}, lifted.blank(4))
    assert np.concatenate(state).tolist() == [1, 2, 3, 4]
    assert set().union(*(part.devices() for part in state)) == set(chosen)


def test_64_bits_reach_the_threads(monkeypatch):
    monkeypatch.setattr(stage, "count_lanes", lambda how, devices: 2)

    def train(config, x):
        return x / config["x"]

    with jax.enable_x64(True):
        result = sweep(train, [{"x": 3.0}, {"x": 7.0}], args=(np.float64(1),), how="map", devices=ONE)
    assert [trial.metrics["value"] for trial in result.trials] == [1 / 3, 1 / 7]


def test_each_structure_compiles_once():
    trainable = linear()
    configs = [
        {"lr": lr, "optimizer": name, "seed": s} for s, lr in enumerate(RATES) for name in ("sgd", "adamw")
    ]
    jax.block_until_ready(jnp.zeros(3))  # what setup makes outside of any program is compiled by now
    with counting_compilations() as compiled:
        result = sweep(trainable, configs, devices=ONE)
    assert result.programs == len(compiled) == 2
    assert all(trial.status == "complete" for trial in result.trials)


def test_structures_share_the_data():
    def train(config, x):
        return x.sum() if config["flag"] else x.max()

    made = stage.Stage(in_one_part(train, (np.ones(65, np.float32)[1:],)), devices=ONE)
    made.start([Trial(0, {"flag": True}), Trial(1, {"flag": False})])
    made.advance()
    places = {program.args[0].unsafe_buffer_pointer() for program in made._programs.values()}
    assert made.programs == 2
    assert len(places) == 1


def test_a_seed_is_no_structure_and_a_flag_is():
    def seen(config):
        return jax.random.uniform(jax.random.key(config["seed"])) + (1.0 if config["flag"] else 0.0)

    result = sweep(seen, [{"seed": s, "flag": f} for s in range(4) for f in (True, False, 1)], devices=ONE)
    assert result.programs == 3
    assert len({trial.metrics["value"] for trial in result.trials}) == 8
    assert result.best("value", "maximize").config["flag"]


def test_a_structure_that_raises_fails_alone():
    def train(config):
        if config["kind"] == "bad":
            raise RuntimeError("no such kind\nand more")
        return config["x"]

    result = sweep(train, [{"x": 1.0, "kind": "bad"}, {"x": 2.0, "kind": "good"}])
    assert [trial.status for trial in result.trials] == ["failed", "complete"]
    assert result.trials[0].failure == "RuntimeError: no such kind"
    assert result.best().number == 1


def test_nan_is_never_best():
    result = sweep(lambda config: jnp.log(config["x"]), [{"x": x} for x in (-1.0, 0.0, 3.0, 2.0)])
    assert result.best().config == {"x": 2.0}
    with pytest.raises(TrialsFailedError, match="none of 1 trials ended with a finite value"):
        sweep(lambda config: jnp.log(config["x"]), [{"x": -1.0}]).best()


def test_side_by_side_runs_as_many_as_fit():
    def train(config):
        x = jnp.arange(1000.0) * config["x"]
        return jnp.sum(jax.lax.optimization_barrier(x) ** 2) / jnp.sum(x)

    configs = [{"x": float(i)} for i in range(1, 33)]
    free = sweep(train, configs, how="vmap", devices=ONE)
    with counting_compilations() as compiled:
        tight = sweep(train, configs, how="vmap", devices=ONE, memory=20_000)
    assert len(compiled) > 1  # a smaller chunk each
    found = ([trial.metrics["value"] for trial in result.trials] for result in (free, tight))
    np.testing.assert_allclose(*found, rtol=1e-6)
    with pytest.raises(MemoryLimitError, match=r"one trial at a time needs .* MiB"):
        raise_first_failure(sweep(train, configs, how="vmap", devices=ONE, memory=100))


def raise_first_failure(result):
    failure = result.trials[0].failure
    assert failure.startswith("MemoryLimitError")
    raise MemoryLimitError(failure)


def test_states_may_hold_keys():
    result = sweep(SHRINKING, [{"lr": 0.1, "noise": 1e-3}, {"lr": 0.1, "noise": 0.0}])
    assert result.trials[1].metrics["loss"] == pytest.approx(0.9**18)
    assert (
        len({round(part["loss"] - 0.9 ** (2 * n), 6) for n, part in enumerate(result.trials[0].history, 1)})
        > 5
    )


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="configs: expected at least one"):
        sweep(SHRINKING, [])
    with pytest.raises(ValueError, match="how: expected 'auto', 'map' or 'vmap', got 'pmap'"):
        sweep(SHRINKING, [{"lr": 0.1}], how="pmap")
    with pytest.raises(ValueError, match="devices: expected at least one"):
        sweep(SHRINKING, [{"lr": 0.1}], devices=[])
    with pytest.raises(TypeError, match=r"configuration 0: unhashable type: 'list'; .* give tuples"):
        sweep(SHRINKING, [{"lr": 0.1, "hidden": [3]}])
    few = sweep(linear(parts=9), [{"lr": 0.1}])
    assert "expected at least one update in each of 9 parts, found 8 updates" in few.trials[0].failure


def test_integers_and_arrays_as_metrics():
    def train(config):
        return {"count": jnp.int32(3), "curve": jnp.arange(4) * config["x"].astype(jnp.int32)}

    (trial,) = sweep(Trainable(lambda c: (), lambda c, s: (s, train(c))), [{"x": 2.0}]).trials
    assert trial.metrics["count"] == 3
    assert trial.metrics["curve"].tolist() == [0, 2, 4, 6]
