"""Reading the files of torch.save, without torch and without running what is in them."""

from __future__ import annotations

import os
import sys
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxopt_core.interop import _formats
from jaxopt_core.interop._archive import Archive, find_root
from jaxopt_core.interop._machine import Function, Machine, Pending
from jaxopt_core.interop._opcodes import run
from jaxopt_core.interop._refusals import explain
from jaxopt_core.interop._table import build_table
from jaxopt_core.interop._tensors import Storages
from jaxopt_core.interop.errors import RESAVE, Budget, CheckpointError, Fault

DEEPEST = 200  # containers inside one another
_LARGEST = 10_000_000  # values, as a program that walks over all of them counts
_LEAVES = (type(None), bool, int, float, complex, str, bytes, bytearray)


def load(path: str | os.PathLike[str], *, verify: bool = True, max_bytes: int | None = None) -> Any:
    """Reads a file that ``torch.save`` wrote, without torch and without running code.

    Tensors are read-only numpy arrays over the mapped file: loading allocates next to nothing, and numbers
    are read from the disk when they are used. Tensors that share memory in PyTorch share it here, and a
    tensor that appears twice (tied weights) is one array twice.

    What becomes of PyTorch's objects:

    - tensor, parameter, buffer: ``numpy.ndarray``, for bfloat16 and float8 with the dtypes of
      ``ml_dtypes``; ``requires_grad``, the device and attributes set on it are left out;
    - ``OrderedDict`` (with its ``_metadata``), ``Counter``, dict, list, tuple, set, frozenset: the same;
    - ``defaultdict`` and ``torch.Size``: dict and tuple;
    - ``torch.dtype``, ``torch.device`` and ``torch.__version__``: ``numpy.dtype``, str and str;
    - number, string, bytes, ``None``, numpy array or scalar of numbers: the same.

    All else is refused by name, as are sparse, quantized, nested and meta tensors. PyTorch's own
    ``weights_only=True`` unpickler imports torch and calls its functions, and its list can be
    extended; here nothing is ever called but this package's own functions over plain values.

    Args:
        path: the ``.pt`` or ``.pth`` file. Do not overwrite it in place while its arrays are in use
            (:func:`save` does not).
        verify: compare each record's checksum, which reads the file once (PyTorch never does). ``False``
            opens a file of any size at once.
        max_bytes: what reading may allocate beside the map before the file is taken for an attack.
            Default: 64 MiB and sixteen times the file's size.

    Returns:
        The object that was saved.

    Raises:
        CheckpointError: the file is truncated, damaged, of another format, holds what is not data, or
            asks for absurd amounts of memory. The message says which, and what to do.
        OSError: the file cannot be opened.

    Example:
        >>> import tempfile, numpy as np
        >>> from jaxopt_core import interop
        >>> path = tempfile.mkdtemp() + "/weights.pt"
        >>> interop.save({"weight": np.ones((2, 3), np.float32), "step": 7}, path)
        >>> checkpoint = interop.load(path)
        >>> checkpoint["weight"].shape, checkpoint["step"]
        ((2, 3), 7)
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(
            path,
            "it is a folder",
            "If torch.distributed.checkpoint wrote it, python -m torch.distributed.checkpoint.format_utils "
            "dcp_to_torch FOLDER FILE turns it into a file; otherwise name the file in it",
        )
    try:
        with path.open("rb") as file:
            return _load(file, verify, max_bytes)
    except Fault as fault:
        raise CheckpointError(path, fault.fault, fault.remedy) from None


def _load(file: BinaryIO, verify: bool, max_bytes: int | None) -> Any:
    head = file.read(_formats.HEAD)
    if not head.startswith(b"PK\x03\x04"):
        raise _formats.refuse(head)
    content = np.asarray(np.memmap(file, np.uint8, "r"))
    budget = Budget((64 << 20) + 16 * content.size if max_bytes is None else max_bytes)
    archive = Archive(file, content, budget, verify)
    root = find_root(archive)
    storages = Storages(archive, root, _byte_order(archive, root) == sys.byteorder, budget)
    program = archive.record(f"{root}data.pkl").tobytes()
    machine = Machine(program, build_table(storages, budget), explain, storages.load, budget)
    result = run(machine)
    _Inspector(max(_LARGEST, len(program))).inspect(result, 0)
    return result


def _byte_order(archive: Archive, root: str) -> str:
    name = f"{root}byteorder"
    if name not in archive.names():
        return "little"  # as PyTorch takes files from before it wrote the record
    order = archive.record(name)[:20].tobytes()
    if order not in (b"little", b"big"):
        raise Fault(f"its record of the byte order is {order!r}")
    return order.decode()


class _Inspector:
    """Sees that what was read is data and nothing else, can be walked over, and ends.

    A pickle can hold a list in itself, or a list of two references to a list of two references to ...: small
    here, endless or astronomical for whoever walks over it.
    """

    def __init__(self, largest: int):
        self._largest = largest
        self._known: dict[int, tuple[int, int]] = {}  # id -> values in it, depth of it
        self._open: set[int] = set()

    def inspect(self, value: Any, depth: int) -> tuple[int, int]:
        kind = type(value)
        if kind in _LEAVES or isinstance(value, np.ndarray | np.generic | np.dtype):
            return 1, 0
        if kind in (list, tuple, set, frozenset):
            parts = list(value)
        elif kind in (dict, OrderedDict, Counter):
            parts = list(value.values())
            if kind is OrderedDict and hasattr(value, "_metadata"):
                parts.append(value._metadata)
        else:
            what = (
                value.name
                if isinstance(value, Function | Pending)
                else _CLASSES.get(kind.__name__, kind.__name__)
            )
            raise Fault(f"refused {what} in the place of data", RESAVE)
        if id(value) in self._open:
            raise Fault(f"it holds a {kind.__name__} that contains itself", RESAVE)
        if id(value) not in self._known:
            self._open.add(id(value))
            size = height = 1
            for part in parts:
                if depth >= DEEPEST:
                    raise _too_deep()
                part_size, part_height = self.inspect(part, depth + 1)
                size, height = size + part_size, max(height, 1 + part_height)
            self._open.remove(id(value))
            if size > self._largest:
                raise Fault(
                    f"it repeats its parts so often that it has more than {self._largest} values", RESAVE
                )
            self._known[id(value)] = size, height
        size, height = self._known[id(value)]
        if depth + height > DEEPEST + 1:
            raise _too_deep()
        return size, height


_CLASSES = {
    "type": "a bare class",
    "Storage": "a bare storage (save the tensor instead)",
    "StorageType": "the class of a storage",
}


def _too_deep() -> Fault:
    return Fault(f"it nests containers more than {DEEPEST} deep", RESAVE)
