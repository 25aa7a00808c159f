"""The IDX reader: what it reads, and the one line that it says of everything else."""

import gzip
import re
import struct

import numpy as np
import pytest

from jaxopt_core.data import DataFileError, read_idx

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array):
    kind = array.dtype.str[1:]
    header = struct.pack(f">HBB{array.ndim}I", 0, CODES[kind], array.ndim, *array.shape)
    return header + array.astype(f">{kind}").tobytes()


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("kind", CODES)
def test_reads_every_type(tmp_path, kind, compress):
    array = np.arange(24).reshape(2, 3, 4).astype(kind)
    path = tmp_path / "array"
    path.write_bytes(compress(idx_bytes(array)))
    found = read_idx(path)
    np.testing.assert_array_equal(found, array, strict=True)
    assert found.dtype.isnative
    assert found.flags.writeable


def test_reads_an_empty_array(tmp_path):
    path = tmp_path / "array"
    path.write_bytes(idx_bytes(np.zeros((0, 28, 28), "u1")))
    assert read_idx(path).shape == (0, 28, 28)


WHOLE = idx_bytes(np.arange(12, dtype="u1").reshape(3, 4))
ZIPPED = gzip.compress(WHOLE, mtime=0)
MALFORMED = {
    "empty": (b"", "expected an IDX header of 4 bytes, found the end of the file at byte 0"),
    "text": (b"not an image", "expected an IDX file (first bytes 00 00, then"),
    "unknown type": (b"\0\0\x0a\x01", "found 00 00 0a 01 at byte 0"),
    "header cut": (WHOLE[:7], "of 12 bytes for 2 dimensions, found the end of the file at byte 7"),
    "data cut": (WHOLE[:-5], "expected 12 bytes of data for shape (3, 4) of uint8, found 7 at byte 12"),
    "data added": (WHOLE + b"xx", "expected 12 bytes of data for shape (3, 4) of uint8, found 14 at byte 12"),
    "absurd size": (b"\0\0\x0e\x02" + b"\xff" * 8, "of float64, found 0 at byte 12"),
    "gzip cut": (ZIPPED[:-9], "expected an intact gzip file, found "),
    "gzip damaged": (ZIPPED[:-8] + bytes(8), "expected an intact gzip file, found CRC"),
    "gzip header only": (ZIPPED[:3], "expected an intact gzip file, found "),
    "gzip of text": (gzip.compress(b"text"), "found 74 65 78 74 at byte 0"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(tmp_path, name):
    content, message = MALFORMED[name]
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=re.escape(message)) as caught:
        read_idx(path)
    assert str(caught.value).startswith(f"{path}: expected ")
    assert "\n" not in str(caught.value)


def test_missing(tmp_path):
    with pytest.raises(DataFileError, match="absent: expected an IDX file, found no such file"):
        read_idx(tmp_path / "absent")


def test_folder(tmp_path):
    with pytest.raises(DataFileError, match="expected a readable file, found Is a directory"):
        read_idx(tmp_path)
