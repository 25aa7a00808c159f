"""Successive halving and populations: what the compiled programs choose is what Python would."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_core.tuning import (
    Choice,
    Float,
    Space,
    Trainable,
    TrialsFailedError,
    population_based_training,
    successive_halving,
    sweep,
)
from tests.tuning.problems import SHRINKING, counting_compilations, linear

CONFIGS = [{"lr": lr} for lr in (0.3, 0.01, 0.2, 0.05, 0.02, 0.4, 0.1)]


@pytest.mark.parametrize("how", ["map", "vmap"])
def test_halving_keeps_the_best_and_trains_them_as_a_sweep_would(how):
    jax.block_until_ready(jnp.zeros(2))
    with counting_compilations() as compiled:
        found = successive_halving(SHRINKING, CONFIGS, metric="loss", factor=2, how=how)
    assert len(compiled) == found.programs == 1
    # 7 after part 1, 4 after 2, 2 after 4, 1 after 8 and to the end.
    assert sorted(len(trial.history) for trial in found.trials) == [1, 1, 1, 2, 2, 4, 9]
    assert found.best("loss").config == {"lr": 0.4}
    (whole,) = sweep(SHRINKING, [{"lr": 0.4}]).trials
    np.testing.assert_allclose(
        [part["loss"] for part in found.best("loss").history],
        [part["loss"] for part in whole.history],
        rtol=1e-5,
    )


def test_halving_never_keeps_what_is_not_finite():
    def advance(config, x):
        x = x * config["lr"]
        return x, {"loss": jnp.where(config["lr"] < 0.5, jnp.nan, x)}

    trainable = Trainable(lambda config: jnp.float32(1), advance, parts=3)
    found = successive_halving(trainable, [{"lr": lr} for lr in (0.1, 0.6, 0.9)], metric="loss")
    assert [trial.status for trial in found.trials] == ["failed", "complete", "pruned"]
    assert found.trials[0].failure == "loss is nan after part 1"


def test_halving_can_maximise():
    found = successive_halving(SHRINKING, CONFIGS, metric="loss", direction="maximize")
    assert found.best("loss", "maximize").config == {"lr": 0.01}


def test_structures_cannot_be_mixed():
    with pytest.raises(ValueError, match=r"differ in real numbers only.*Use study\(...\)"):
        successive_halving(SHRINKING, [{"lr": 0.1}, {"lr": 0.1, "layers": 2}], metric="loss")


def population(**options):
    space = Space({"lr": Float(0.001, 0.4, log=True)})
    return population_based_training(
        linear(parts=6, epochs=6), space, **{"members": 8, "metric": "loss", **options}
    )


def test_a_population_copies_weights_and_varies_values():
    found = population()
    order = np.argsort(found.scores[:-1], axis=1)
    for part in range(5):  # the worst two copied the best two, everyone else stayed
        stay = np.arange(8)
        stay[order[part][-2:]] = order[part][:2]
        np.testing.assert_array_equal(found.parents[part + 1], stay)
    for part in range(1, 6):
        copied = found.parents[part] != np.arange(8)
        before = found.configs["lr"][part - 1][found.parents[part]]
        now = found.configs["lr"][part]
        np.testing.assert_array_equal(now[~copied], before[~copied])
        assert (now[copied] != before[copied]).all()
    assert found.configs["lr"].min() >= 0.001 - 1e-9
    assert found.configs["lr"].max() <= 0.4 + 1e-7


def test_the_schedule_that_a_population_finds_trains_alone_to_the_same_weights():
    found = population()
    trainable = linear(parts=6, epochs=6)

    @jax.jit
    def run(rates, data):
        state = trainable.init({"lr": rates[0]}, *data)
        for lr in rates:
            state, metrics = trainable.advance({"lr": lr}, state, *data)
        return state.params, metrics["loss"]

    params, loss = run(jnp.asarray(found.schedule["lr"]), trainable.args)
    np.testing.assert_allclose(found.state.params, params, rtol=1e-5)
    assert found.metrics["loss"][-1] == pytest.approx(float(loss), rel=1e-4, abs=1e-9)
    assert found.metrics["loss"][-1] == found.scores[-1].min()


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        ({"lr": Choice((0.1, 0.2))}, {}, "lr: a population can vary real numbers only"),
        (
            {"lr": Float(0.1, 0.2)},
            {"quantile": 0.9},
            "quantile: expected one or more and at most half of the 8",
        ),
    ],
)
def test_populations_check_their_arguments(space, options, message):
    with pytest.raises(ValueError, match=message):
        population_based_training(SHRINKING, Space(space), members=8, metric="loss", **options)


def test_a_population_of_failures_says_so():
    trainable = Trainable(
        lambda config: jnp.float32(1), lambda config, x: (x, {"loss": x * jnp.nan}), parts=2
    )
    with pytest.raises(TrialsFailedError, match="none of 4 members ended with a finite loss"):
        population_based_training(trainable, Space({"a": Float(0.0, 1.0)}), members=4, metric="loss")
