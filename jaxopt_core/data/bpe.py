"""Byte-pair encoding, small: tokens are bytes and what pairs of tokens merge to.

Source: Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units", 2016,
algorithm 1, on bytes as in Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxopt_core.data.files import DataFileError, read_bytes

__all__ = ["BPE"]

# A word has the one blank before it. Every byte is in one of the pieces.
_WORD = re.compile(rb"\s?[^\s]+|\s+(?=\s[^\s])|\s+")
Pair = tuple[int, int]


class BPE:
    """Words of a text, cut into the pieces that are frequent in the text it was trained on.

    Args:
        merges: pairs of tokens in the order in which they were found; the pair at index ``i`` makes token
            ``256 + i``.

    Example:
        >>> bpe = BPE.train("low lower lowest newest widest " * 3, vocab_size=262)
        >>> tokens = bpe.encode("slowest")
        >>> [bpe.decode([token]) for token in tokens]
        ['s', 'low', 'est']
        >>> bpe.decode(tokens)
        'slowest'
    """

    def __init__(self, merges: Iterable[Sequence[int]]) -> None:
        self.merges: list[Pair] = [(int(a), int(b)) for a, b in merges]
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._bytes = [bytes([i]) for i in range(256)]
        for index, (a, b) in enumerate(self.merges):
            if not (0 <= a < 256 + index and 0 <= b < 256 + index):
                raise ValueError(f"merge {index} is of {(a, b)}, expected tokens from 0 to {255 + index}")
            self._bytes.append(self._bytes[a] + self._bytes[b])
        self._known: dict[bytes, tuple[int, ...]] = {}

    @classmethod
    def train(cls, text: str | bytes, vocab_size: int) -> BPE:
        """Finds the merges: again and again the most frequent pair, of equally frequent ones the smallest.

        Args:
            text: to count pairs in. Pairs do not cross words.
            vocab_size: 256 bytes and the merges; fewer if no pair is left that occurs twice.

        Raises:
            ValueError: ``vocab_size`` is less than 256.
        """
        if vocab_size < 256:
            raise ValueError(f"expected a vocab_size of at least 256, one for each byte, got {vocab_size}")
        counted = Counter(_WORD.findall(_as_bytes(text)))
        words, counts = [tuple(word) for word in counted], list(counted.values())
        pairs: Counter[Pair] = Counter()
        where: defaultdict[Pair, set[int]] = defaultdict(set)
        for index, word in enumerate(words):
            for pair in itertools.pairwise(word):
                pairs[pair] += counts[index]
                where[pair].add(index)
        merges: list[Pair] = []
        while len(merges) < vocab_size - 256 and pairs:
            most = max(pairs.values())
            if most < 2:
                break
            best = min(pair for pair, count in pairs.items() if count == most)
            for index in where[best]:
                old = words[index]
                new = words[index] = _merge(old, best, 256 + len(merges))
                for pair in itertools.pairwise(old):
                    pairs[pair] -= counts[index]
                for pair in itertools.pairwise(new):
                    pairs[pair] += counts[index]
                    where[pair].add(index)
            del pairs[best], where[best]
            merges.append(best)
        return cls(merges)

    @property
    def vocab_size(self) -> int:
        """256 and the number of merges."""
        return len(self._bytes)

    def encode(self, text: str | bytes) -> NDArray[np.int32]:
        """Tokens of a text, int32 of shape ``(tokens,)``."""
        tokens: list[int] = []
        for word in _WORD.findall(_as_bytes(text)):
            if word not in self._known:
                self._known[word] = self._encode_word(word)
            tokens += self._known[word]
        return np.array(tokens, np.int32)

    def decode(self, tokens: Sequence[int] | NDArray[Any]) -> str:
        """The text; bytes that are not UTF-8, such as half a character, become U+FFFD."""
        return b"".join(self._bytes[token] for token in tokens).decode(errors="replace")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the merges as JSON."""
        Path(path).write_text(json.dumps({"format": "jaxopt-core BPE", "merges": self.merges}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BPE:
        """Reads what :meth:`save` wrote.

        Raises:
            DataFileError: there is no such file, or something else is in it.
        """
        content = read_bytes(Path(path), what="merges of a BPE")
        try:
            return cls(json.loads(content)["merges"])
        except json.JSONDecodeError as error:
            raise DataFileError(path, expected="JSON", found=error.msg, at=f"byte {error.pos}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise DataFileError(path, expected="merges of a BPE", found=str(error)) from None

    def _encode_word(self, word: bytes) -> tuple[int, ...]:
        tokens = tuple(word)
        while len(tokens) > 1:
            best = min(itertools.pairwise(tokens), key=lambda p: self._ranks.get(p, len(self._ranks)))
            if best not in self._ranks:
                break
            tokens = _merge(tokens, best, 256 + self._ranks[best])
        return tokens


def _as_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _merge(tokens: tuple[int, ...], pair: Pair, merged: int) -> tuple[int, ...]:
    out, i = [], 0
    while i < len(tokens):
        if tokens[i : i + 2] == pair:
            out.append(merged)
            i += 2
        else:
            out.append(tokens[i])
            i += 1
    return tuple(out)
