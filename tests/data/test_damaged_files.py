"""Files damaged at random: each is read, or refused with one line that names it, and nothing else happens."""

import gzip
import io
import random
import struct
import wave

import numpy as np
import pytest

from jaxopt_core.data import BPE, DataFileError, load_movielens, read_idx, read_wav


def wav_bytes():
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((2, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.arange(100, dtype="<i2").tobytes())
    return buffer.getvalue()


ROWS = b"".join(b"%d,%d,%d.5,%d\n" % (i, 3 * i, i % 5, 10**9 + i) for i in range(9))
IDX = struct.pack(">HBB2I", 0, 8, 2, 3, 4) + bytes(12)
READERS = {
    "wav": (wav_bytes(), read_wav),
    "movielens": (b"userId,movieId,rating,timestamp\n" + ROWS, load_movielens),
    "idx": (IDX, read_idx),
    "idx in gzip": (gzip.compress(IDX, mtime=0), read_idx),
    "bpe": (b'{"merges": [[1, 2], [256, 3]]}', BPE.load),
}


def damage(content, rng):
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed)) if changed else 0
        kind = rng.choice("sscaid")
        if kind == "s" and changed:
            changed[place] = rng.choice([0, 255, *b"\n,-e", rng.randrange(256)])
        elif kind == "c":
            del changed[place:]
        elif kind == "d":
            del changed[place : place + rng.randint(1, 6)]
        else:
            changed[place:place] = rng.randbytes(rng.randint(1, 5))
    return bytes(changed)


@pytest.mark.parametrize("name", READERS)
def test_damaged(tmp_path, name):
    content, read = READERS[name]
    path, rng, refused = tmp_path / "file", random.Random(0), 0
    for _ in range(400):
        path.write_bytes(damage(content, rng))
        try:
            read(path)
        except DataFileError as error:
            refused += 1
            assert str(error).startswith(f"{path}: expected ")  # noqa: PT017 - what is not raised is fine too
            assert "\n" not in str(error)  # noqa: PT017
    assert refused > 150
