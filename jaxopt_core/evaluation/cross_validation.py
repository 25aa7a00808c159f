"""Cross-validation in which the folds are trained together, as one program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxopt_core.extras import needs_extra

__all__ = ["Folds", "cross_validate", "make_folds"]

Columns = Mapping[str, Any]


class Folds(NamedTuple):
    """Which examples each fold trains on and is judged by, filled up to one length for all.

    Attributes:
        train: int32 of shape ``(folds, examples)``.
        train_mask: bool of the same shape: False for what fills up.
        test: as ``train``; over all folds each example is there once.
        test_mask: as ``train_mask``.
    """

    train: NDArray[np.int32]
    train_mask: NDArray[np.bool_]
    test: NDArray[np.int32]
    test_mask: NDArray[np.bool_]


def make_folds(examples: int, folds: int = 5, *, stratify: Any = None, seed: int = 0) -> Folds:
    """scikit-learn's shuffled ``KFold``, or ``StratifiedKFold``.

    Args:
        examples: how many there are.
        folds: how many parts. Default 5.
        stratify: classes of shape ``(examples,)`` of which each fold shall have its share. Default None.
        seed: of the shuffle. Default 0.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        ValueError: fewer than two folds, or more than examples.

    Example:
        >>> folds = make_folds(5, folds=2)
        >>> folds.test.shape, folds.test_mask.tolist()
        ((2, 3), [[True, True, True], [True, True, False]])
    """
    with needs_extra("train"):
        from sklearn.model_selection import KFold, StratifiedKFold

    kind = KFold if stratify is None else StratifiedKFold
    splitter = kind(folds, shuffle=True, random_state=seed)
    pairs = list(splitter.split(np.empty((examples, 0)), stratify))
    train, train_mask = _fill([train for train, _ in pairs])
    test, test_mask = _fill([test for _, test in pairs])
    return Folds(train, train_mask, test, test_mask)


def cross_validate(
    fit: Callable[[jax.Array, dict[str, jax.Array]], Any],
    score: Callable[[Any, dict[str, jax.Array]], Any],
    columns: Columns,
    *,
    folds: int | Folds = 5,
    seed: int = 0,
    at_once: int | None = None,
) -> dict[str, NDArray[Any]]:
    """Trains a model for each fold on the others, and scores it on the fold.

    All folds are one compiled program: their examples differ, not their shapes.

    Args:
        fit: ``(key, train) -> model``, pure: a dict of arrays with a ``"mask"``, False for what only fills
            up, to any pytree. Usually a ``lax.scan`` over steps.
        score: ``(model, test) -> dict of arrays``: scores, or predictions; the masked examples must
            not count.
        columns: name to array, examples along the first axis.
        folds: how many, or :func:`make_folds`'s. Default 5.
        seed: of the folds, and of the keys that ``fit`` gets. Default 0.
        at_once: how many folds are trained together under ``vmap``; each has a copy of its examples and its
            model. Default None: all. On a CPU a large model may be faster one at a time.

    Returns:
        What ``score`` gives, with a leading axis of the folds.

    Raises:
        ValueError: a column is named ``"mask"``, or they have unequal numbers of examples.

    Example:
        >>> x = np.linspace(0, 1, 20, dtype=np.float32)
        >>> def fit(key, train):
        ...     weight = train["mask"].astype(jnp.float32)
        ...     return (weight * train["x"] * train["y"]).sum() / (weight * train["x"] ** 2).sum()
        >>> def score(slope, test):
        ...     return {"slope": slope, "worst": jnp.max(jnp.abs(slope * test["x"] - test["y"]))}
        >>> scores = cross_validate(fit, score, {"x": x, "y": 3 * x})
        >>> scores["slope"].round(4).tolist()
        [3.0, 3.0, 3.0, 3.0, 3.0]
    """
    if "mask" in columns:
        raise ValueError('the name "mask" is taken: rename the column')
    arrays = {name: jnp.asarray(column) for name, column in columns.items()}
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"expected as many examples in each column, got {counts}")
    if not isinstance(folds, Folds):
        folds = make_folds(next(iter(counts.values())), folds, seed=seed)
    keys = jax.random.split(jax.random.key(seed), len(folds.train))

    @jax.jit
    def run(keys: jax.Array, folds: Folds, arrays: dict[str, jax.Array]) -> Any:
        def one(given: tuple[jax.Array, Folds]) -> Any:
            key, fold = given
            model = fit(key, _rows(arrays, fold.train, fold.train_mask))
            return score(model, _rows(arrays, fold.test, fold.test_mask))

        return jax.lax.map(one, (keys, folds), batch_size=at_once or len(keys))

    return jax.tree.map(np.asarray, run(keys, jax.tree.map(jnp.asarray, folds), arrays))


def _rows(arrays: dict[str, jax.Array], rows: Any, mask: Any) -> dict[str, jax.Array]:
    return {**{name: array[rows] for name, array in arrays.items()}, "mask": mask}


def _fill(parts: list[NDArray[Any]]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    longest = max(map(len, parts))
    rows = np.stack([np.resize(part, longest) for part in parts]).astype(np.int32)
    return rows, np.arange(longest) < np.array([len(part) for part in parts])[:, None]
