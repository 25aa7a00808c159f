"""Storages and the tensors that view them, as numpy arrays over the mapped file."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from jaxopt_core.interop._archive import Archive
from jaxopt_core.interop._dtypes import swap_bytes
from jaxopt_core.interop.errors import COPY_AGAIN, Budget, Fault

_MOST_DIMENSIONS = 64  # numpy's limit, and PyTorch's
_LARGEST = 2**62
_LONGEST_KEY = 200
# A tensor may be larger than its storage (expand() repeats elements without copying them). Whoever copies it
# pays for it in full, so there is a limit.
_LARGEST_EXPANDED = 1 << 28


class StorageType(NamedTuple):
    """A storage class by its name in torch; ``None``: UntypedStorage, whose tensors know their dtypes."""

    dtype: np.dtype | None


class Storage(NamedTuple):
    """Memory that tensors share; ``numbers`` is (n,), of the storage's own dtype or bytes."""

    key: str
    dtype: np.dtype | None


class Storages:
    """The records ``data/<key>`` of an archive.

    Args:
        archive: the open archive.
        root: its folder, with a slash.
        native: the file's numbers are in this machine's byte order.
        budget: what copies may allocate.
    """

    def __init__(self, archive: Archive, root: str, native: bool, budget: Budget):
        self._archive, self._root, self._native, self._budget = archive, root, native, budget
        self._raw: dict[str, np.ndarray] = {}
        self._numbers: dict[tuple[str, np.dtype], np.ndarray] = {}

    def load(self, identifier: Any) -> Storage:
        """Persistent id ``("storage", type, key, location, size)`` -> Storage; the device is ignored.

        Raises:
            Fault: the id is something else, or claims more bytes than the record has.
        """
        match identifier:
            case (str("storage"), StorageType(dtype=dtype), str() as key, str(), int() as size):
                pass
            case _:
                raise Fault("its pickle refers to something outside that is not a storage")
        if len(key) > _LONGEST_KEY:
            raise Fault("its pickle refers to a storage with an absurdly long name")
        if key not in self._raw:
            self._raw[key] = self._archive.record(f"{self._root}data/{key}")
        claimed = size * (dtype.itemsize if dtype else 1)
        if not 0 <= claimed <= self._raw[key].size:
            raise Fault(f"storage {key!r} has {self._raw[key].size} bytes but its pickle claims {claimed}")
        return Storage(key, dtype)

    def view(
        self, storage: Storage, dtype: np.dtype, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]
    ) -> np.ndarray:
        """A tensor: offset and strides count elements; nothing is copied.

        Raises:
            Fault: it reaches beyond its storage, or is absurdly large.
        """
        numbers = self._of_dtype(storage, dtype)
        whole = (offset, *shape, *strides)
        if len(shape) != len(strides) or any(type(n) is not int or not 0 <= n < _LARGEST for n in whole):
            raise Fault("its pickle holds a tensor with a shape, strides or an offset that no tensor has")
        if len(shape) > _MOST_DIMENSIONS or math.prod(n or 1 for n in shape) * dtype.itemsize > _LARGEST:
            raise Fault(f"its pickle holds a tensor of {len(shape)} dimensions that no memory could hold")
        if 0 in shape:
            return np.empty(shape, dtype)
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if last >= numbers.size:
            raise Fault(
                f"its pickle holds a tensor that reaches element {last} of storage {storage.key!r}, "
                f"which has {numbers.size}"
            )
        size = math.prod(shape) * dtype.itemsize
        if size > max(numbers.nbytes, _LARGEST_EXPANDED):
            raise Fault(
                f"its pickle holds a tensor of {size} bytes that repeats a storage of {numbers.nbytes}",
                "In PyTorch, save the tensor before expand()",
            )
        steps = tuple(step * dtype.itemsize for step in strides)
        return np.ndarray(shape, dtype, numbers, offset * dtype.itemsize, steps)

    def _of_dtype(self, storage: Storage, dtype: np.dtype) -> np.ndarray:
        key = storage.key, dtype
        if key not in self._numbers:
            raw = self._raw[storage.key]
            raw = raw[: raw.size // dtype.itemsize * dtype.itemsize]
            aligned = raw.ctypes.data % dtype.alignment == 0
            if not (self._native or dtype.itemsize == 1):
                self._budget.charge(2 * raw.size)
                self._numbers[key] = _frozen(swap_bytes(raw.copy(), dtype))
            elif aligned:
                self._numbers[key] = raw.view(dtype)
            else:
                self._budget.charge(raw.size)
                self._numbers[key] = _frozen(raw.copy().view(dtype))
        return self._numbers[key]

    def resolve(self, array: np.ndarray, metadata: Any) -> np.ndarray:
        """Applies the bits by which PyTorch puts off conjugating and negating; a copy where one is set.

        Raises:
            Fault: an unknown bit, or one that the dtype cannot have.
        """
        bits = metadata if type(metadata) is dict else {"": None}
        if not set(bits) <= {"conj", "neg"} or any(type(bit) is not bool for bit in bits.values()):
            raise Fault("its pickle holds a tensor with properties that are not known here", COPY_AGAIN)
        for bit, function, kinds in (("conj", np.conj, "c"), ("neg", np.negative, "iufc")):
            if bits.get(bit):
                if array.dtype.kind not in kinds:
                    raise Fault(f"its pickle sets the {bit} bit of a tensor of {array.dtype}")
                self._budget.charge(array.nbytes)
                array = _frozen(np.asarray(function(array)))
        return array


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
