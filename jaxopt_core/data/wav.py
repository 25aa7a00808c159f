"""Sound from WAV files."""

from __future__ import annotations

import io
import os
import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxopt_core.data.files import DataFileError, read_bytes

__all__ = ["read_wav"]

_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("u1"), 2: np.dtype("<i2"), 4: np.dtype("<i4")}


def read_wav(path: str | os.PathLike[str]) -> tuple[NDArray[np.float32], int]:
    """Reads uncompressed sound of 8, 16, 24 or 32 bits; channels are averaged.

    Args:
        path: the file.

    Returns:
        float32 of shape ``(samples,)`` in [-1, 1), and the sample rate in hertz.

    Raises:
        DataFileError: it is missing, no WAV, compressed, or shorter than it says.

    Example:
        >>> import pathlib, tempfile
        >>> path = str(pathlib.Path(tempfile.mkdtemp()) / "two.wav")
        >>> with wave.open(path, "wb") as file:
        ...     file.setparams((1, 2, 8000, 0, "NONE", ""))
        ...     file.writeframes(np.array([0, -16384], "<i2").tobytes())
        >>> read_wav(path)
        (array([ 0. , -0.5], dtype=float32), 8000)
    """
    content = read_bytes(Path(path), what="a WAV file")
    _check_start(path, content)
    try:
        with wave.open(io.BytesIO(content)) as file:
            channels, width, rate, frames, *_ = file.getparams()
            data = file.readframes(frames)
    # RuntimeError is what wave's chunks raise for a size that leads out of the file.
    except (wave.Error, EOFError, RuntimeError) as error:
        found = str(error) or "a chunk that does not end"
        raise DataFileError(path, expected="a whole WAV file of PCM", found=found, at=_end(content)) from None
    if rate <= 0:
        raise DataFileError(path, expected="a sample rate above 0", found=str(rate), at="byte 24")
    frame = channels * width
    if len(data) < frames * frame:
        raise DataFileError(
            path,
            expected=f"{frames} frames of {frame} bytes",
            found=str(len(data) // frame),
            at=_end(content),
        )
    if width == 3:  # no dtype has three bytes: put them in the upper three of four
        wide = np.zeros((frames * channels, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        samples = wide.view("<i4")[:, 0] / 2.0**31
    elif width in _DTYPES:
        samples = np.frombuffer(data, _DTYPES[width]) / 2.0 ** (8 * width - 1)
        samples = samples - 1 if width == 1 else samples
    else:
        raise DataFileError(path, expected="samples of 8 to 32 bits", found=f"{8 * width}")
    return samples.reshape(frames, channels).mean(axis=1).astype(np.float32), rate


def _check_start(path: str | os.PathLike[str], content: bytes) -> None:
    for offset, expected in ((0, b"RIFF"), (8, b"WAVE")):
        found = content[offset : offset + 4]
        if found != expected:
            raise DataFileError(path, expected=repr(expected), found=repr(found), at=f"byte {offset}")


def _end(content: bytes) -> str:
    return f"byte {len(content)}, the end"
