"""The loop: it learns, repeats itself, counts right, and stops when there is nothing to go on with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxopt_core as jo
from jaxopt_core.data import Dataset, Split
from jaxopt_core.models import MLP, pure
from jaxopt_core.training import count_steps, fit, make_train_steps
from jaxopt_core.training.loop import TrainState


def toy(train=50, test=20):
    """Two classes, told apart by the sign of the first of four features."""

    def split(count, seed):
        images = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
        return Split(images, (images[:, 0] > 0).astype(np.int32))

    return Dataset("toy", 2, split(train, 0), split(test, 1))


def run_toy(tx=None, **options):
    arguments = {"epochs": 3, "batch_size": 8, "seed": 0} | options
    model = pure(MLP((4, 16, 2), rngs=nnx.Rngs(0)))
    return fit(*model, tx or jo.adamw(lr=1e-2), toy(), **arguments)


def assert_trees_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_it_learns():
    run = run_toy(epochs=20)
    assert run.epochs[-1].test_accuracy >= 0.9
    assert run.epochs[-1].train_loss < run.epochs[0].train_loss / 2


def test_same_seed_same_bits_other_seed_other_order():
    first, second, other = run_toy(), run_toy(), run_toy(seed=1)
    assert_trees_equal(first.state, second.state)
    np.testing.assert_array_equal(first.losses, second.losses)
    assert not np.array_equal(first.losses, other.losses)


def test_number_of_steps_per_dispatch_does_not_matter():
    one, many = run_toy(steps_per_dispatch=1), run_toy(steps_per_dispatch=4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        one.state.params,
        many.state.params,
    )


def test_steps_are_the_steps_of_a_plain_loop():
    apply, params, rest = pure(MLP((4, 3, 2), rngs=nnx.Rngs(0)))
    tx = jo.adamw(lr=0.1)
    data = jax.device_put(toy().train)
    indices = np.arange(24).reshape(3, 8)

    def loss_fn(params, picked):
        logits, _ = apply(params, rest, data.images[picked], train=True)
        log_p = jax.nn.log_softmax(logits)
        return -log_p[np.arange(8), data.labels[picked]].mean()

    @jax.jit
    def step(params, opt_state, picked):
        loss, grads = jax.value_and_grad(loss_fn)(params, picked)
        updates, opt_state = tx.update(grads, opt_state, params)
        return jo.apply_updates(params, updates), opt_state, loss

    expected, opt_state, losses = params, tx.init(params), []
    for picked in indices:
        expected, opt_state, loss = step(expected, opt_state, picked)
        losses.append(loss)

    state = TrainState(jax.tree.map(jnp.copy, params), rest, tx.init(params))
    state, (found_losses, _) = make_train_steps(apply, tx)(state, data, indices)
    np.testing.assert_allclose(found_losses, losses, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), state.params, expected)


def test_counts_and_progress():
    seen = []
    run = run_toy(steps_per_dispatch=4, on_progress=seen.append)
    # 50 images make 6 batches of 8; 2 images sit each epoch out.
    assert [(p.epoch, p.step) for p in seen] == [(1, 4), (1, 6), (2, 10), (2, 12), (3, 16), (3, 18)]
    assert [row.step for row in run.epochs] == [6, 12, 18]
    assert run.losses.shape == (18,)
    np.testing.assert_allclose(run.epochs[1].train_loss, run.losses[6:12].mean(), rtol=1e-6)
    np.testing.assert_allclose(seen[1].loss, run.losses[4:6].mean(), rtol=1e-6)
    assert all(p.images_per_second > 0 for p in seen)


def test_an_epoch_sees_every_image_once():
    seen = []

    def apply(params, rest, images, *, train):
        if train:
            jax.debug.callback(lambda x: seen.extend(x[:, 0].tolist()), images)
        return jnp.zeros((len(images), 2)) + params, rest

    data = toy()
    fit(apply, jnp.zeros((1, 2)), {}, jo.sgd(), data, epochs=2, batch_size=5, seed=0)
    jax.effects_barrier()
    first, second = seen[:50], seen[50:]
    expected = sorted(data.train.images[:, 0].tolist())
    assert sorted(first) == sorted(second) == expected
    assert first != second


def test_learning_rate_is_the_last_update_s():
    run = run_toy(jo.adamw(lr=lambda count: 0.1 / (1 + count.astype(jnp.float32))))
    np.testing.assert_allclose([row.lr for row in run.epochs], [0.1 / 6, 0.1 / 12, 0.1 / 18], 1e-6)


def test_given_parameters_stay_valid():
    apply, params, rest = pure(MLP((4, 16, 2), rngs=nnx.Rngs(0)))
    before = jax.tree.map(np.array, params)
    fit(apply, params, rest, jo.sgd(lr=0.1), toy(), epochs=1, batch_size=8, seed=0)
    assert_trees_equal(params, before)


@pytest.mark.parametrize("batch_size", [0, -1, 51])
def test_batch_size_that_does_not_fit(batch_size):
    message = f"expected 1 to 50, the number of images, found {batch_size}"
    with pytest.raises(ValueError, match=message):
        count_steps(toy().train, batch_size)


def test_divergence_is_an_error():
    with pytest.raises(FloatingPointError, match=r"the loss became (nan|inf) at step \d+, in epoch"):
        run_toy(jo.sgd(lr=1e30))
