"""Damaged files and random programs: each is read, or refused by the one error, and none costs much."""

import collections
import io
import pickletools
import random
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from jaxopt_core import interop
from jaxopt_core.interop._table import build_table
from jaxopt_core.interop._tensors import Storages
from jaxopt_core.interop.errors import Budget
from tests.interop import torch_files
from tests.interop.forged import archive
from tests.interop.random_programs import Writer

WATCHED = 40  # one in so many: watching memory makes reading slow
ALLOWED = 2 << 20  # bytes for a file of some kilobytes; the budget would allow 64 MiB


def seeds():
    checkpoint = {
        "model": torch.nn.BatchNorm1d(2).state_dict(),
        "views": {name: torch_files.views()[name] for name in ("transposed", "neg", "parameter", "buffer")},
        "dtypes": [torch_files.tensor(dtype, (3,)) for dtype in ("bfloat16", "uint16")],
        "numpy": [np.arange(3.0), np.arange(2, dtype=">i2")],
        "counter": collections.Counter([1]),
        "values": [
            None,
            True,
            1.5,
            2**70,
            "text",
            b"bytes",
            bytearray(b"b"),
            1j,
            {1},
            frozenset({"a"}),
            (1, (2, 3)),
        ],
    }
    files = [torch_files.save(checkpoint, pickle_protocol=protocol) for protocol in (2, 4)]
    return [*files, packed(*unpacked(files[0]), zipfile.ZIP_DEFLATED)]


def unpacked(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in records if name.endswith("/data.pkl"))
    return records, pickled


def packed(records, pickled, method=zipfile.ZIP_STORED):
    del pickled
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return file.getvalue()


def damage_bytes(content, rng):
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at, size = rng.randrange(len(content)), rng.randrange(1, 9)
        match rng.randrange(7):
            case 0:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                content[at] = rng.choice(b"\x00\xff\x7f\x80.RbQcqhj(teu\x81\x85\x93\x94}])")
            case 2:
                content[at : at + 4] = rng.choice([b"\xff" * 4, b"\xff\xff\xff\x7f", bytes(4), b"\0\0\0\x80"])
            case 3:
                del content[at : at + size]
            case 4:
                content[at:at] = rng.randbytes(size)
            case 5:
                other = rng.randrange(len(content))
                content[at : at + size] = content[other : other + size]
            case 6 if rng.random() < 0.2:
                del content[at + 1 :]
    return bytes(content)


def damage_program(content, rng):
    """Opcodes, whole, in another order, twice, left out, or taken from elsewhere."""
    starts = [at for _, _, at in pickletools.genops(content)]
    opcodes = [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)]
    for _ in range(rng.choice([1, 2, 3, 8])):
        at, other = rng.randrange(1, len(opcodes) - 1), rng.randrange(1, len(opcodes) - 1)
        match rng.randrange(4):
            case 0:
                opcodes[at], opcodes[other] = opcodes[other], opcodes[at]
            case 1:
                opcodes.insert(at, opcodes[other])
            case 2:
                del opcodes[at]
            case 3:
                opcodes[at] = opcodes[other]
    return b"".join(opcodes)


def damaged(files, rng):
    content = rng.choice(files)
    kind = rng.randrange(3)
    if kind == 0:
        return damage_bytes(content, rng)
    records, pickled = unpacked(content)
    records[pickled] = (damage_bytes if kind == 1 else damage_program)(records[pickled], rng)
    return packed(records, pickled)


def read(path, verify):
    try:
        interop.load(path, verify=verify)
    except interop.CheckpointError as error:
        return error.fault
    return "read"


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damaged_files(count, tmp_path):
    rng = random.Random(count)
    files = seeds()
    path = tmp_path / "damaged.pt"
    outcomes = set()
    for number in range(count):
        content = damaged(files, rng)
        path.write_bytes(content)
        watched = number % WATCHED == 0
        if watched:
            tracemalloc.start()
        try:
            outcomes.add(read(path, verify=number % 2 == 0))
            if watched:
                assert tracemalloc.get_traced_memory()[1] < ALLOWED
        except BaseException:
            (tmp_path / "culprit.pt").write_bytes(content)
            raise
        finally:
            tracemalloc.stop()
    # The damage went deep enough to matter, and left some files alone.
    assert len(outcomes) > 50
    assert "read" in outcomes


def test_random_programs(tmp_path):
    budget = Budget(0)
    names = sorted(build_table(Storages(None, "", True, budget), budget))
    writer = Writer(names, random.Random(0))
    path = tmp_path / "program.pt"
    outcomes = set()
    for number in range(2_000):
        content = archive(writer.program(), {"data/0": bytes(range(64)), "data/1": bytes(64)})
        path.write_bytes(content)
        outcomes.add(read(path, verify=number % 2 == 0))
    assert len(outcomes) > 50
    assert "read" in outcomes


def test_every_cut(tmp_path):
    content = seeds()[0]
    path = tmp_path / "cut.pt"
    for end in [*range(64), *range(64, len(content), 197), *range(len(content) - 64, len(content))]:
        path.write_bytes(content[:end])
        with pytest.raises(interop.CheckpointError):
            interop.load(path)


def test_every_flipped_byte_of_the_records_is_noticed(tmp_path):
    # What lies between the records, padding and copies of the table's fields, is not looked at.
    content = torch_files.save({"x": torch_files.tensor()})
    path = tmp_path / "flipped.pt"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        numbers = archive.read("archive/data/0")
        pickled = archive.read("archive/data.pkl")
    for record in (numbers, pickled):
        start = content.index(record)
        for at in range(start, start + len(record)):
            flipped = bytearray(content)
            flipped[at] ^= 0x10
            path.write_bytes(flipped)
            with pytest.raises(interop.CheckpointError, match=r"is damaged: its checksum"):
                interop.load(path)
