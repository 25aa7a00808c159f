"""MNIST, and what is packed as MNIST is, from its four IDX files."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxopt_core.data.dataset import Dataset, Split
from jaxopt_core.data.files import DataFileError, find_files
from jaxopt_core.data.idx import read_idx

_CLASSES = 10
_NDIM = {"images": 3, "labels": 1}
_SPLITS = ("train", "t10k")
_LARGEST_PIXEL = np.float32(255)


def load_mnist(directory: str | os.PathLike[str]) -> Dataset:
    """Reads ``train`` and ``t10k`` images and labels from a folder.

    The files may be gzipped, and be named as published (``train-images-idx3-ubyte``) or as some
    archives unpack them (``train-images.idx3-ubyte``). Fashion-MNIST and KMNIST are packed the same
    way. Images may be of any size, the same in both splits.

    Args:
        directory: the folder that holds the four files.

    Returns:
        Ten classes; 784 features for MNIST. Images are scaled to [0, 1], without standardisation.

    Raises:
        DataFileError: a file is missing or is not what it should be: the message names it.
    """
    wanted = {f"{prefix} {kind}": _names(prefix, kind) for prefix in _SPLITS for kind in _NDIM}
    paths = find_files(directory, wanted, what="MNIST's IDX files")
    (train, train_pixels), (test, test_pixels) = (_read_split(paths, prefix) for prefix in _SPLITS)
    if test_pixels != train_pixels:
        raise DataFileError(
            paths["t10k images"],
            expected=f"images of {_size(train_pixels)} pixels as in the training set",
            found=_size(test_pixels),
        )
    return Dataset(name=f"MNIST in {Path(directory)}", classes=_CLASSES, train=train, test=test)


def _read_split(paths: Mapping[str, Path], prefix: str) -> tuple[Split, tuple[int, ...]]:
    images_path, labels_path = paths[f"{prefix} images"], paths[f"{prefix} labels"]
    images = _read_bytes(images_path, ndim=3)
    labels = _read_bytes(labels_path, ndim=1)
    if images.size == 0:
        raise DataFileError(images_path, expected="at least one image", found=f"shape {images.shape}")
    if len(labels) != len(images):
        raise DataFileError(
            labels_path,
            expected=f"{len(images)} labels, one for each image in {images_path.name}",
            found=str(len(labels)),
        )
    if labels.max() >= _CLASSES:
        first = int(np.argmax(labels >= _CLASSES))
        raise DataFileError(
            labels_path,
            expected=f"labels from 0 to {_CLASSES - 1}",
            found=str(labels[first]),
            at=f"index {first}",
        )
    pixels = images.reshape(len(images), -1).astype(np.float32) / _LARGEST_PIXEL
    return Split(pixels, labels.astype(np.int32)), images.shape[1:]


def _names(prefix: str, kind: str) -> list[str]:
    """As published, and as some archives unpack them."""
    ndim = _NDIM[kind]
    names = f"{prefix}-{kind}-idx{ndim}-ubyte", f"{prefix}-{kind}.idx{ndim}-ubyte"
    return [name + suffix for name in names for suffix in ("", ".gz")]


def _read_bytes(path: Path, ndim: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    array = read_idx(path)
    if array.ndim != ndim or array.dtype != np.uint8:
        raise DataFileError(
            path,
            expected=f"unsigned bytes in {ndim} dimensions (first bytes 00 00 08 {ndim:02x})",
            found=f"{array.dtype} in {array.ndim}",
        )
    return array


def _size(pixels: tuple[int, ...]) -> str:
    return "x".join(map(str, pixels))
