"""The four files of MNIST as a data set."""

import re

import numpy as np
import pytest

from jaxopt_core.data import DataFileError, load_mnist
from tests.data.mnist_files import write_idx, write_mnist


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
def test_reads_four_files(tmp_path, compress):
    write_mnist(tmp_path, compress=compress)
    data = load_mnist(tmp_path)
    assert (data.classes, data.features) == (10, 36)
    assert data.train.images.shape == (40, 36)
    assert data.test.images.shape == (20, 36)
    assert data.train.images.dtype == np.float32
    assert data.train.labels.dtype == np.int32
    assert 0 <= data.train.images.min() < 0.1
    assert 0.9 < data.train.images.max() <= 1
    bright_row = data.test.images.reshape(20, 6, 6).mean(axis=2).argmax(axis=1)
    np.testing.assert_array_equal(bright_row, data.test.labels)


def test_reads_the_other_spelling_of_the_names(tmp_path):
    write_mnist(tmp_path)
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / path.name.replace("-idx", ".idx"))
    assert len(load_mnist(tmp_path).train.labels) == 40


def labels_of(*values):
    return np.array(values, np.uint8)


REPLACED = {
    "fewer labels": (
        "train-labels-idx1-ubyte",
        labels_of(0, 1, 2),
        "expected 40 labels, one for each image in train-images-idx3-ubyte, found 3",
    ),
    "label out of range": (
        "t10k-labels-idx1-ubyte",
        labels_of(*[0] * 7, 10, *[255] * 12),
        "expected labels from 0 to 9, found 10 at index 7",
    ),
    "labels in the place of images": (
        "train-images-idx3-ubyte",
        labels_of(*range(10)),
        "expected unsigned bytes in 3 dimensions (first bytes 00 00 08 03), found uint8 in 1",
    ),
    "no images": (
        "train-images-idx3-ubyte",
        np.zeros((0, 6, 6), np.uint8),
        "expected at least one image, found shape (0, 6, 6)",
    ),
    "another size in the test images": (
        "t10k-images-idx3-ubyte",
        np.zeros((20, 5, 6), np.uint8),
        "expected images of 6x6 pixels as in the training set, found 5x6",
    ),
}


@pytest.mark.parametrize("case", REPLACED)
def test_files_that_do_not_fit(tmp_path, case):
    name, array, message = REPLACED[case]
    write_mnist(tmp_path)
    write_idx(tmp_path / name, array)
    with pytest.raises(DataFileError, match=re.escape(f"{tmp_path / name}: {message}")):
        load_mnist(tmp_path)


@pytest.mark.parametrize("kept", [["train-images-idx3-ubyte"], ["t10k-labels-idx1-ubyte"], []])
def test_names_all_missing_files(tmp_path, kept):
    write_mnist(tmp_path)
    names = [
        f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    ]
    missing = [name for name in names if name not in kept]
    for name in missing:
        (tmp_path / name).unlink()
    message = f"{tmp_path}: expected MNIST's IDX files, found {len(kept)} of 4 files; missing: "
    with pytest.raises(DataFileError, match=re.escape(message + ", ".join(missing)) + "$"):
        load_mnist(tmp_path)


def test_missing_folder(tmp_path):
    with pytest.raises(DataFileError, match="IDX files, found no such folder"):
        load_mnist(tmp_path / "absent")


def test_file_in_the_place_of_the_folder(tmp_path):
    write_mnist(tmp_path)
    with pytest.raises(DataFileError, match="IDX files, found a file"):
        load_mnist(tmp_path / "train-images-idx3-ubyte")
