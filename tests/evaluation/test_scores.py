"""Every score against scikit-learn's on the same predictions, in batches with padding."""

import math
from fractions import Fraction
from functools import cache
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from jaxopt_core.evaluation import (
    Confusion,
    ErrorRate,
    Perplexity,
    Ranking,
    SquaredError,
    collect,
    ctc_greedy,
    edit_distance,
    roc_auc,
    roc_curves,
)

RANDOM = np.random.default_rng(0)
N, CLASSES = 203, 5
TARGETS = RANDOM.choice(CLASSES, N, p=[0.4, 0.3, 0.2, 0.1, 0.0])  # class 4 never occurs
SCORES = RANDOM.normal(size=(N, CLASSES)).astype(np.float32) + 2 * np.eye(CLASSES, dtype=np.float32)[TARGETS]
SCORES[:, 3] -= 10  # and class 3 is never predicted


def padded(*columns, size=32):
    """Batches of one size, of which the last is filled up with nonsense that the mask hides."""
    count = len(columns[0])
    for start in range(0, count, size):
        rows = np.arange(start, start + size)
        yield tuple(column[rows % count] for column in columns), rows < count


def test_confusion():
    confusion = Confusion(CLASSES)
    for (targets, scores), mask in padded(TARGETS, SCORES):
        confusion.add(targets, scores, mask)
    predicted = SCORES.argmax(axis=1)
    labels = range(CLASSES)
    np.testing.assert_array_equal(
        confusion.counts, metrics.confusion_matrix(TARGETS, predicted, labels=labels)
    )
    assert confusion.accuracy == metrics.accuracy_score(TARGETS, predicted)
    for average in ("macro", "micro", "weighted", None):
        kwargs = {"average": average, "labels": labels, "zero_division": 0}
        for ours, theirs in (
            (confusion.precision, metrics.precision_score),
            (confusion.recall, metrics.recall_score),
            (confusion.f1, metrics.f1_score),
        ):
            np.testing.assert_allclose(ours(average), theirs(TARGETS, predicted, **kwargs), rtol=1e-14)


def test_confusion_of_tokens_and_of_two_processes():
    tokens, guesses = RANDOM.integers(0, 3, (2, 4, 7))
    mask = np.arange(7) < np.array([7, 3, 0, 5])[:, None]
    whole, first, second = Confusion(3), Confusion(3), Confusion(3)
    whole.add(tokens, guesses, mask)
    first.add(tokens[:2], guesses[:2], mask[:2])
    second.add(tokens[2:], guesses[2:], mask[2:])
    first.merge(second)
    assert whole.counts.sum() == 15
    np.testing.assert_array_equal(first.counts, whole.counts)
    assert whole.accuracy == np.mean(tokens[mask] == guesses[mask])
    assert math.isnan(Confusion(3).accuracy)


REFUSED = {
    "class": (lambda: Confusion(3).add([3], [0]), ValueError, "targets from 0 to 2, got 3 to 3"),
    "negative": (lambda: Confusion(3).add([0], [-1]), ValueError, "predictions from 0 to 2, got -1"),
    "floats": (lambda: Confusion(3).add([0.0], [0]), TypeError, "targets to be integers, got float64"),
    "shapes": (lambda: Confusion(3).add([0, 1], [0]), ValueError, r"got \(1,\) and \(2,\)"),
    "mask": (lambda: Confusion(3).add([0], [0], [True, False]), ValueError, "expected a mask"),
    "average": (lambda: Confusion(3).f1("binary"), ValueError, "or None, got 'binary'"),
    "none": (lambda: Confusion(0), ValueError, "at least one class, got 0"),
    "one class": (lambda: roc_auc([1, 1], [0.2, 0.3]), ValueError, r"two classes .* found \[1\]"),
    "roc shapes": (lambda: roc_auc([1, 0], [0.2]), ValueError, "expected targets"),
    "numbers": (lambda: SquaredError().add([1.0], [[1.0]]), ValueError, "the targets' shape"),
    "k": (lambda: Ranking(0), ValueError, "k of at least 1, got 0"),
    "items": (lambda: Ranking().add([[1]], [[1.0]]), ValueError, "at least two items"),
    "other k": (lambda: Ranking(2).merge(Ranking(3)), ValueError, "scores at k=2, got k=3"),
    "no batch": (lambda: collect(lambda batch: batch, []), ValueError, "at least one batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


def test_roc_of_classes():
    shift = SCORES.max(axis=1, keepdims=True)
    probabilities = np.exp(SCORES - shift) / np.exp(SCORES - shift).sum(axis=1, keepdims=True)
    curves = roc_curves(TARGETS, probabilities, names="abcde")
    assert [curve.name for curve in curves] == ["a", "b", "c", "d"]
    kept = probabilities[:, :4] / probabilities[:, :4].sum(axis=1, keepdims=True)
    for i, curve in enumerate(curves):
        assert curve.auc == metrics.roc_auc_score(i == TARGETS, probabilities[:, i])
    expected = metrics.roc_auc_score(TARGETS, kept, multi_class="ovr")
    assert roc_auc(TARGETS, kept) == pytest.approx(expected, rel=1e-14)


def test_roc_of_two():
    targets = TARGETS > 0
    (curve,) = roc_curves(targets.astype(int), SCORES[:, 1])
    false_positives, true_positives, _ = metrics.roc_curve(targets, SCORES[:, 1])
    np.testing.assert_array_equal(curve.false_positives, false_positives)
    np.testing.assert_array_equal(curve.true_positives, true_positives)
    assert curve.auc == metrics.roc_auc_score(targets, SCORES[:, 1])


def test_squared_error():
    truth, guess = RANDOM.normal(size=(2, N)).astype(np.float32) + 1000
    error, half, other = SquaredError(), SquaredError(), SquaredError()
    for (targets, predicted), mask in padded(truth, guess):
        error.add(targets, predicted, mask)
    half.add(truth[:50], guess[:50])
    other.add(truth[50:], guess[50:])
    half.merge(other)
    exact = truth.astype(np.float64), guess.astype(np.float64)
    assert error.rmse == pytest.approx(metrics.root_mean_squared_error(*exact), rel=1e-13)
    assert error.mae == pytest.approx(metrics.mean_absolute_error(*exact), rel=1e-13)
    assert (half.rmse, half.mae) == pytest.approx((error.rmse, error.mae), rel=1e-13)
    assert math.isnan(SquaredError().rmse)
    assert math.isnan(SquaredError().mae)


def test_perplexity():
    shifted = SCORES.astype(np.float64)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    losses = -log_probs[np.arange(N), TARGETS]
    score, half, other = Perplexity(), Perplexity(), Perplexity()
    for (part,), mask in padded(losses):
        score.add(part, mask)
    half.add(losses[:7])
    other.add(losses[7:])
    half.merge(other)
    expected = metrics.log_loss(TARGETS, np.exp(log_probs), labels=range(CLASSES))
    assert score.perplexity == pytest.approx(math.exp(expected), rel=1e-12)
    assert score.bits_per_token == pytest.approx(expected / math.log(2), rel=1e-12)
    assert score.bits_per_byte(2 * N) == pytest.approx(score.bits_per_token / 2, rel=1e-12)
    assert half.perplexity == pytest.approx(score.perplexity, rel=1e-13)
    assert math.isnan(Perplexity().perplexity)
    assert math.isnan(Perplexity().bits_per_token)


@pytest.mark.parametrize("k", [1, 3, 10, 50])
def test_ranking(k):
    relevance = RANDOM.random((N, 20)) < 0.1
    scores = RANDOM.normal(size=(N, 20))
    scores[::3] = np.round(scores[::3])  # with ties
    ranking, half = Ranking(k), Ranking(k)
    for (rows, values), mask in padded(relevance, scores):
        ranking.add(rows, values, mask)
        half.add(rows, values, mask)
    half.merge(ranking)
    expected = metrics.ndcg_score(relevance, scores, k=k)
    assert ranking.ndcg == pytest.approx(expected, rel=1e-12)
    assert (half.ndcg, half.hit_rate) == pytest.approx((ranking.ndcg, ranking.hit_rate), rel=1e-12)
    assert math.isnan(Ranking().ndcg)
    assert math.isnan(Ranking().hit_rate)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_hit_rate_is_top_k_accuracy(k):
    ranking = Ranking(k)
    ranking.add(np.eye(CLASSES)[TARGETS], SCORES)
    expected = metrics.top_k_accuracy_score(TARGETS, SCORES, k=min(k, 4), labels=range(CLASSES))
    assert ranking.hit_rate == pytest.approx(1.0 if k == 5 else expected, rel=1e-12)


def test_hit_rate_is_the_mean_over_orders_of_equal_scores():
    scores, relevant = np.array([2.0, 1, 1, 1, 0, 0]), np.array([0, 0, 1, 1, 0, 1])
    for k in range(1, 7):
        orders = [order for order in permutations(range(6)) if np.all(np.diff(scores[list(order)]) <= 0)]
        hits = [relevant[list(order[:k])].any() for order in orders]
        ranking = Ranking(k)
        ranking.add([relevant], [scores])
        assert ranking.hit_rate == pytest.approx(float(Fraction(sum(map(int, hits)), len(hits))), rel=1e-12)


def test_items_that_are_not_offered():
    ranking = Ranking(2)
    ranking.add([[0, 0, 1, 0]], [[-np.inf, -np.inf, 1.0, 2.0]])
    assert ranking.hit_rate == 1
    assert ranking.ndcg == pytest.approx(1 / math.log2(3))


def recursive_distance(a, b):
    @cache
    def distance(i, j):
        if not i or not j:
            return i + j
        same = distance(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        return min(same, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(a), len(b))


@given(st.text("abc", max_size=9), st.text("abc", max_size=9))
@settings(deadline=None, max_examples=200)
def test_edit_distance_is_the_recursive_definition(a, b):
    assert edit_distance(a, b) == recursive_distance(a, b) == edit_distance(list(b), list(a))


def test_error_rate():
    rate, half = ErrorRate(), ErrorRate()
    rate.add([[1, 2, 3], [4]], [[1, 3], [4, 4, 4]], mask=[True, True])
    half.add(["ab", "x"], ["ab", "yyyyy"], mask=[True, False])
    assert rate.value == 3 / 4
    rate.merge(half)
    assert rate.value == 3 / 6
    assert math.isnan(ErrorRate().value)
    with pytest.raises(ValueError, match="shorter"):
        rate.add(["a", "b"], ["a"])


def test_ctc_greedy():
    frames = np.array([[0, 3, 3, 0, 3, 1, 1, 2], [2, 2, 2, 2, 0, 0, 0, 0], [1, 0, 1, 0, 1, 0, 1, 0]])
    log_probs = np.log(np.eye(4)[frames.T] + 0.01)
    assert ctc_greedy(log_probs, [8, 3, 0]) == [[3, 3, 1, 2], [2], []]
    assert ctc_greedy(log_probs, [8, 8, 5], blank=1) == [[0, 3, 0, 3, 2], [2, 0], [0, 0]]


def test_collect_keeps_order_and_drops_padding():
    batches = [{"x": x, "y": y, "mask": mask} for (x, y), mask in padded(SCORES, TARGETS)]
    found = collect(lambda batch: {"sum": batch["x"].sum(axis=1), "x": batch["x"]}, batches, keep=["y"])
    np.testing.assert_array_equal(found["x"], SCORES)
    np.testing.assert_array_equal(found["y"], TARGETS)
    assert found["sum"].shape == (N,)
