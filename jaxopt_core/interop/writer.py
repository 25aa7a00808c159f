"""Writing files that torch.load(weights_only=True) reads, without torch."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_core.interop._atomic import replacing
from jaxopt_core.interop._plain import Plain
from jaxopt_core.interop._program import Program
from jaxopt_core.interop._sharing import Placement, plan

_ALIGNMENT = 64  # bytes, as PyTorch's own
_ROOT = "archive"
_ZIP64_SIZE = 20  # bytes that zipfile adds to a header for a record of more than 2 GiB


def save(obj: Any, path: str | os.PathLike[str]) -> None:
    """Writes a file that ``torch.load(path, weights_only=True)`` reads, with ``mmap=True`` too.

    Arrays become tensors without ``requires_grad`` on the CPU. Arrays that share memory share a storage in
    the file, and an array that appears twice is one tensor twice, as ``torch.save`` does it; memory that
    no view shows is left out, where ``torch.save`` writes the whole storage. The same object gives the same
    bytes in every run. The file appears whole or not at all, and replaces an older one of that name, so
    arrays of :func:`load` may be saved to the file that they came from.

    Args:
        obj: dict, ``OrderedDict`` (with its ``_metadata``), ``Counter``, list, tuple, set of numpy or JAX
            arrays, numbers, strings, bytes, dtypes and ``None``. Numpy scalars become Python numbers.
        path: the file.

    Raises:
        TypeError: an object that is not data or has a dtype that PyTorch lacks, and where it is.
        ValueError: a container that contains itself or nests too deep.

    Example:
        >>> import tempfile, numpy as np
        >>> from jaxopt_core import interop
        >>> path = tempfile.mkdtemp() + "/tied.pt"
        >>> weight = np.ones((2, 3), np.float32)
        >>> interop.save({"embed": weight, "head": weight}, path)
        >>> checkpoint = interop.load(path)
        >>> checkpoint["embed"] is checkpoint["head"]
        True
    """
    plain = Plain()
    value = plain.convert(obj)
    storages, placements = plan(plain.arrays)
    where = {id(array): placement for array, placement in zip(plain.arrays, placements, strict=True)}

    def place(array: np.ndarray) -> tuple[str, int, Placement]:
        placement = where[id(array)]
        return str(placement.storage), storages[placement.storage].size, placement

    records: list[tuple[str, Any]] = [
        ("data.pkl", Program(place).finish(value)),
        # No .format_version: it would promise that offsets are those of PyTorch's zip library.
        ("byteorder", sys.byteorder.encode()),
        *((f"data/{key}", storage) for key, storage in enumerate(storages)),
        ("version", b"3\n"),
    ]
    with replacing(Path(path)) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records:
            _write(archive, f"{_ROOT}/{name}", content)


def _write(archive: zipfile.ZipFile, name: str, content: Any) -> None:
    raw = content if isinstance(content, bytes) else _as_bytes(content).data
    large = len(raw) > zipfile.ZIP64_LIMIT // 2  # zipfile's own margin is smaller
    entry = zipfile.ZipInfo(name)
    entry.create_system = 0  # the same bytes on every system
    entry.external_attr = 0o600 << 16
    entry.file_size = len(raw)
    header = archive.fp.tell() + 30 + len(name) + large * _ZIP64_SIZE + 4  # type: ignore[union-attr]
    # An extra field of PyTorch's kind, "FB" and its length, pads the header.
    padding = -header % _ALIGNMENT
    entry.extra = b"FB" + padding.to_bytes(2, "little") + bytes(padding)
    with archive.open(entry, "w", force_zip64=large) as record:
        record.write(raw)


def _as_bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
