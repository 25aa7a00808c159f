"""MovieLens's three formats, and generated ratings."""

import re

import numpy as np
import pytest

from jaxopt_core.data import DataFileError, load_movielens, make_low_rank_ratings

ROWS = [(7, 50, 4.5, 881250949), (3, 50, 3.0, 891717742), (7, 9, 0.5, 878887116), (900, 1, 5.0, 880606923)]


def joined(separator, rows=ROWS, end="\n"):
    return "".join(separator.join(map(str, row)) + end for row in rows)


FORMATS = {
    "ratings.csv": "userId,movieId,rating,timestamp\n" + joined(","),
    "ratings.dat": joined("::"),
    "u.data": joined("\t"),
}


ENDS = {"lf": str, "crlf": lambda text: text.replace("\n", "\r\n"), "none": lambda text: text.rstrip("\n")}


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("name", FORMATS)
def test_reads(tmp_path, name, ends):
    (tmp_path / name).write_bytes(ENDS[ends](FORMATS[name]).encode())
    data = load_movielens(tmp_path, test_fraction=0.25)
    assert (data.num_users, data.num_items, data.noise) == (3, 3, None)
    assert len(data.test["ratings"]) == 1
    read = {
        (int(data.user_ids[u]), int(data.item_ids[i]), float(r), int(t))
        for part in (data.train, data.test)
        for u, i, r, t in zip(*part.values(), strict=True)
    }
    assert read == set(ROWS)
    again, other = (load_movielens(tmp_path / name, test_fraction=0.25, seed=s) for s in (0, 3))
    assert again.test["timestamps"] == data.test["timestamps"] != other.test["timestamps"]


BAD = {
    "word": ("7,50,good,1", "'7,50,good,1' at line 3"),
    "field missing": ("7,50,4.5", "'7,50,4.5' at line 3"),
    "empty line": ("", "'' at line 3"),
    "nan": ("7,50,nan,1", "'7,50,nan,1' at line 3"),
    "id": ("7.5,50,3,1", "'7.5,50,3,1' at line 3"),
    "beyond integers": ("1e300,50,3,1", "'1e300,50,3,1' at line 3"),
    "negative": ("-7,50,3,1", "'-7,50,3,1' at line 3"),
}


@pytest.mark.parametrize("name", BAD)
def test_broken_line(tmp_path, name):
    line, found = BAD[name]
    lines = FORMATS["ratings.csv"].splitlines()
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join([*lines[:2], line, *lines[2:]]) + "\n")
    message = f"{path}: expected user, item, rating and timestamp between commas, found {found}"
    with pytest.raises(DataFileError, match=re.escape(message) + "$"):
        load_movielens(path)


@pytest.mark.parametrize("content", ["", "userId,movieId,rating,timestamp\n"])
def test_no_rating(tmp_path, content):
    (tmp_path / "u.data").write_text(content)
    with pytest.raises(DataFileError, match="expected at least one rating, found none"):
        load_movielens(tmp_path)


def test_missing(tmp_path):
    with pytest.raises(DataFileError, match=r"found none of ratings.csv, ratings.dat, u.data"):
        load_movielens(tmp_path)
    with pytest.raises(DataFileError, match="ratings of MovieLens, found no such file"):
        load_movielens(tmp_path / "u.data")
    (tmp_path / "u.data").write_text(FORMATS["u.data"])
    with pytest.raises(ValueError, match="between 0 and 1, got 1"):
        load_movielens(tmp_path, test_fraction=1)


def test_generated_ratings_have_the_rank_and_the_noise_that_they_say():
    data = make_low_rank_ratings(60, 50, rank=2, density=1.0, noise=0.001, seed=5)
    matrix = np.zeros((60, 50))
    for part in (data.train, data.test):
        matrix[part["users"], part["items"]] = part["ratings"]
    assert np.count_nonzero(matrix) == 3000
    # Two factors, two biases and the mean are a matrix of rank 4; what is left is noise.
    values = np.linalg.svd(matrix, compute_uv=False)
    assert values[3] > 10 * values[4]
    assert np.sqrt(np.sum(values[4:] ** 2) / 3000) == pytest.approx(0.001, rel=0.15)


def test_generated_ratings_are_a_function_of_the_seed():
    one, same, other = (make_low_rank_ratings(20, 10, seed=seed).train["ratings"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
