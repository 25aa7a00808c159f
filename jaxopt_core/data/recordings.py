"""Recordings with transcripts, from a folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from jaxopt_core.data.files import DataFileError, read_bytes
from jaxopt_core.data.mel import log_mel
from jaxopt_core.data.speech import SpeechData, assemble
from jaxopt_core.data.wav import read_wav

__all__ = ["load_recordings"]


def load_recordings(
    directory: str | os.PathLike[str], *, n_mels: int = 40, test_fraction: float = 0.1, seed: int = 0
) -> SpeechData:
    """Reads every ``NAME.wav`` under a folder, with what is said in ``NAME.txt`` beside it.

    Transcripts are characters, in lower case, with single blanks between words. The spectrogram has windows
    of 25 ms every 10 ms.

    Args:
        directory: the folder; folders in it are searched too.
        n_mels: bands. Default 40.
        test_fraction: share of the recordings that is set apart at random, at least one. Default 0.1.
        seed: of the choice. Default 0.

    Raises:
        DataFileError: there are fewer than two recordings, transcripts are missing (it names them), one is
            empty or not UTF-8, a recording is broken, shorter than a window or of another sample rate.
        ValueError: ``test_fraction`` is not between 0 and 1.
    """
    folder = Path(directory)
    paths = sorted(folder.rglob("*.wav"))
    if len(paths) < 2:
        raise DataFileError(folder, expected="at least two .wav files", found=str(len(paths)))
    missing = [str(path.relative_to(folder)) for path in paths if not path.with_suffix(".txt").is_file()]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise DataFileError(
            folder,
            expected="a .txt file beside each .wav file",
            found=f"none for {', '.join(missing[:5])}{more}",
        )
    if not 0 < test_fraction < 1:
        raise ValueError(f"expected a test_fraction between 0 and 1, got {test_fraction}")
    texts = [_transcript(path.with_suffix(".txt")) for path in paths]
    alphabet = tuple(sorted(set("".join(texts))))
    number = {character: index for index, character in enumerate(alphabet, 1)}
    labels = [np.array([number[character] for character in text]) for text in texts]
    features, first_rate = [], 0
    for path in paths:
        sound, rate = read_wav(path)
        first_rate = first_rate or rate
        window = round(0.025 * rate)
        if rate != first_rate or len(sound) < window:
            raise DataFileError(
                path,
                expected=f"at least {window} samples at {first_rate} Hz, the rate of {paths[0].name}",
                found=f"{len(sound)} samples at {rate} Hz",
            )
        features.append(log_mel(sound, rate, n_mels=n_mels, n_fft=window, hop_length=round(0.01 * rate)))
    is_test = np.zeros(len(paths), bool)
    chosen = np.random.default_rng(seed).permutation(len(paths))
    is_test[chosen[: min(max(1, round(test_fraction * len(paths))), len(paths) - 1)]] = True
    return assemble(f"recordings in {folder}", alphabet, features, labels, is_test)


def _transcript(path: Path) -> str:
    try:
        text = read_bytes(path, what="a transcript").decode()
    except UnicodeDecodeError as error:
        raise DataFileError(path, expected="UTF-8", found=error.reason, at=f"byte {error.start}") from None
    words = text.lower().split()
    if not words:
        raise DataFileError(path, expected="what is said in the recording", found="nothing")
    return " ".join(words)
