"""PyTorch's names of dtypes and storages, and numpy's dtypes."""

from __future__ import annotations

import ml_dtypes
import numpy as np

# torch.<name> -> dtype, for the dtypes that numpy (with ml_dtypes) has too.
DTYPES: dict[str, np.dtype] = {
    name: np.dtype(getattr(ml_dtypes, name, None) or name)
    for name in (
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    )
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}

# torch.<name>: the storage classes of the older dtypes. Tensors of the younger ones are an UntypedStorage
# of bytes, and name their dtype beside it.
STORAGES: dict[str, np.dtype] = {
    name: DTYPES[dtype]
    for name, dtype in {
        "BoolStorage": "bool",
        "ByteStorage": "uint8",
        "CharStorage": "int8",
        "ShortStorage": "int16",
        "IntStorage": "int32",
        "LongStorage": "int64",
        "HalfStorage": "float16",
        "BFloat16Storage": "bfloat16",
        "FloatStorage": "float32",
        "DoubleStorage": "float64",
        "ComplexFloatStorage": "complex64",
        "ComplexDoubleStorage": "complex128",
    }.items()
}
STORAGE_NAMES = {dtype: name for name, dtype in STORAGES.items()}

# Dtypes of PyTorch that numpy lacks, and what to do about them.
QUANTIZED = ("qint8", "qint32", "quint8", "quint4x2", "quint2x4")
FOREIGN = {
    **dict.fromkeys(QUANTIZED, "dequantize() it in PyTorch"),
    "complex32": "convert it to torch.complex64 in PyTorch",
    "float4_e2m1fn_x2": "convert it to a wider dtype in PyTorch",
    **{
        f"{kind}{bits}": "convert it to a wider dtype in PyTorch"
        for kind in ("int", "uint")
        for bits in range(1, 8)
    },
}


def swap_bytes(raw: np.ndarray, dtype: np.dtype) -> np.ndarray:
    r"""Bytes (n,) of numbers in the other byte order -> the numbers, a copy.

    Example:
        >>> swap_bytes(np.frombuffer(b"\x3f\x80\x00\x00", np.uint8), np.dtype(np.float32))
        array([1.], dtype=float32)
    """
    part = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize  # the parts of a complex number stay
    return raw.view(f"u{part}").byteswap().view(dtype)
