"""What can be written to a checkpoint: plain containers of arrays, numbers and strings."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from typing import Any

import jax
import numpy as np

from jaxopt_core.interop._dtypes import NAMES
from jaxopt_core.interop.reader import DEEPEST

_MOST_DIGITS = 255  # bytes of an integer in the one opcode that PyTorch reads
_LEAVES = (type(None), bool, int, float, complex, str, bytes, bytearray)
_KEYS = (type(None), bool, int, float, complex, str, bytes)
_CONTAINERS = (dict, OrderedDict, defaultdict, Counter, list, tuple, set)


class Plain:
    """Makes plain copies: JAX's arrays become numpy's, numpy's scalars Python's; what is shared stays shared.

    Attributes:
        arrays: every array met, once, in order.
    """

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self._done: dict[int, Any] = {}
        self._open: set[int] = set()
        self._keep: list[Any] = []  # an id is good only as long as its object lives

    def convert(self, value: Any, path: str = "", depth: int = 0) -> Any:
        """The plain copy.

        Raises:
            TypeError: something that is not data, or has a dtype that PyTorch lacks, and where it is.
            ValueError: a container that contains itself or nests too deep, or an integer that is too large.
        """
        where = path or "the object"
        kind = type(value)
        if kind in _LEAVES:
            if kind is int and value.bit_length() // 8 + 1 > _MOST_DIGITS:
                raise ValueError(
                    f"{where} is an integer of {value.bit_length()} bits, which torch.load does not read"
                )
            return value
        if isinstance(value, np.dtype):
            return _check_dtype(value, where)
        if isinstance(value, np.generic):
            _check_dtype(value.dtype, where)
            return value.item()
        if id(value) in self._done:
            return self._done[id(value)]
        if isinstance(value, np.ndarray | jax.Array):
            made: Any = _to_numpy(value, where)
            self.arrays.append(made)
        elif kind in _CONTAINERS:
            if id(value) in self._open:
                raise ValueError(f"{where} contains itself")
            if depth >= DEEPEST:
                raise ValueError(f"{where} is nested more than {DEEPEST} containers deep")
            self._open.add(id(value))
            made = self._container(value, path, depth + 1)
            self._open.remove(id(value))
        else:
            raise TypeError(
                f"{where} is a {kind.__module__}.{kind.__qualname__}, which cannot be saved: only arrays, "
                "numbers, strings, None, dtypes, and dict, OrderedDict, Counter, list, tuple and set of them "
                "can be read without running code"
            )
        self._done[id(value)] = made
        self._keep.append(value)
        return made

    def _container(self, value: Any, path: str, depth: int) -> Any:
        for key in value if isinstance(value, dict | set) else ():
            if not _is_key(key):
                raise TypeError(
                    f"{path or 'the object'} has the key {key!r}; keys are strings, numbers of at most "
                    "64 bits and tuples of these"
                )
        if not isinstance(value, dict):
            return type(value)(self.convert(part, f"{path}[{i}]", depth) for i, part in enumerate(value))
        items = {key: self.convert(part, f"{path}[{key!r}]", depth) for key, part in value.items()}
        made: Any = items if type(value) is defaultdict else type(value)(items)  # its factory is code
        if hasattr(value, "_metadata"):
            made._metadata = self.convert(value._metadata, f"{path}._metadata", depth)
        return made


def _is_key(key: Any) -> bool:
    if type(key) is tuple:
        return len(key) <= 16 and all(type(part) is not tuple and _is_key(part) for part in key)
    return type(key) in _KEYS and not (type(key) is int and key.bit_length() > 64)


def _check_dtype(dtype: np.dtype, where: str) -> np.dtype:
    native = dtype.newbyteorder("=") if dtype.kind in "iufc" else dtype
    if native not in NAMES:
        raise TypeError(f"{where} has dtype {dtype}, which PyTorch lacks; convert it first")
    return native


def _to_numpy(value: Any, where: str) -> np.ndarray:
    if isinstance(value, jax.Array) and jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
        raise TypeError(f"{where} is an array of random keys; save jax.random.key_data of it")
    array = np.asarray(value)
    dtype = _check_dtype(array.dtype, where)
    return array if array.dtype == dtype and array.dtype.isnative else array.astype(dtype)
