"""IDX, the file format of MNIST: a header of big-endian sizes, then the numbers.

Two zero bytes, one byte for the type, one for the number of dimensions, one unsigned 32-bit size
per dimension, and the data in C order. Described at the end of the page of LeCun, Cortes and Burges,
"The MNIST database of handwritten digits".
"""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxopt_core.data.files import DataFileError, read_bytes

_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Reads one IDX file, plain or gzipped (told apart by content, not by name).

    Args:
        path: the file.

    Returns:
        An array of the shape and type in the header, in native byte order.

    Raises:
        DataFileError: missing, unreadable, not IDX, or not as long as its header says.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "three.idx"
        >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3]) + bytes([5, 0, 4]))
        >>> read_idx(path)
        array([5, 0, 4], dtype=uint8)
    """
    content = _read(Path(path))
    if len(content) < 4:
        raise DataFileError(
            path, expected="an IDX header of 4 bytes", found="the end of the file", at=f"byte {len(content)}"
        )
    zeros, code, ndim = struct.unpack(">HBB", content[:4])
    if zeros != 0 or code not in _DTYPES:
        raise DataFileError(
            path,
            expected="an IDX file (first bytes 00 00, then a type 08, 09, 0b, 0c, 0d or 0e)",
            found=content[:4].hex(" "),
            at="byte 0",
        )
    header = 4 + 4 * ndim
    if len(content) < header:
        raise DataFileError(
            path,
            expected=f"an IDX header of {header} bytes for {ndim} dimensions",
            found="the end of the file",
            at=f"byte {len(content)}",
        )
    shape = struct.unpack(f">{ndim}I", content[4:header])
    dtype = _DTYPES[code]
    size = math.prod(shape) * dtype.itemsize
    if len(content) - header != size:
        raise DataFileError(
            path,
            expected=f"{size} bytes of data for shape {shape} of {dtype.newbyteorder('=')}",
            found=f"{len(content) - header}",
            at=f"byte {header}",
        )
    data = np.frombuffer(content, dtype, offset=header).reshape(shape)
    return data.astype(dtype.newbyteorder("="))


def _read(path: Path) -> bytes:
    content = read_bytes(path, what="an IDX file")
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataFileError(path, expected="an intact gzip file", found=str(error)) from error
