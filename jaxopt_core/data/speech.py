"""What a speech recogniser is trained on, made of spectrograms and transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["SpeechData", "assemble"]


class SpeechData(NamedTuple):
    """What a speech recogniser is trained and judged on.

    Attributes:
        name: for people to read.
        alphabet: what class ``i + 1`` is; class 0 is the blank of ``ctc_loss``.
        train: ``features``, float32 of shape ``(utterances, frames, mels)``, log-mels minus the mean of the
            training set and over its standard deviation, mel by mel, and 0 behind the end of an utterance;
            ``feature_lengths``, int32, how many frames count; ``labels``, int32 of shape
            ``(utterances, length)``, 0 behind the end; ``label_lengths``, int32. As
            :class:`~jaxopt_core.data.Arrays` takes it.
        test: the same.
    """

    name: str
    alphabet: tuple[str, ...]
    train: dict[str, NDArray[Any]]
    test: dict[str, NDArray[Any]]


def assemble(
    name: str,
    alphabet: tuple[str, ...],
    features: Sequence[NDArray[np.float32]],
    labels: Sequence[NDArray[Any]],
    is_test: NDArray[np.bool_],
    longest: int | None = None,
) -> SpeechData:
    """Standardises and pads utterances of different lengths.

    Args:
        name: for people to read.
        alphabet: see :class:`SpeechData`.
        features: of each utterance, of shape ``(frames, mels)``.
        labels: of each, from 1.
        is_test: of shape ``(utterances,)``.
        longest: to what length labels are padded. Default: the longest.
    """
    heard = np.concatenate([each for each, test in zip(features, is_test, strict=True) if not test])
    # A band that never changes, such as that of silence, says nothing.
    mean, deviation = heard.mean(axis=0), np.maximum(heard.std(axis=0), 1e-6)
    columns = {
        "features": _pad([(each - mean) / deviation for each in features]),
        "feature_lengths": np.array([len(each) for each in features], np.int32),
        "labels": _pad([each.astype(np.int32) for each in labels], longest),
        "label_lengths": np.array([len(each) for each in labels], np.int32),
    }
    train, test = ({key: column[rows] for key, column in columns.items()} for rows in (~is_test, is_test))
    return SpeechData(name, alphabet, train, test)


def _pad(parts: list[NDArray[Any]], length: int | None = None) -> NDArray[Any]:
    length = length or max(map(len, parts))
    out = np.zeros((len(parts), length, *parts[0].shape[1:]), parts[0].dtype)
    for row, part in zip(out, parts, strict=True):
        row[: len(part)] = part
    return out
