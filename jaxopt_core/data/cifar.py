"""CIFAR-10 from its binary version.

Records of 3073 bytes: the class, then 1024 bytes each of red, green and blue, row by row. Described on
Krizhevsky's page, "The CIFAR-10 dataset", under "Binary version".
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from jaxopt_core.data.dataset import Dataset, Split
from jaxopt_core.data.files import DataFileError, find_files, read_bytes

__all__ = ["CIFAR10_CLASSES", "load_cifar10"]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""Names of the classes, in the order of the labels."""

_RECORD = 1 + 3 * 32 * 32
_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_TEST = "test_batch.bin"


def load_cifar10(directory: str | os.PathLike[str]) -> Dataset:
    """Reads CIFAR-10: 50000 images of 32x32 pixels to train on, 10000 to test on.

    Args:
        directory: the folder that holds ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``,
            or the one in which the archive was unpacked, with ``cifar-10-batches-bin`` in it.

    Returns:
        Ten classes; images are uint8 of shape ``(examples, 32, 32, 3)``, which is JAX's order of axes
        where torchvision's tensors have channels first.

    Raises:
        DataFileError: files are missing (it names all), a record is cut off or a label is none; it says
            which file, and at which byte.
    """
    folder = Path(directory)
    unpacked = folder / "cifar-10-batches-bin"
    folder = unpacked if unpacked.is_dir() else folder
    paths = find_files(folder, {name: [name] for name in (*_TRAIN, _TEST)}, what="CIFAR-10's binary files")
    batches = [_read(paths[name]) for name in _TRAIN]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    train = Split(images, labels)
    return Dataset(f"CIFAR-10 in {folder}", len(CIFAR10_CLASSES), train, _read(paths[_TEST]))


def _read(path: Path) -> Split:
    content = np.frombuffer(read_bytes(path, what="records of CIFAR-10"), np.uint8)
    whole = len(content) // _RECORD
    if len(content) != whole * _RECORD or not whole:
        raise DataFileError(
            path,
            expected=f"records of {_RECORD} bytes",
            found=f"{len(content) - whole * _RECORD} bytes",
            at=f"byte {whole * _RECORD}",
        )
    records = content.reshape(whole, _RECORD)
    labels = records[:, 0].astype(np.int32)
    if labels.max() >= len(CIFAR10_CLASSES):
        first = int(np.argmax(labels >= len(CIFAR10_CLASSES)))
        raise DataFileError(
            path, expected="a label from 0 to 9", found=str(labels[first]), at=f"byte {first * _RECORD}"
        )
    images = records[:, 1:].reshape(whole, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), labels)
