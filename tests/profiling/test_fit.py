"""``fit(profile=...)``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxopt_core as jo
from jaxopt_core.data import Arrays
from jaxopt_core.models import MLP, pure
from jaxopt_core.profiling import Schedule
from jaxopt_core.training import Checkpoints, fit, init_state, make_step

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
