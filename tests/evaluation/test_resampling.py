"""Confidence intervals hold what they promise, and folds trained together are those trained one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets, linear_model, metrics, model_selection

from jaxopt_core.evaluation import confidence_interval, cross_validate, make_folds


def test_interval_is_the_percentiles_of_resampled_scores():
    values = np.random.default_rng(0).exponential(size=60)
    found = confidence_interval(np.mean, values, resamples=400, level=0.9, seed=3)
    random = np.random.default_rng(3)
    means = [values[random.integers(0, 60, 60)].mean() for _ in range(400)]
    assert found.value == values.mean()
    np.testing.assert_allclose([found.low, found.high], np.quantile(means, [0.05, 0.95]), rtol=1e-12)
    assert str(found) == f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"


def test_interval_of_a_metric_draws_columns_together():
    targets = np.random.default_rng(1).integers(0, 2, 300)
    scores = targets + np.random.default_rng(2).normal(size=300)
    found = confidence_interval(metrics.roc_auc_score, targets, scores, resamples=50)
    assert found.value == metrics.roc_auc_score(targets, scores)
    assert found.low < found.value < found.high
    same, other = (
        confidence_interval(metrics.roc_auc_score, targets, scores, resamples=50, seed=seed)
        for seed in (0, 1)
    )
    assert same == found != other


@pytest.mark.parametrize("method", ["percentile", "basic", "bca"])
def test_interval_holds_the_truth_as_often_as_it_says(method):
    random = np.random.default_rng(0)
    held = 0
    for seed in range(60):
        low, high = confidence_interval(
            np.mean, random.normal(size=80), level=0.8, resamples=150, method=method, seed=seed
        )[1:]
        held += low <= 0 <= high
    assert 38 <= held <= 57  # 48 expected, three standard deviations


@pytest.mark.parametrize(
    ("columns", "kwargs", "message"),
    [
        (([1.0],), {}, r"at least two, got \[1\]"),
        (([1.0, 2.0], [1.0]), {}, r"as many examples each, at least two, got \[1, 2\]"),
        (([1.0, 2.0],), {"level": 95}, "level between 0 and 1, got 95"),
    ],
)
def test_interval_refuses(columns, kwargs, message):
    with pytest.raises(ValueError, match=message):
        confidence_interval(lambda *c: 0.0, *columns, **kwargs)


@pytest.mark.parametrize("stratified", [False, True])
def test_folds_are_scikit_learns(stratified):
    classes = np.arange(23) % 3
    folds = make_folds(23, 4, stratify=classes if stratified else None, seed=7)
    kind = model_selection.StratifiedKFold if stratified else model_selection.KFold
    expected = kind(4, shuffle=True, random_state=7).split(np.zeros(23), classes)
    for i, (train, test) in enumerate(expected):
        np.testing.assert_array_equal(folds.train[i][folds.train_mask[i]], train)
        np.testing.assert_array_equal(folds.test[i][folds.test_mask[i]], test)
    with pytest.raises(ValueError, match="n_splits=1"):
        make_folds(23, 1)


def ridge_fit(key, train):
    del key
    weight = train["mask"].astype(jnp.float32)[:, None]
    x = jnp.concatenate([train["x"], jnp.ones((len(train["x"]), 1))], axis=1)
    return jnp.linalg.solve(
        (weight * x).T @ x + jnp.diag(jnp.array([1e-2] * 10 + [0.0])), (weight * x).T @ train["y"]
    )


def ridge_score(model, test):
    predicted = test["x"] @ model[:-1] + model[-1]
    square = jnp.mean((predicted - test["y"]) ** 2, where=test["mask"])
    return {"mse": square, "predicted": predicted}


@pytest.mark.parametrize("at_once", [None, 2, 1])
def test_cross_validation_is_scikit_learns(at_once):
    x, y = datasets.load_diabetes(return_X_y=True)
    x, y = (10 * x[:101]).astype(np.float32), (y[:101] / 100).astype(np.float32)
    folds = make_folds(101, 5, seed=2)
    found = cross_validate(ridge_fit, ridge_score, {"x": x, "y": y}, folds=folds, at_once=at_once)
    expected = -model_selection.cross_val_score(
        linear_model.Ridge(alpha=1e-2),
        x,
        y,
        cv=model_selection.KFold(5, shuffle=True, random_state=2),
        scoring="neg_mean_squared_error",
    )
    np.testing.assert_allclose(found["mse"], expected, rtol=2e-4)
    assert found["predicted"].shape == (5, 21)


def test_each_fold_has_a_key_of_its_own():
    found = cross_validate(
        lambda key, train: jax.random.uniform(key),
        lambda model, test: {"key": model},
        {"x": np.arange(9)},
        folds=3,
    )
    assert len(set(found["key"].tolist())) == 3


def test_cross_validation_refuses():
    with pytest.raises(ValueError, match='name "mask" is taken'):
        cross_validate(ridge_fit, ridge_score, {"mask": np.ones(3)})
    with pytest.raises(ValueError, match=r"each column, got {'x': 3, 'y': 4}"):
        cross_validate(ridge_fit, ridge_score, {"x": np.ones(3), "y": np.ones(4)})
