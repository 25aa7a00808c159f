"""The zip file that torch.save writes, mapped into memory; nothing is ever extracted to a disk."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jaxopt_core.interop.errors import COPY_AGAIN, RESAVE, Budget, Fault

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra field
# What zipfile raises on files that are no zip files, found by reading mutated ones.
_BROKEN = (
    zipfile.BadZipFile,
    struct.error,
    ValueError,
    NotImplementedError,
    OverflowError,
    OSError,
    EOFError,
)
_BLOCK = 1 << 20


class Archive:
    """A checked table of contents, and the bytes of each record.

    Args:
        file: open for reading in binary mode.
        content: (n,) uint8, the whole file, mapped.
        budget: what decompressing may allocate.
        verify: compare checksums.

    Raises:
        Fault: the table is broken, names a record twice, records overlap or lie outside the file, or
            are encrypted or compressed with anything but deflate.
    """

    def __init__(self, file: BinaryIO, content: np.ndarray, budget: Budget, verify: bool):
        self._file, self._content, self._budget, self._verify = file, content, budget, verify
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
        except _BROKEN as error:
            raise Fault(
                f"it is cut off or damaged: its table of contents, at its end, is not sound ({error})"
            ) from None
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            self._check(entry)
            self._entries[entry.filename] = entry
        self._starts = {entry.filename: self._start(entry) for entry in entries}
        self._check_overlaps(entries)

    def _check(self, entry: zipfile.ZipInfo) -> None:
        name = entry.filename
        if name in self._entries:
            raise Fault(f"it holds {name!r} twice", RESAVE)
        if name.startswith("/") or "\\" in name or ".." in name.split("/") or re.match(r"\w:", name):
            raise Fault(f"it holds {name!r}, a path that leads out of the archive", "Do not trust this file")
        if entry.flag_bits & 0x1:
            raise Fault(f"{name!r} in it is encrypted", "Decrypt the zip file first")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Fault(
                f"{name!r} in it is compressed with method {entry.compress_type}",
                "Unpack the zip file, and pack it again without compression (zip -0 -r)",
            )
        if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
            raise Fault(
                f"{name!r} in it is stored in {entry.compress_size} bytes but claims {entry.file_size}"
            )

    def _start(self, entry: zipfile.ZipInfo) -> int:
        """Offset of a record's bytes; the local header says how long it is itself."""
        start = entry.header_offset
        header = self._content[start : start + _LOCAL_HEADER.size].tobytes() if start >= 0 else b""
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise Fault(f"there is no record at byte {start}, where its table promises {entry.filename!r}")
        _, name, extra = _LOCAL_HEADER.unpack(header)
        start += _LOCAL_HEADER.size + name + extra
        if start + entry.compress_size > len(self._content):
            raise Fault(f"{entry.filename!r} in it claims {entry.compress_size} bytes, beyond its end")
        return start

    def _check_overlaps(self, entries: list[zipfile.ZipInfo]) -> None:
        ends, last = 0, ""
        for entry in sorted(entries, key=lambda entry: entry.header_offset):
            if entry.header_offset < ends:
                raise Fault(f"{last!r} and {entry.filename!r} in it overlap", "Do not trust this file")
            ends, last = self._starts[entry.filename] + entry.compress_size, entry.filename

    def names(self) -> list[str]:
        """Names of all records, in the table's order."""
        return list(self._entries)

    def record(self, name: str) -> np.ndarray:
        """Bytes (n,) of a record, without a copy where it is not compressed.

        Raises:
            Fault: there is no such record, its checksum is wrong, or it is a decompression bomb.
        """
        if name not in self._entries:
            raise Fault(f"it lacks {name!r}, to which its pickle refers")
        entry, start = self._entries[name], self._starts[name]
        raw = self._content[start : start + entry.compress_size]
        if entry.compress_type == zipfile.ZIP_DEFLATED:
            raw = self._inflate(entry, raw)
            checksum = zlib.crc32(raw.data)
        elif self._verify:
            checksum = self._checksum(start, entry.compress_size)
        if self._verify and checksum != entry.CRC:
            raise Fault(
                f"{name!r} in it is damaged: its checksum is {checksum:08x} and should be {entry.CRC:08x}",
                f"{COPY_AGAIN}. After torch.serialization.set_crc32_options(False), PyTorch writes no true "
                "checksums: pass verify=False for such files",
            )
        return raw

    def _inflate(self, entry: zipfile.ZipInfo, packed: np.ndarray) -> np.ndarray:
        self._budget.charge(entry.file_size)
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            # One byte more than promised is enough to see that there is more.
            unpacked = inflater.decompress(packed.data, entry.file_size + 1)
        except zlib.error as error:
            raise Fault(f"{entry.filename!r} in it cannot be decompressed ({error})") from None
        if len(unpacked) != entry.file_size:
            raise Fault(f"{entry.filename!r} in it is not the {entry.file_size} bytes that it claims")
        return np.frombuffer(unpacked, np.uint8)

    def _checksum(self, start: int, size: int) -> int:
        # Read, not mapped: pages of a map that were touched count as this process's memory.
        checksum = 0
        self._file.seek(start)
        while size > 0 and (block := self._file.read(min(size, _BLOCK))):
            checksum = zlib.crc32(block, checksum)
            size -= len(block)
        return checksum


def find_root(archive: Archive) -> str:
    """The archive's folder with ``data.pkl``, or a Fault saying what kind of zip file it is."""
    names = archive.names()
    roots = [name.removesuffix("data.pkl") for name in names if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if any(name.endswith("/constants.pkl") for name in names):
        raise Fault(
            "it is a TorchScript archive, a program and not a checkpoint",
            "In PyTorch: torch.save(torch.jit.load(path).state_dict(), 'weights.pt')",
        )
    if len(roots) == 1:
        return roots[0]
    if roots:
        raise Fault(f"it holds {len(roots)} checkpoints: {', '.join(map(repr, roots[:5]))}", RESAVE)
    if names and all(Path(name).suffix == ".npy" for name in names):
        raise Fault("it is a numpy archive (.npz)", "Read it with numpy.load(path, allow_pickle=False)")
    if any(
        name.endswith(("/archive_format", "models/model.json", "serialized_exported_program.json"))
        for name in names
    ):
        raise Fault(
            "it is a program written by torch.export, not a checkpoint",
            "In PyTorch: torch.save(torch.export.load(path).state_dict, 'weights.pt')",
        )
    raise Fault(
        "it is a zip file, but not one that torch.save wrote: there is no <name>/data.pkl in it",
        "Name the file that torch.save wrote; if it is inside this archive, unpack it first",
    )
