"""The loop: it learns, repeats itself bit for bit, counts right, and stops where it should."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_core as jo
from jaxopt_core.training import Callback, EarlyStopping, evaluate, fit
from tests.training.problems import Shuffled, assert_same_bits, eval_fn, loss_fn, start


class Record(Callback):
    def __init__(self):
        self.metrics, self.steps, self.events = {}, [], []

    def on_start(self, _):
        self.events.append("start")

    def on_steps(self, run, metrics):
        self.steps.append((run.epoch, run.step))
        for name, values in metrics.items():
            self.metrics[name] = np.concatenate([self.metrics.get(name, []), values])

    def on_row(self, run, _):
        self.events.append(f"row {run.step}")

    def on_end(self, _):
        self.events.append("end")


def run_toy(tx=None, *, seed=0, data=None, callbacks=(), **options):
    state, step = start(tx, seed)
    options = {"epochs": 3} | options
    return fit(state, data or Shuffled(seed=seed), step, callbacks=callbacks, **options)


def test_it_learns():
    run = run_toy(epochs=40, eval_data=Shuffled(seed=5), eval_fn=eval_fn)
    assert run.rows[-1]["val_loss"] < 0.2 < run.rows[0]["val_loss"]
    assert run.rows[-1]["train_accuracy"] > 0.9


def test_same_seed_same_bits_other_seed_other_bits():
    first, second, other = run_toy(), run_toy(), run_toy(seed=1)
    assert_same_bits(first.state, second.state)
    assert not np.array_equal(first.state.params["first"]["kernel"], other.state.params["first"]["kernel"])


@pytest.mark.parametrize("length", [1, 2, 5, 100])
def test_where_dispatches_end_does_not_matter(length):
    state = run_toy(steps_per_dispatch=length).state
    one = run_toy(steps_per_dispatch=3, eval_every=4).state
    assert_same_bits(state, one)


def test_steps_are_the_steps_of_a_plain_loop():
    tx = jo.adamw(lr=0.1)
    record = Record()
    run = run_toy(tx, epochs=2, callbacks=[record], steps_per_dispatch=4)

    state, _ = start(tx)
    params, rest, opt_state, losses = state.params, state.rest, state.opt_state, []
    data, count = Shuffled(), 0
    for _ in range(2):
        for batch in data:
            rng = jax.random.fold_in(state.rng, count)
            (loss, (rest, _)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, rest, batch, rng)
            updates, opt_state = tx.update(grads, opt_state, params)
            params, count = jo.apply_updates(params, updates), count + 1
            losses.append(loss)
    np.testing.assert_allclose(record.metrics["loss"], losses, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), run.state.params, params
    )
    np.testing.assert_allclose(run.state.rest["mean"], rest["mean"], rtol=1e-5)


def test_counts_and_events():
    record = Record()
    run = run_toy(steps_per_dispatch=4, callbacks=[record], epochs=2)
    assert record.steps == [(1, 4), (1, 7), (2, 11), (2, 14)]
    assert record.events == ["start", "row 7", "row 14", "end"]
    assert (run.step, int(run.state.step), run.epoch, run.total_steps) == (14, 14, 2, 14)
    assert run.stop_reason == "epochs"
    np.testing.assert_allclose(run.rows[1]["train_loss"], record.metrics["loss"][7:].mean(), rtol=1e-6)
    assert run.rows[0]["steps_per_second"] > 0


def test_learning_rate_and_gradient_norm_are_monitored():
    record = Record()
    tx = jo.adamw(lr=lambda count: 0.1 / (1 + count.astype(jnp.float32)))
    run_toy(tx, callbacks=[record], max_steps=3)
    np.testing.assert_allclose(record.metrics["lr"], [0.1, 0.05, 0.1 / 3], rtol=1e-6)
    state, _ = start(tx)
    batch = next(iter(Shuffled()))
    grads = jax.grad(lambda p: loss_fn(p, state.rest, batch, jax.random.fold_in(state.rng, 0))[0])(
        state.params
    )
    norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(grads)))
    np.testing.assert_allclose(record.metrics["grad_norm"][0], norm, rtol=1e-5)


def test_given_arrays_stay_valid():
    state, step = start()
    before = jax.tree.map(np.array, state.params)
    for watched in (("loss",), ()):
        fit(state, Shuffled(), step, epochs=1, check_finite=watched)
        assert_same_bits(state.params, before)


def test_without_the_check_the_bits_are_the_same():
    assert_same_bits(run_toy().state, run_toy(check_finite=()).state)


@pytest.mark.parametrize(("limits", "step"), [({"max_steps": 10}, 10), ({"max_steps": 7}, 7), ({}, 21)])
def test_limits(limits, step):
    run = run_toy(steps_per_dispatch=4, **limits)
    assert run.step == step
    assert run.rows[-1]["step"] == step
    assert run.stop_reason == ("max_steps" if limits else "epochs")


def test_max_time():
    run = run_toy(epochs=None, max_time=0.5)
    assert run.stop_reason == "max_time"
    assert 0.5 <= run.seconds < 5


def test_validation_every_few_steps():
    run = run_toy(eval_every=5, eval_data=Shuffled(seed=9), eval_fn=eval_fn)
    assert [row["step"] for row in run.rows] == [5, 10, 15, 20, 21]


def test_fast_dev_run_saves_nothing(tmp_path):
    from jaxopt_core.training import Checkpoints

    seen = []
    data = Shuffled(seed=9)
    run = run_toy(
        fast_dev_run=2,
        eval_data=data,
        eval_fn=lambda state, batch: seen.append(1) or eval_fn(state, batch),
        checkpoints=Checkpoints(tmp_path / "made"),
    )
    assert (run.step, len(run.rows)) == (2, 1)
    assert not (tmp_path / "made").exists()


def test_overfit_batches_learns_them_by_heart():
    run = run_toy(overfit_batches=1, epochs=150, eval_data=Shuffled(seed=9), eval_fn=eval_fn)
    assert run.step == 150
    assert run.rows[-1]["val_loss"] < 0.1


def test_a_mistake_in_the_validation_shows_before_training():
    def wrong(_, __):
        raise KeyError("z")

    record = Record()
    with pytest.raises(KeyError):
        run_toy(eval_data=Shuffled(), eval_fn=wrong, callbacks=[record])
    assert record.steps == []
    assert record.events == ["start", "end"]


def test_any_iterable_will_do():
    batches = list(Shuffled())
    run = run_toy(data=batches, epochs=2)
    assert run.step == 14
    assert_same_bits(run.state, run_toy(data=tuple(batches), epochs=2).state)


def test_torch_loader():
    torch = pytest.importorskip("torch")
    data = Shuffled()
    rows = [{"x": x, "y": y} for x, y in zip(data.x, data.y, strict=True)]

    def collate(picked):
        return {name: np.stack([row[name] for row in picked]) for name in ("x", "y")}

    loader = torch.utils.data.DataLoader(rows, batch_size=8, collate_fn=collate)
    run = run_toy(data=loader, epochs=1)
    plain = [{"x": data.x[i : i + 8], "y": data.y[i : i + 8]} for i in range(0, 56, 8)]
    assert_same_bits(run.state, run_toy(data=plain, epochs=1).state)


def test_accumulation_clipping_and_average_are_links_of_the_optimizer():
    import optax

    inner = optax.chain(jo.gradients.clip_grad_norm(1.0), jo.adamw(lr=1e-2), jo.averaging.ema(0.9))
    run = run_toy(jo.gradients.accumulate(inner, 3, reduction="mean"))
    assert int(run.state.opt_state.gradient_step) == 7
    average = jo.averaging.averaged_params(run.state.opt_state)
    assert not np.array_equal(average["first"]["kernel"], run.state.params["first"]["kernel"])


def test_float16_with_loss_scale():
    scale = jo.precision.dynamic_loss_scale()
    tx = jo.precision.with_loss_scale(jo.adamw(lr=1e-2), scale)
    record = Record()
    state, step = start(tx, autocast_dtype=jnp.float16, loss_scale=scale)
    fit(state, Shuffled(), step, epochs=3, callbacks=[record])
    plain = Record()
    run_toy(callbacks=[plain])
    np.testing.assert_allclose(record.metrics["loss"], plain.metrics["loss"], rtol=0.05)
    np.testing.assert_allclose(record.metrics["grad_norm"], plain.metrics["grad_norm"], rtol=0.1)


def test_early_stopping_restores_the_best():
    values = iter([3.0, 2.0, 2.5, 2.1, 1.0])

    class Fake(Callback):
        def on_row(self, _, row):
            row["val_loss"] = next(values)

    states = []

    class Keep(Callback):
        def on_row(self, run, _):
            states.append(run.state)

    stopping = EarlyStopping(patience=2, restore_best=True)
    run = run_toy(epochs=9, callbacks=[Fake(), Keep(), stopping])
    assert run.step == 28
    assert run.stop_reason == "val_loss did not improve on 2 of step 14"
    assert_same_bits(run.state, states[1])


@pytest.mark.parametrize(
    ("options", "values", "improved"),
    [
        ({}, [1, 0.9, 0.9, float("nan")], [True, True, False, False]),
        ({"mode": "max"}, [1, 0.9, 2], [True, False, True]),
        ({"min_delta": 0.5}, [3, 2.6, 2.4], [True, False, True]),
    ],
)
def test_what_counts_as_better(options, values, improved):
    stopping = EarlyStopping(**options)
    assert [stopping.improves(value) for value in values] == improved


def test_early_stopping_without_its_metric():
    with pytest.raises(ValueError, match="early stopping monitors 'val_loss'; a row has epoch, step"):
        run_toy(callbacks=[EarlyStopping()])


def test_sigterm_ends_the_run_after_the_dispatch():
    class Ask(Callback):
        def on_steps(self, run, _):
            if run.step == 8:
                os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    run = run_toy(callbacks=[Ask()], steps_per_dispatch=4, eval_every=4)
    assert (run.stop_reason, run.step) == ("SIGTERM", 8)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": None}, "a run without end: give epochs, max_steps or max_time"),
        ({"epochs": 0}, "epochs must be positive, got 0"),
        ({"steps_per_dispatch": 0}, "steps_per_dispatch must be positive"),
        ({"eval_data": []}, "eval_data needs an eval_fn"),
        ({"data": ()}, "expected at least one batch in an epoch"),
        (
            {"data": [{"x": np.ones((3, 4))}, {"x": np.ones((2, 4))}]},
            r"batch\['x'\]: expected float64 of shape \(3, 4\)",
        ),
    ],
)
def test_wrong_arguments(options, message):
    state, step = start()
    options = {"data": Shuffled(), "epochs": 1} | options
    with pytest.raises(ValueError, match=message):
        fit(state, options.pop("data"), step, **options)


def test_evaluation_of_nothing_is_nan():
    assert np.isnan(evaluate(lambda state, batch: {"loss": (0.0, 0)}, None, [1])["loss"])
