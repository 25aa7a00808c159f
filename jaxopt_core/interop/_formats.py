"""What a file is, by its first bytes, when it is no checkpoint in torch.save's zip format."""

from __future__ import annotations

import re

from jaxopt_core.interop.errors import COPY_AGAIN, Fault

HEAD = 512  # bytes that a guess needs

_LEGACY = (
    "In any PyTorch since 1.6: torch.save(torch.load(path, weights_only=True), path) writes today's format"
)
_NOT_CHECKPOINT = "Name the file that torch.save wrote"
_UNPACK = "Decompress it first"
# Pattern of the first bytes, what they mean, what to do.
_KINDS: list[tuple[bytes, str, str]] = [
    (rb"PK\x05\x06", "it is an empty zip file", COPY_AGAIN),
    # A pickled long, the magic number of torch.save before 1.6.
    (
        rb"\x80.\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e",
        "it is in PyTorch's format of before 1.6",
        _LEGACY,
    ),
    (
        rb".{257}ustar",
        "it is a tar file, PyTorch's format of before 0.1.10 if torch.save wrote it",
        "In PyTorch: torch.save(torch.load(path, weights_only=False), path), which runs the code in it: "
        "only if you trust it",
    ),
    (
        rb"\x80[\x00-\x05]",
        "it is a bare pickle, not torch.save's format",
        "If you trust it, read it in Python with pickle.load, which runs the code in it, and save the arrays "
        "with jaxopt_core.interop.save",
    ),
    (rb"\x89HDF\r\n\x1a\n", "it is an HDF5 file", "Read it with h5py, or with the program that wrote it"),
    (rb"\x93NUMPY", "it is a numpy array (.npy)", "Read it with numpy.load(path, allow_pickle=False)"),
    (rb".{6}\0\0\s*\{", "it is a safetensors file", "Read it with jaxopt_core.interop.load_safetensors"),
    (rb"GGUF", "it is a GGUF file", _NOT_CHECKPOINT),
    (
        rb"version https://git-lfs",
        "it is a pointer of Git LFS, a few lines of text in the place of the file",
        "Run git lfs pull where it came from",
    ),
    (
        rb"\s*(?i:<!doctype|<html|<\?xml)",
        "it is a web page: the download got an error or a login page",
        COPY_AGAIN,
    ),
    (rb"\x1f\x8b", "it is compressed with gzip", _UNPACK),
    (rb"BZh", "it is compressed with bzip2", _UNPACK),
    (rb"\xfd7zXZ\0", "it is compressed with xz", _UNPACK),
    (rb"\x28\xb5\x2f\xfd", "it is compressed with zstd", _UNPACK),
    (rb"\s*[\[{]", "it looks like JSON text", _NOT_CHECKPOINT),
]


def refuse(head: bytes) -> Fault:
    """The Fault for a file that begins with these bytes and not with a zip file's."""
    if not head:
        return Fault("the file is empty")
    for pattern, kind, remedy in _KINDS:
        if re.match(pattern, head, re.DOTALL):
            return Fault(kind, remedy)
    return Fault(f"its first bytes, {head[:8].hex(' ')}, are not those of a file that torch.save wrote")
