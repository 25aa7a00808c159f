"""Word and character error rate, and the sequences that CTC's outputs stand for."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

__all__ = ["ErrorRate", "ctc_greedy", "edit_distance"]


def edit_distance(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> int:
    """Least number of insertions, deletions and substitutions that turn one sequence into the other.

    Source: Wagner and Fischer, "The String-to-String Correction Problem", 1974.

    Example:
        >>> edit_distance("kitten", "sitting"), edit_distance("the cat sat".split(), "the cat".split())
        (3, 1)
    """
    row = np.arange(len(hypothesis) + 1)
    numbers: dict[Hashable, int] = {}
    first, second = (
        np.array([numbers.setdefault(item, len(numbers)) for item in sequence], np.int64)
        for sequence in (reference, hypothesis)
    )
    places = np.arange(1, len(second) + 1)
    for count, item in enumerate(first, 1):
        best = np.minimum(row[1:] + 1, row[:-1] + (second != item))
        # An insertion costs one more than the entry to the left: a running minimum of entry minus place.
        shifted = np.concatenate([[count], best - places])
        row = np.minimum.accumulate(shifted) + np.arange(len(row))
    return int(row[-1])


class ErrorRate:
    """Edits per word or character of the references, over all of them together.

    Word error rate where the sequences are lists of words, character error rate where they are strings.

    Attributes:
        edits: insertions, deletions and substitutions so far.
        length: of the references so far.

    Example:
        >>> cer, wer = ErrorRate(), ErrorRate()
        >>> said, heard = "the cat sat", "the bat sat up"
        >>> cer.add([said], [heard])
        >>> wer.add([said.split()], [heard.split()])
        >>> print(f"{cer.value:.4f} {wer.value:.4f}")
        0.3636 0.6667
    """

    def __init__(self) -> None:
        self.edits, self.length = 0, 0

    def add(
        self,
        references: Iterable[Sequence[Hashable]],
        hypotheses: Iterable[Sequence[Hashable]],
        mask: Any = None,
    ) -> None:
        """Adds pairs of sequences; ``mask`` is False for pairs that do not count."""
        pairs = list(zip(references, hypotheses, strict=True))
        counts = [True] * len(pairs) if mask is None else np.asarray(mask, bool).tolist()
        for (reference, hypothesis), is_counted in zip(pairs, counts, strict=True):
            if is_counted:
                self.edits += edit_distance(reference, hypothesis)
                self.length += len(reference)

    def merge(self, other: ErrorRate) -> None:
        """Adds what another one counted."""
        self.edits += other.edits
        self.length += other.length

    @property
    def value(self) -> float:
        """Edits per item of the references, above 1 if much is inserted; NaN of nothing."""
        return self.edits / self.length if self.length else float("nan")


def ctc_greedy(log_probs: Any, lengths: Any, *, blank: int = 0) -> list[list[int]]:
    """The likeliest class of each frame, with repetitions merged and blanks dropped.

    Source: Graves et al., "Connectionist Temporal Classification", 2006, section 3.2 (best path decoding).

    Args:
        log_probs: ``(T, N, classes)``, as :func:`jaxopt_core.losses.ctc_loss` takes them.
        lengths: ``(N,)`` frames that count.
        blank: class of the blank. Default 0.

    Returns:
        A list of classes for each of the ``N``.

    Example:
        >>> frames = [1, 1, 0, 1, 2, 2]
        >>> ctc_greedy(np.eye(3)[frames][:, None], [6])
        [[1, 1, 2]]
    """
    classes = np.asarray(log_probs).argmax(axis=-1).T
    found = []
    for row, length in zip(classes, np.asarray(lengths), strict=True):
        frames = row[:length]
        starts = np.concatenate([[True], frames[1:] != frames[:-1]])[: len(frames)]
        found.append(frames[starts & (frames != blank)].tolist())
    return found
