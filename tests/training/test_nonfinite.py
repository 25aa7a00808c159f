"""Where the first infinity or NaN comes from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxopt_core as jo
from jaxopt_core.models import MLP, pure
from jaxopt_core.training import NonFiniteError, fit, init_state, make_step
from tests.training.problems import Shuffled, assert_same_bits, start


def model_step(change=None, spoil=None):
    apply, params, rest = pure(MLP((4, 8, 8, 2), rngs=nnx.Rngs(0)))
    params = params if change is None else change(params)

    def loss_fn(params, rest, batch, _):
        logits, rest = apply(params, rest, batch["x"], train=True)
        logits = logits if spoil is None else spoil(logits)
        return jo.losses.cross_entropy(logits, batch["y"]), (rest, {})

    tx = jo.sgd(lr=0.1)
    return init_state(params, rest, tx), make_step(loss_fn, tx)


def scaled(layer, factor):
    def change(params):
        kernel = params["layers"][layer]["kernel"]
        return {"layers": {**params["layers"], layer: {**params["layers"][layer], "kernel": kernel * factor}}}

    return change


@pytest.mark.parametrize("layer", [0, 1])
def test_the_layer_that_overflows_is_named(layer):
    state, step = model_step(scaled(layer, 3e38))
    with pytest.raises(NonFiniteError, match=f"'layers/{layer}'") as caught:
        fit(state, Shuffled(), step, epochs=1)
    assert caught.value.layer.startswith(f"layers/{layer}")
    assert caught.value.step == 1


def test_a_mask_of_minus_infinity_is_no_fault():
    def spoil(logits):
        masked = jnp.where(jnp.arange(2, dtype=jnp.int32)[None] >= 0, logits, -jnp.inf)
        return masked + jnp.log(logits - logits)  # log(0) of the last layer

    state, step = model_step(spoil=spoil)
    with pytest.raises(
        NonFiniteError, match=r"'layers/2' gives the first inf, in log \(forward\) at .*test_nonfinite"
    ):
        fit(state, Shuffled(), step, epochs=1)


def test_a_gradient_that_is_nan_while_the_loss_is_not():
    def spoil(logits):
        return logits + jnp.sqrt(jnp.abs(logits) * 0)  # the derivative of sqrt at 0, times 0

    state, step = model_step(spoil=spoil)
    with pytest.raises(
        NonFiniteError, match=r"grad_norm became nan at step 1, .*'layers/2' gives the first inf, in div"
    ):
        fit(state, Shuffled(), step, epochs=1)


def test_bad_data_is_named():
    batches = list(Shuffled())
    batches[5] = {**batches[5], "x": batches[5]["x"].copy()}
    batches[5]["x"][2, 1] = np.nan
    state, step = start()
    with pytest.raises(
        NonFiniteError, match="loss became nan at step 6, in epoch 1: batch 'x' holds nan"
    ) as caught:
        fit(state, batches, step, epochs=1)
    assert (caught.value.step, caught.value.layer) == (6, "x")


def test_parameters_that_were_bad_before():
    state, step = start()
    state.params["second"]["kernel"] = jnp.full((16, 2), jnp.nan)
    with pytest.raises(NonFiniteError, match="parameter 'second/kernel' holds nan before the step"):
        fit(state, Shuffled(), step, epochs=1)


def test_divergence_after_some_steps_is_found_at_its_step():
    state, step = start(jo.sgd(lr=1e15))
    with pytest.raises(NonFiniteError) as caught:
        fit(state, Shuffled(), step, epochs=3, steps_per_dispatch=6)
    # The step before was finite, as a plain loop shows.
    data, step = Shuffled(), jax.jit(step)
    for count, batch in enumerate(data, start=1):
        state, metrics = step(state, batch)
        finite = bool(np.isfinite(metrics["loss"]) & np.isfinite(metrics["grad_norm"]))
        assert finite == (count < caught.value.step)
        if not finite:
            break


def test_no_checkpoint_is_made_of_it(tmp_path):
    from jaxopt_core.training import Checkpoints

    checkpoints = Checkpoints(tmp_path, every_steps=2)
    batches = list(Shuffled())
    batches[5] = {**batches[5], "x": batches[5]["x"] * np.float32(np.nan)}
    state, step = start()
    with pytest.raises(NonFiniteError):
        fit(state, batches, step, epochs=1, checkpoints=checkpoints)
    assert checkpoints.steps() == [2, 4]
    good = fit(state, batches, step, max_steps=4).state
    assert_same_bits(checkpoints.restore(state).state, good)
