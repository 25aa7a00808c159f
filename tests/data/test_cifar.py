"""CIFAR-10's binary files, and what is said of broken ones."""

import re

import numpy as np
import pytest

from jaxopt_core.data import CIFAR10_CLASSES, DataFileError, load_cifar10

TRAIN = [f"data_batch_{i}.bin" for i in range(1, 6)]


def write(folder, count=4):
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate([*TRAIN, "test_batch.bin"]):
        records = np.random.default_rng(seed).integers(0, 256, (count, 3073), np.uint8)
        records[:, 0] = np.arange(count) + seed
        (folder / name).write_bytes(records.tobytes())
    return folder


@pytest.mark.parametrize("inside", [".", "cifar-10-batches-bin"])
def test_reads(tmp_path, inside):
    folder = write(tmp_path / inside)
    data = load_cifar10(tmp_path)
    assert data.classes == len(CIFAR10_CLASSES) == 10
    assert data.features == 3072
    assert data.train.images.shape == (20, 32, 32, 3)
    assert data.train.images.dtype == np.uint8
    assert data.train.labels.tolist() == [i + seed for seed in range(5) for i in range(4)]
    assert data.test.labels.tolist() == [5, 6, 7, 8]
    # One pixel by the file's description: green of row 2, column 3, of the second record.
    content = (folder / "data_batch_1.bin").read_bytes()
    assert data.train.images[1, 2, 3, 1] == content[3073 + 1 + 1024 + 2 * 32 + 3]


def test_names_all_missing_files(tmp_path):
    write(tmp_path)
    for name in ("data_batch_2.bin", "test_batch.bin"):
        (tmp_path / name).unlink()
    message = "CIFAR-10's binary files, found 4 of 6 files; missing: data_batch_2.bin, test_batch.bin"
    with pytest.raises(DataFileError, match=re.escape(message)):
        load_cifar10(tmp_path)


def spoil(content, offset, value):
    return content[:offset] + bytes([value]) + content[offset + 1 :]


BROKEN = {
    "cut": (lambda c: c[:-3], "expected records of 3073 bytes, found 3070 bytes at byte 9219"),
    "empty": (lambda c: b"", "expected records of 3073 bytes, found 0 bytes at byte 0"),
    "label": (lambda c: spoil(c, 6146, 77), "expected a label from 0 to 9, found 77 at byte 6146"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken(tmp_path, name):
    change, message = BROKEN[name]
    path = write(tmp_path) / "data_batch_3.bin"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataFileError, match=re.escape(f"{path}: {message}")):
        load_cifar10(tmp_path)
