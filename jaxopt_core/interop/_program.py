"""Writes the pickle program of a checkpoint, in the opcodes that torch.load(weights_only=True) knows."""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxopt_core.interop._dtypes import NAMES, STORAGE_NAMES
from jaxopt_core.interop._sharing import Placement


class Program:
    """A program under construction; the same object gives the same bytes on every machine and in every run.

    Args:
        place: array -> (key of its storage, the storage's number of elements, placement).
    """

    def __init__(self, place: Callable[[np.ndarray], tuple[str, int, Placement]]):
        self._place = place
        self._code = bytearray(b"\x80\x02")
        self._memo: dict[Any, int] = {}

    def finish(self, value: Any) -> bytes:
        """The program that makes ``value``, which is as :mod:`_plain` leaves it."""
        self._write(value)
        return bytes(self._code) + b"."

    def _write(self, value: Any) -> None:
        kind = type(value)
        if kind in _SIMPLE:
            _SIMPLE[kind](self, value)
        elif isinstance(value, np.dtype):
            self._name("torch", NAMES[value])
        elif kind is tuple and all(type(part) in _SIMPLE for part in value):
            self._tuple(
                value
            )  # whether equal tuples are one object is chance, and must not show in the bytes
        elif not self._recall(id(value)):
            if kind is np.ndarray:
                self._tensor(value)
            else:
                _CONTAINERS[kind](self, value)
            self._remember(id(value))

    # Names and strings are remembered by what they are, all else by identity.

    def _recall(self, key: Any) -> bool:
        index = self._memo.get(key)
        if index is not None:
            self._code += struct.pack("<cB", b"h", index) if index < 256 else struct.pack("<cI", b"j", index)
        return index is not None

    def _remember(self, key: Any) -> None:
        index = self._memo[key] = len(self._memo)
        self._code += struct.pack("<cB", b"q", index) if index < 256 else struct.pack("<cI", b"r", index)

    def _name(self, module: str, name: str) -> None:
        if not self._recall((module, name)):
            self._code += f"c{module}\n{name}\n".encode()
            self._remember((module, name))

    def _string(self, value: str) -> None:
        if not self._recall(value):
            encoded = value.encode("utf-8", "surrogatepass")
            self._code += struct.pack("<cI", b"X", len(encoded)) + encoded
            self._remember(value)

    def _none(self, value: None) -> None:
        del value
        self._code += b"N"

    def _bool(self, value: bool) -> None:
        self._code += b"\x88" if value else b"\x89"

    def _float(self, value: float) -> None:
        self._code += struct.pack(">cd", b"G", value)

    def _integer(self, value: int) -> None:
        if 0 <= value < 256:
            self._code += struct.pack("<cB", b"K", value)
        elif -(2**31) <= value < 2**31:
            self._code += struct.pack("<ci", b"J", value)
        else:
            digits = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            self._code += struct.pack("<cB", b"\x8a", len(digits)) + digits

    def _tuple(self, value: tuple[Any, ...]) -> None:
        self._code += b"("
        for part in value:
            self._write(part)
        self._code += b"t"

    def _list(self, value: list[Any]) -> None:
        self._code += b"]("
        for part in value:
            self._write(part)
        self._code += b"e"

    def _items(self, value: dict[Any, Any]) -> None:
        self._code += b"("
        for key, part in value.items():
            self._write(key)
            self._write(part)
        self._code += b"u"

    def _dict(self, value: dict[Any, Any]) -> None:
        self._code += b"}"
        self._items(value)

    def _ordered(self, value: OrderedDict[Any, Any]) -> None:
        self._name("collections", "OrderedDict")
        self._code += b")R"
        self._items(value)
        if hasattr(value, "_metadata"):
            self._dict({"_metadata": value._metadata})
            self._code += b"b"

    def _counter(self, value: Counter[Any]) -> None:
        self._name("collections", "Counter")
        self._dict(value)
        self._code += b"\x85R"

    def _set(self, value: set[Any]) -> None:
        self._name("__builtin__", "set")
        # A set's own order changes from run to run.
        self._list(sorted(value, key=lambda part: (type(part).__name__, repr(part))))
        self._code += b"\x85R"

    def _bytes(self, value: bytes) -> None:
        self._name("_codecs", "encode")
        self._string(value.decode("latin1"))
        self._string("latin1")
        self._code += b"\x86R"

    def _bytearray(self, value: bytearray) -> None:
        self._name("__builtin__", "bytearray")
        self._bytes(bytes(value))
        self._code += b"\x85R"

    def _complex(self, value: complex) -> None:
        self._name("__builtin__", "complex")
        self._code += struct.pack(">cdcd", b"G", value.real, b"G", value.imag) + b"\x86R"

    def _tensor(self, array: np.ndarray) -> None:
        key, size, placement = self._place(array)
        old = array.dtype in STORAGE_NAMES
        self._name("torch._utils", "_rebuild_tensor_v2" if old else "_rebuild_tensor_v3")
        self._code += b"(("
        self._string("storage")
        if old:
            self._name("torch", STORAGE_NAMES[array.dtype])
        else:
            self._name("torch.storage", "UntypedStorage")
        self._string(key)
        self._string("cpu")
        self._integer(size if old else size * array.itemsize)
        self._code += b"tQ"
        self._integer(placement.offset)
        self._tuple(array.shape)
        self._tuple(placement.strides)
        self._code += b"\x89"  # requires_grad
        self._name("collections", "OrderedDict")  # hooks
        self._code += b")R"
        if not old:
            self._name("torch", NAMES[array.dtype])
        self._code += b"tR"


_SIMPLE: dict[type, Callable[[Program, Any], None]] = {
    type(None): Program._none,
    bool: Program._bool,
    float: Program._float,
    int: Program._integer,
    str: Program._string,
    bytes: Program._bytes,
    complex: Program._complex,
}
_CONTAINERS: dict[type, Callable[[Program, Any], None]] = {
    tuple: Program._tuple,
    list: Program._list,
    dict: Program._dict,
    OrderedDict: Program._ordered,
    Counter: Program._counter,
    set: Program._set,
    bytearray: Program._bytearray,
}
