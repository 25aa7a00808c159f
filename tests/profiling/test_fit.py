"""``fit(profile=...)``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxopt_core as jo
from jaxopt_core.data import Arrays
from jaxopt_core.models import MLP, pure
from jaxopt_core.profiling import Schedule, advise
from jaxopt_core.profiling import advice as rules
from jaxopt_core.training import Callback, Checkpoints, fit, init_state, make_step

DATA = {"x": np.ones((24, 8), np.float32)}


@pytest.fixture
def training():
    apply, params, rest = pure(MLP((8, 16, 4), rngs=nnx.Rngs(0)))

    def loss_fn(params, rest, batch, rng):
        del rng
        logits, rest = apply(params, rest, batch["x"], train=True)
        return jnp.mean(logits**2), (rest, {})

    tx = jo.adamw()
    return init_state(params, rest, tx), make_step(loss_fn, tx)


def test_dispatches_are_recorded_by_layer_and_phase(training):
    state, step_fn = training
    run = fit(state, Arrays(DATA, 4), step_fn, epochs=2, steps_per_dispatch=2, profile=Schedule(1, 1, 3))
    assert run.step == 12
    assert run.profile.steps == 3
    assert {"layers.0", "layers.1"} <= {row.name for row in run.profile.rows("scope")}
    assert {"data", "forward", "backward", "optimizer"} <= {row.name for row in run.profile.rows("phase")}


class Reads(Callback):
    def on_steps(self, run, metrics):
        del metrics
        float(run.state.params["w"][0, 0])


@pytest.mark.parametrize(("callbacks", "waits"), [([], False), ([Reads()], True)])
def test_fit_is_not_blamed_for_reading_its_metrics(monkeypatch, callbacks, waits):
    monkeypatch.setattr(rules, "bfloat16_gain", lambda *_: 1.0)

    def loss_fn(params, rest, batch, rng):
        del rng
        hidden = jnp.tanh(batch["x"] @ params["w"])
        return hidden.sum() + jax.lax.stop_gradient(jnp.sort(hidden, axis=0))[0, 0], (rest, {})

    tx = jo.sgd()
    state, data = (
        init_state({"w": jnp.ones((512, 512))}, {}, tx),
        [{"x": np.ones((512, 512), np.float32)}] * 10,
    )
    how = {"epochs": 1, "steps_per_dispatch": 2, "check_finite": (), "callbacks": callbacks}
    how |= {
        "eval_data": data[:1],
        "eval_fn": lambda state, batch: {"x": (batch["x"][0, 0], 1)},
        "eval_every": 2,
    }
    found = fit(state, data, make_step(loss_fn, tx), profile=Schedule(1, 1, 3), **how).profile
    assert bool(found.trace.host_waits) == waits
    assert advise(found) == []


def test_it_changes_nothing_and_resumes(training, tmp_path):
    state, step_fn = training
    expected = fit(state, Arrays(DATA, 4), step_fn, max_steps=9)
    assert expected.profile is None
    how = {"steps_per_dispatch": 1, "profile": Schedule(0, 0, 1), "checkpoints": Checkpoints(tmp_path)}
    fit(state, Arrays(DATA, 4), step_fn, max_steps=5, **how)
    resumed = fit(state, Arrays(DATA, 4), step_fn, max_steps=9, resume=True, **how)
    jax.tree.map(np.testing.assert_array_equal, resumed.state.params, expected.state.params)


def test_a_run_too_short_is_not_lost(training):
    state, step_fn = training
    batches = iter([{"x": DATA["x"]}] * 3)  # a stream, without a length
    with pytest.warns(UserWarning, match=r"fit\(profile=...\): nothing was recorded"):
        run = fit(state, batches, step_fn, max_steps=3, profile=Schedule(wait=50))
    assert run.step == 3
    assert run.profile is None
