"""Checkpoints: what comes back, which are kept, and what is noticed."""

import gc
import json
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_core as jo
from jaxopt_core.training import Checkpoints, CorruptCheckpointError, EarlyStopping, fit, init_state
from tests.training.problems import Shuffled, assert_same_bits, eval_fn, start

STATE = init_state(
    {
        "layers": [{"kernel": jnp.arange(2000.0).reshape(50, 40), "bias": jnp.ones(3, jnp.bfloat16)}],
        "none": None,
    },
    {"streams": jax.random.split(jax.random.key(5)), "empty": {}},
    jo.adamw(),
    seed=3,
)


def save(folder, values, **options):
    checkpoints = Checkpoints(folder, **options)
    for step, value in values.items():
        metrics = None if value is None else {"val_loss": value}
        checkpoints.save(step, STATE, {"epoch": step}, metrics)
    checkpoints.close()
    return checkpoints


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(path, place, bit):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_all_of_it_comes_back(tmp_path):
    checkpoints = save(tmp_path, {1: 0.5})
    state, meta = checkpoints.restore(jax.tree.map(jnp.zeros_like, STATE))
    assert_same_bits(state, STATE)
    assert meta == {"epoch": 1}


def test_last_and_best_are_kept(tmp_path):
    values = {10: 0.5, 20: 0.3, 30: 0.4, 40: 0.6, 50: None}
    checkpoints = save(tmp_path, values)
    assert checkpoints.steps() == [20, 40, 50]
    assert checkpoints.best_step() == 20
    # A manager of another process knows the metrics of this one.
    assert save(tmp_path, {60: 0.9, 70: 0.2, 80: 0.8}).steps() == [70, 80]
    assert Checkpoints(tmp_path, mode="max").best_step() == 80


def test_the_other_way_is_better(tmp_path):
    checkpoints = save(tmp_path, {1: 0.1, 2: 0.9, 3: 0.5, 4: 0.4}, keep_last=1, mode="max")
    assert checkpoints.steps() == [2, 4]


# TensorStore's coroutines complain of what they cannot read, beside the error that they raise.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_flipped_bit_is_found_and_named_and_a_good_step_offered(tmp_path):
    checkpoints = save(tmp_path, {1: None, 2: None})
    path = largest_file(tmp_path / "2")
    whole, moments = path.read_bytes(), random.Random(0)
    named = 0
    for _ in range(12):
        flip(path, moments.randrange(len(whole)), moments.randrange(8))
        found = None
        try:
            # A bit that nothing reads may be flipped.
            assert_same_bits(Checkpoints(tmp_path).restore(STATE).state, STATE)
        except CorruptCheckpointError as error:
            found = error
        if found is not None:
            assert (found.step, found.good_step) == (2, 1)
            named += "does not have the checksum" in str(found) and "layers/0/kernel" in str(found)
        path.write_bytes(whole)
    gc.collect()
    assert named >= 6
    assert_same_bits(checkpoints.restore(STATE, 1).state, STATE)
    checkpoints.close()


def test_a_flipped_bit_in_what_is_no_array(tmp_path):
    save(tmp_path, {1: None})
    path = tmp_path / "1" / "meta" / "metadata"
    text = json.loads(path.read_text())
    text["text"] = text["text"].replace('"epoch": 1', '"epoch": 3')
    path.write_text(json.dumps(text))
    with pytest.raises(
        CorruptCheckpointError, match=r"metadata does not .* there is no older one that is whole"
    ):
        Checkpoints(tmp_path).restore(STATE)


def test_what_was_left_by_a_killed_save_is_no_checkpoint(tmp_path):
    save(tmp_path, {1: None})
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == [1]
    checkpoints.restore(STATE)
    checkpoints.close()
    assert not (tmp_path / "2.orbax-checkpoint-tmp").exists()


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (
            STATE._replace(params={"w": jnp.ones(2)}),
            r"made of another model .* lacks \['params/w'\] and has \['params/",
        ),
        (
            jax.tree.map(lambda x: jnp.zeros((5, 5)) if x.shape == (50, 40) else x, STATE),
            r"kernel: expected shape \(5, 5\), found \(50, 40\)",
        ),
    ],
    ids=["paths", "shape"],
)
def test_a_state_of_another_model(tmp_path, like, message):
    save(tmp_path, {1: None})
    with pytest.raises(ValueError, match=message):
        Checkpoints(tmp_path).restore(like)


def test_there_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a checkpoint in .*found none"):
        Checkpoints(tmp_path).restore(STATE)
    save(tmp_path, {1: None})
    with pytest.raises(FileNotFoundError, match=r"expected a checkpoint of step 5 .* found \[1\]"):
        Checkpoints(tmp_path).restore(STATE, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_last": 0}, "keep_last of at least 1"),
        ({"mode": "less"}, "mode less is unknown"),
        ({"every_steps": 0}, "every_steps must be at least 1"),
    ],
)
def test_wrong_arguments(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        Checkpoints(tmp_path, **options)


@pytest.mark.parametrize("watched", [("loss",), ()], ids=["kept", "donated"])
def test_resumed_in_the_middle_of_an_epoch_it_ends_at_the_same_bits(tmp_path, watched):
    state, step = start()
    options = {"eval_data": list(Shuffled(seed=9)), "eval_fn": eval_fn, "check_finite": watched}
    alone = fit(state, Shuffled(), step, epochs=3, **options)
    first = fit(state, Shuffled(), step, max_steps=10, checkpoints=Checkpoints(tmp_path), **options)
    assert first.step == 10
    data = Shuffled()
    resumed = fit(state, data, step, epochs=3, checkpoints=Checkpoints(tmp_path), resume=True, **options)
    assert_same_bits(resumed.state, alone.state)
    assert resumed.rows[-1]["val_loss"] == alone.rows[-1]["val_loss"]
    assert resumed.seconds > first.seconds
    # Once more, from the step in the middle, and of a run that is over already.
    again = fit(state, Shuffled(), step, epochs=3, checkpoints=Checkpoints(tmp_path), resume=True, **options)
    assert (again.step, again.stop_reason, again.rows) == (21, "epochs", [])
    assert_same_bits(again.state, alone.state)


def test_resumed_from_data_without_a_state(tmp_path):
    state, step = start()
    batches = list(Shuffled())
    alone = fit(state, batches, step, epochs=2).state
    fit(state, batches, step, max_steps=9, checkpoints=Checkpoints(tmp_path))
    resumed = fit(state, batches, step, epochs=2, checkpoints=Checkpoints(tmp_path), resume=True)
    assert_same_bits(resumed.state, alone)


def test_early_stopping_goes_on_counting(tmp_path):
    state, step = start()
    options = {"eval_data": Shuffled(seed=9), "eval_fn": lambda state, batch: {"loss": (state.step, 1)}}

    def stopping():
        return EarlyStopping(patience=2, restore_best=True)

    kept = Checkpoints(tmp_path)
    first = fit(state, Shuffled(), step, epochs=2, checkpoints=kept, callbacks=[stopping()], **options)
    assert first.stop_reason == "epochs"
    best = kept.restore(state, 7).state
    kept.close()
    assert kept.best_step() == 7
    resumed = fit(
        state, Shuffled(), step, epochs=9, checkpoints=kept, resume=True, callbacks=[stopping()], **options
    )
    assert resumed.step == 21
    assert resumed.stop_reason.startswith("val_loss did not improve")
    assert_same_bits(resumed.state, best)
    np.testing.assert_array_equal(resumed.state.step, 7)
