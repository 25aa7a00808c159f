"""Ratings of items by users: MovieLens's files, and ratings of low rank with known noise."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxopt_core.data.files import DataFileError, read_bytes

__all__ = ["RatingData", "load_movielens", "make_low_rank_ratings"]

_NAMES = ("ratings.csv", "ratings.dat", "u.data")
_HEADER = b"userId,movieId,rating,timestamp"


class RatingData(NamedTuple):
    """What a recommender is trained and judged on.

    Attributes:
        name: for people to read.
        num_users: users are numbered from 0 to one less.
        num_items: likewise.
        train: ``users`` and ``items``, int32, ``ratings``, float32, and ``timestamps``, int64 in seconds,
            each of shape ``(ratings,)``; as :class:`~jaxopt_core.data.Arrays` takes it.
        test: the same.
        user_ids: int64 of shape ``(num_users,)``: by what number the file knows each user.
        item_ids: int64 of shape ``(num_items,)``, likewise.
        noise: standard deviation of the noise in the ratings, which no model's error falls below for
            long; known of generated ratings only.
    """

    name: str
    num_users: int
    num_items: int
    train: dict[str, NDArray[Any]]
    test: dict[str, NDArray[Any]]
    user_ids: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    noise: float | None = None


def load_movielens(path: str | os.PathLike[str], *, test_fraction: float = 0.1, seed: int = 0) -> RatingData:
    r"""Reads the ratings of any MovieLens release.

    Args:
        path: ``ratings.csv`` (20M, 25M, 32M, latest), ``ratings.dat`` (1M, 10M), ``u.data`` (100K), or the
            folder that holds one of them. Told apart by content.
        test_fraction: share of the ratings that is set apart at random. Default 0.1.
        seed: of the choice. Default 0.

    Raises:
        DataFileError: no such file, or a line is no rating: it says which and why.
        ValueError: ``test_fraction`` is not between 0 and 1.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "u.data"
        >>> _ = path.write_text("196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
        >>> data = load_movielens(path, test_fraction=0.5)
        >>> data.num_users, data.user_ids, len(data.train["ratings"])
        (2, array([186, 196]), 1)
    """
    path = Path(path)
    if path.is_dir():
        there = [path / name for name in _NAMES if (path / name).is_file()]
        if not there:
            missing = f"none of {', '.join(_NAMES)}"
            raise DataFileError(path, expected="ratings of MovieLens", found=missing)
        path = there[0]
    table = _parse(path, read_bytes(path, what="ratings of MovieLens"))
    user_ids, users = np.unique(table[:, 0].astype(np.int64), return_inverse=True)
    item_ids, items = np.unique(table[:, 1].astype(np.int64), return_inverse=True)
    columns: dict[str, NDArray[Any]] = {
        "users": users.astype(np.int32),
        "items": items.astype(np.int32),
        "ratings": table[:, 2].astype(np.float32),
        "timestamps": table[:, 3].astype(np.int64),
    }
    train, test = _split(columns, test_fraction, np.random.default_rng(seed))
    return RatingData(f"MovieLens in {path}", len(user_ids), len(item_ids), train, test, user_ids, item_ids)


def make_low_rank_ratings(
    num_users: int = 600,
    num_items: int = 400,
    *,
    rank: int = 4,
    density: float = 0.5,
    noise: float = 0.3,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> RatingData:
    """Ratings around 3.5 that are a matrix of low rank, plus biases, plus noise.

    ``rating = 3.5 + b_u + b_i + p_u . q_i + noise * n`` with normal ``n``, factors of which the product has
    variance 0.5, and biases of standard deviation 0.3. They are neither rounded nor clipped, so ``noise`` is
    the root mean square error of the best predictor.

    Args:
        num_users: rows of the matrix. Default 600.
        num_items: columns. Default 400.
        rank: length of the factors. Default 4.
        density: share of the matrix that is rated. Default 0.5.
        noise: standard deviation. Default 0.3.
        test_fraction: share of the ratings that is set apart. Default 0.1.
        seed: of all of it. Default 0.

    Example:
        >>> data = make_low_rank_ratings()
        >>> len(data.train["ratings"]), len(data.test["ratings"]), data.noise
        (108000, 12000, 0.3)
    """
    random = np.random.default_rng(seed)
    scale = (0.5 / rank) ** 0.25
    p, q = (scale * random.normal(size=(count, rank)) for count in (num_users, num_items))
    user_bias, item_bias = (0.3 * random.normal(size=count) for count in (num_users, num_items))
    cells = random.choice(num_users * num_items, round(density * num_users * num_items), replace=False)
    users, items = np.divmod(cells, num_items)
    mean = 3.5 + user_bias[users] + item_bias[items] + np.sum(p[users] * q[items], axis=1)
    columns: dict[str, NDArray[Any]] = {
        "users": users.astype(np.int32),
        "items": items.astype(np.int32),
        "ratings": (mean + noise * random.normal(size=len(cells))).astype(np.float32),
        "timestamps": np.arange(len(cells)),
    }
    train, test = _split(columns, test_fraction, random)
    name = f"ratings of rank {rank} with noise {noise}"
    return RatingData(
        name, num_users, num_items, train, test, np.arange(num_users), np.arange(num_items), noise
    )


def _split(columns: dict[str, NDArray[Any]], test_fraction: float, random: np.random.Generator) -> Any:
    if not 0 < test_fraction < 1:
        raise ValueError(f"expected a test_fraction between 0 and 1, got {test_fraction}")
    count = len(columns["ratings"])
    chosen = random.permutation(count)
    # In the order of the file, so that an unshuffled reader sees it.
    test, train = (np.sort(part) for part in np.split(chosen, [round(test_fraction * count)]))
    return tuple({name: column[rows] for name, column in columns.items()} for rows in (train, test))


def _parse(path: Path, content: bytes) -> NDArray[np.float64]:
    content = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    first = content.partition(b"\n")[0]
    skipped = int(first == _HEADER)
    if b"::" in first:  # NumPy wants one character between fields
        content = content.replace(b"::", b"\t")
    delimiter = b"\t" if b"\t" in content[:200] else b","
    count = content.count(b"\n") + (not content.endswith(b"\n")) - skipped
    if not content or count < 1:
        raise DataFileError(path, expected="at least one rating", found="none")
    try:
        table = np.loadtxt(
            io.BytesIO(content), delimiter=delimiter.decode(), skiprows=skipped, ndmin=2, comments=None
        )
    except ValueError:
        table = np.empty((0, 0))
    if table.shape != (count, 4) or not _is_rating(table).all():
        raise _first_fault(path, content.split(b"\n"), delimiter, skipped)
    return table


def _first_fault(path: Path, lines: list[bytes], delimiter: bytes, skipped: int) -> DataFileError:
    number, line = 1 + skipped, b""
    for number, line in enumerate(lines[skipped:], 1 + skipped):  # noqa: B007 - the fault is where it stops
        try:
            fields = [float(field) for field in line.split(delimiter)]
        except ValueError:
            fields = []
        if len(fields) != 4 or not _is_rating(np.array([fields]))[0]:
            break
    between = {b",": "commas", b"\t": "tabs or ::"}[delimiter]
    return DataFileError(
        path,
        expected=f"user, item, rating and timestamp between {between}",
        found=repr(line[:60].decode("latin-1")),
        at=f"line {number}",
    )


def _is_rating(table: NDArray[np.float64]) -> NDArray[np.bool_]:
    whole = table[:, [0, 1, 3]]
    # Larger numbers were rounded by float64.
    is_whole = (whole == np.round(whole)) & (whole >= 0) & (whole < 2**53)
    return np.isfinite(table[:, 2]) & is_whole.all(axis=1)
