"""Text as tokens, and tokens as windows for a language model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from jaxopt_core.data.files import DataFileError, read_bytes

__all__ = ["ByteTokenizer", "TextData", "Tokenizer", "load_pydoc", "load_text", "windows"]


class Tokenizer(Protocol):
    """Text to tokens and back; ``decode(encode(text)) == text`` for every text."""

    @property
    def vocab_size(self) -> int:
        """Tokens are from 0 to one less."""
        ...

    def encode(self, text: str | bytes) -> NDArray[np.int32]:
        """Tokens of shape ``(tokens,)``."""
        ...

    def decode(self, tokens: Sequence[int] | NDArray[Any]) -> str:
        """The text; bytes that are not UTF-8 become U+FFFD."""
        ...


class ByteTokenizer:
    """Each byte of UTF-8 is a token.

    Example:
        >>> tokens = ByteTokenizer().encode("né")
        >>> tokens, ByteTokenizer().decode(tokens)
        (array([110, 195, 169], dtype=int32), 'né')
    """

    vocab_size = 256

    def encode(self, text: str | bytes) -> NDArray[np.int32]:
        """The bytes of a text."""
        content = text.encode() if isinstance(text, str) else text
        return np.frombuffer(content, np.uint8).astype(np.int32)

    def decode(self, tokens: Sequence[int] | NDArray[Any]) -> str:
        """The text of bytes."""
        return bytes(np.asarray(tokens, np.uint8)).decode(errors="replace")


class TextData(NamedTuple):
    """What a language model is trained and judged on.

    Attributes:
        name: for people to read.
        tokenizer: that made the tokens.
        train: int32 of shape ``(tokens,)``.
        test: likewise.
        test_bytes: length of the test text, for bits per byte with any tokenizer.
    """

    name: str
    tokenizer: Tokenizer
    train: NDArray[np.int32]
    test: NDArray[np.int32]
    test_bytes: int


def load_text(
    path: str | os.PathLike[str],
    tokenizer: Tokenizer | None = None,
    *,
    test_fraction: float = 0.1,
) -> TextData:
    """Reads a text file, or all ``.txt`` files under a folder in the order of their names.

    Args:
        path: of the file or the folder.
        tokenizer: default: bytes. A :class:`~jaxopt_core.data.BPE` should be trained on the training part
            alone; ``load_text(path).train`` is that part in bytes.
        test_fraction: share at the end of the text that is set apart. Default 0.1.

    Raises:
        DataFileError: there is no such file, none with that ending, or nothing in them.
        ValueError: ``test_fraction`` is not between 0 and 1.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "lines.txt"
        >>> _ = path.write_text("All happy families are alike. " * 10)
        >>> data = load_text(path)
        >>> data.train.shape, data.tokenizer.decode(data.test)
        ((270,), 'All happy families are alike. ')
    """
    path = Path(path)
    paths = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    content = b"\n".join(read_bytes(each, what="a text file") for each in paths)
    if not content:
        found = "an empty file" if path.is_file() else f"{len(paths)} files with nothing in them"
        raise DataFileError(path, expected="text, or a folder of .txt files", found=found)
    if not 0 < test_fraction < 1:
        raise ValueError(f"expected a test_fraction between 0 and 1, got {test_fraction}")
    cut = round(len(content) * (1 - test_fraction))
    while cut < len(content) and content[cut] & 0xC0 == 0x80:  # inside a character
        cut += 1
    return _tokenized(f"text in {path}", content[:cut], content[cut:], tokenizer)


def load_pydoc(tokenizer: Tokenizer | None = None) -> TextData:
    """The English of Python's own reference, which comes with every Python.

    Every tenth topic of ``pydoc_data.topics``, by name, is the test text: about 32 thousand characters beside
    344 thousand to train on. Topics contain each other; a paragraph is kept once, and one of the test text
    is not trained on. The text differs a little between versions of Python.

    Args:
        tokenizer: default: bytes.

    Example:
        >>> data = load_pydoc()
        >>> len(data.train) > 300_000, len(data.test) > 20_000
        (True, True)
    """
    from pydoc_data.topics import topics

    paragraphs: dict[bool, dict[str, None]] = {True: {}, False: {}}
    for index, name in enumerate(sorted(topics)):
        paragraphs[index % 10 == 0].update(dict.fromkeys(topics[name].strip().split("\n\n")))
    test = paragraphs[True]
    train = [paragraph for paragraph in paragraphs[False] if paragraph not in test]
    joined = "\n\n".join
    return _tokenized("Python's reference", joined(train).encode(), joined(test).encode(), tokenizer)


def windows(tokens: NDArray[np.int32], length: int, *, stride: int | None = None) -> dict[str, NDArray[Any]]:
    """Pieces of a text with the token that follows each token, as :class:`~jaxopt_core.data.Arrays` takes.

    They are views: overlapping pieces take no memory until they are drawn.

    Args:
        tokens: int32 of shape ``(tokens,)``.
        length: tokens in a piece.
        stride: from one piece's first token to the next's. Default: ``length``, without overlap.

    Returns:
        ``tokens`` and ``targets``, int32 of shape ``(pieces, length)``; the last tokens that make no
        whole piece are left out.

    Raises:
        ValueError: the text has no more than ``length`` tokens, or one of the numbers is less than 1.

    Example:
        >>> pieces = windows(np.arange(8, dtype=np.int32), 3)
        >>> pieces["tokens"].tolist(), pieces["targets"].tolist()
        ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])
    """
    stride = length if stride is None else stride
    if length < 1 or stride < 1:
        raise ValueError(f"expected a length and a stride of at least 1, got {length} and {stride}")
    if len(tokens) <= length:
        raise ValueError(f"expected more than {length} tokens for windows of {length}, got {len(tokens)}")
    pieces = np.lib.stride_tricks.sliding_window_view(tokens, length + 1)[::stride]
    return {"tokens": pieces[:, :-1], "targets": pieces[:, 1:]}


def _tokenized(name: str, train: bytes, test: bytes, tokenizer: Tokenizer | None) -> TextData:
    tokenizer = tokenizer or ByteTokenizer()
    return TextData(name, tokenizer, tokenizer.encode(train), tokenizer.encode(test), len(test))
