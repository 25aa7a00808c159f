"""Text: what encodes decodes, pairs are merged by frequency, and windows predict the next token."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxopt_core.data import BPE, Arrays, ByteTokenizer, DataFileError, load_pydoc, load_text, windows

TEXT = "the other one, then another; thé end.\n\n  there  and then\t" * 5
TRAINED = BPE.train(TEXT, 290)


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_what_encodes_decodes(text):
    for tokenizer in (ByteTokenizer(), TRAINED):
        tokens = tokenizer.encode(text)
        assert tokens.dtype == np.int32
        assert tokens.max(initial=0) < tokenizer.vocab_size
        assert tokenizer.decode(tokens) == text


def test_merges_are_those_of_the_published_algorithm():
    # Written as the paper has it: count all pairs anew for each merge.
    words = [tuple(word) for word in re.findall(rb"\s?[^\s]+|\s+(?=\s[^\s])|\s+", TEXT.encode())]
    for index, merge in enumerate(TRAINED.merges):
        counts = Counter(pair for word in words for pair in itertools.pairwise(word))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        assert merge == best
        for i, word in enumerate(words):
            out = list(word)
            for at in range(len(out) - 1):
                if at + 1 < len(out) and (out[at], out[at + 1]) == best:
                    out[at : at + 2] = [256 + index]
            words[i] = tuple(out)
    np.testing.assert_array_equal(TRAINED.encode(TEXT), [token for word in words for token in word])


def test_bpe_stops_where_nothing_repeats():
    assert BPE.train("abcd", 1000).vocab_size == 256
    assert BPE.train("", 256).encode("").shape == (0,)
    with pytest.raises(ValueError, match="vocab_size of at least 256, one for each byte, got 255"):
        BPE.train("ab", 255)


def test_bpe_file(tmp_path):
    path = tmp_path / "merges.json"
    TRAINED.save(path)
    assert BPE.load(path).merges == TRAINED.merges
    for content, message in {
        "{": "expected JSON, found",
        "[]": "expected merges of a BPE",
        '{"merges": [[300, 1]]}': r"found merge 0 is of \(300, 1\), expected tokens from 0 to 255",
    }.items():
        path.write_text(content)
        with pytest.raises(DataFileError, match=message):
            BPE.load(path)


def test_load_text_splits_between_characters(tmp_path):
    (tmp_path / "b.txt").write_text("é" * 33)
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "c.md").write_text("not this")
    data = load_text(tmp_path)
    train, test = (data.tokenizer.decode(part) for part in (data.train, data.test))
    assert train + test == "first\n" + "é" * 33
    assert data.test_bytes == len(test.encode()) == 6


def test_load_text_refuses(tmp_path):
    with pytest.raises(DataFileError, match="found 0 files with nothing in them"):
        load_text(tmp_path)
    with pytest.raises(DataFileError, match="expected a text file, found no such file"):
        load_text(tmp_path / "absent.txt")
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataFileError, match=r"a.txt: .* found an empty file"):
        load_text(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text("some")
    with pytest.raises(ValueError, match="between 0 and 1, got 0"):
        load_text(tmp_path, test_fraction=0)


def test_pydoc_is_english_with_nothing_on_both_sides():
    data = load_pydoc()
    train, test = (data.tokenizer.decode(part) for part in (data.train, data.test))
    assert len(train) > 300_000
    assert 0.04 < len(test) / len(train) < 0.3
    assert train.count(" the ") > 2000
    lines = {line.strip() for line in train.splitlines() if len(line) > 60}
    shared = [line for line in test.splitlines() if len(line) > 60 and line.strip() in lines]
    assert len(shared) < 0.005 * test.count("\n")


def test_windows():
    tokens = np.arange(100, dtype=np.int32)
    pieces = windows(tokens, 10, stride=3)
    np.testing.assert_array_equal(pieces["targets"], pieces["tokens"] + 1)
    assert pieces["tokens"][:, 0].tolist() == list(range(0, 90, 3))
    assert np.shares_memory(pieces["tokens"], tokens)
    batch = next(iter(Arrays(pieces, 4, shuffle=False)))
    assert batch["tokens"].shape == (4, 10)
    assert windows(tokens, 99)["tokens"].shape == (1, 99)
    with pytest.raises(ValueError, match="more than 100 tokens for windows of 100, got 100"):
        windows(tokens, 100)
    with pytest.raises(ValueError, match="at least 1, got 5 and 0"):
        windows(tokens, 5, stride=0)
