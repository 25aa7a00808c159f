import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_core as jo
from jaxopt_core.tuning import Float, Space, cross_validate, find_batch_size, lr_finder, random_search
from jaxopt_core.tuning.memory import program_bytes
from tests.tuning.problems import loss_fn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(53, 3)).astype(np.float32)
DATA = {"x": X, "y": X @ np.float32([1, -2, 3]) + 0.1 * RNG.normal(size=53).astype(np.float32)}


def ridge(config, train, valid):
    w = jnp.linalg.solve(
        train["x"].T @ train["x"] + config["penalty"] * jnp.eye(3), train["x"].T @ train["y"]
    )
    return jnp.mean((valid["x"] @ w - valid["y"]) ** 2)


def test_cross_validation_is_what_a_loop_over_folds_gives():
    configs = [{"penalty": penalty} for penalty in (0.01, 1.0, 100.0)]
    found = cross_validate(ridge, configs, DATA, folds=5, seed=3)
    order = np.random.default_rng(3).permutation(53)[:50].reshape(5, 10)
    for i, config in enumerate(configs):
        for fold in range(5):
            train = {k: v[np.delete(order, fold, 0).ravel()].astype(np.float64) for k, v in DATA.items()}
            gram = train["x"].T @ train["x"] + config["penalty"] * np.eye(3)
            error = (
                DATA["x"][order[fold]] @ np.linalg.solve(gram, train["x"].T @ train["y"])
                - DATA["y"][order[fold]]
            )
            assert found.values[i, fold] == pytest.approx(np.mean(error**2), rel=1e-3)
    assert found.best == {"penalty": 0.01}
    np.testing.assert_allclose(found.errors, found.values.std(axis=1, ddof=1) / np.sqrt(5))
    assert found.sweep.programs == 1
    with pytest.raises(ValueError, match="folds: expected 2 to 53, the number of examples, got 54"):
        cross_validate(ridge, configs, DATA, folds=54)


def test_random_search_is_the_same_again():
    space = Space({"x": Float(-1.0, 1.0)})
    first, second = (random_search(lambda c: c["x"] ** 2, space, trials=20, seed=5) for _ in range(2))
    assert [t.config for t in first.trials] == [t.config for t in second.trials]
    assert len({t.config["x"] for t in first.trials}) == 20


def mse(params, batch):
    return loss_fn(params, {}, batch, None)[0]


def test_the_range_test_stops_where_sgd_diverges(tmp_path):
    found = lr_finder(mse, jnp.zeros(3), lambda lr: jo.sgd(lr=lr), DATA, low=1e-4, high=1e3, stop=2.0)
    # Beyond 2 over the largest eigenvalue of the Hessian, about 2 x'x / n, a step makes the loss larger.
    largest = np.linalg.eigvalsh(2 * X.T @ X / len(X)).max()
    assert len(found.rates) < 200
    assert found.rates[-1] > 2 / largest
    assert 1e-3 < found.suggestion < 2 / largest
    found.plot(tmp_path / "lr.png")
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")


def test_the_range_test_keeps_the_momentum_and_has_no_suggestion_where_nothing_falls():
    flat = lr_finder(
        lambda w, batch: 0 * w.sum() + 1.0, jnp.zeros(3), lambda lr: jo.sgd(lr=lr), DATA, steps=50
    )
    assert flat.suggestion is None
    slow = lr_finder(mse, jnp.zeros(3), lambda lr: jo.sgd(lr=lr), DATA, low=1e-4, high=1e-3)
    fast = lr_finder(mse, jnp.zeros(3), lambda lr: jo.sgd(lr=lr, momentum=0.9), DATA, low=1e-4, high=1e-3)
    assert fast.smoothed[-1] < 0.5 * slow.smoothed[-1]
    with pytest.raises(ValueError, match="expected 0 < low < high"):
        lr_finder(mse, jnp.zeros(3), lambda lr: jo.sgd(lr=lr), DATA, low=0.0)


def test_the_largest_batch_is_within_a_sixteenth_of_the_limit():
    def step(w, x):
        return jax.grad(lambda w: jnp.sum(jnp.tanh(x @ w) ** 2))(w)

    def shapes(size):
        return jax.ShapeDtypeStruct((32, 256), jnp.float32), jax.ShapeDtypeStruct((size, 32), jnp.float32)

    found = find_batch_size(step, shapes, memory=1 << 20)
    over = found.size + max(1, found.size // 16) + 1
    assert found.needed <= 1 << 20 < program_bytes(jax.jit(step).lower(*shapes(over)).compile())
    assert find_batch_size(step, shapes, memory=1 << 30, most=10).size == 10
    with pytest.raises(ValueError, match=r"one example needs 0.1 MiB; 0.0 MiB are allowed"):
        find_batch_size(step, shapes, memory=100)
