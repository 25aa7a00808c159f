"""Small sets of MNIST's four files, for the tests that read them."""

import gzip
import struct
from pathlib import Path

import numpy as np


def write_idx(path: Path, array: np.ndarray, compress: bool = False) -> None:
    """Writes unsigned bytes as IDX."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if compress else content)


def write_mnist(folder: Path, train: int = 40, test: int = 20, size: int = 6, compress: bool = False) -> None:
    """Writes images whose bright row tells their class: a network can learn them."""
    suffix = ".gz" if compress else ""
    for prefix, count, seed in (("train", train, 0), ("t10k", test, 1)):
        random = np.random.default_rng(seed)
        labels = np.arange(count) % size
        images = random.integers(0, 64, (count, size, size))
        images[np.arange(count), labels] += 190
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", images, compress)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", labels, compress)
