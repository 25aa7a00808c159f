"""Pickles and zip files made to run code or to exhaust memory do neither."""

import builtins
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from jaxopt_core import interop
from tests.interop import forged
from tests.interop.forged import archive, call, number, program, storage, tensor, text
from tests.interop.forged_pickles import PICKLES

FEW = 150 << 20  # bytes; the budget of a small file is 64 MiB, and tracemalloc counts what is freed later


@pytest.fixture
def refusal(tmp_path):
    """Reads forged bytes, and returns the error's text, having seen that little was allocated."""
    path = tmp_path / "evil.pt"

    def read(content, allowed=FEW, **options):
        path.write_bytes(content)
        tracemalloc.start()
        try:
            with pytest.raises(interop.CheckpointError) as caught:
                interop.load(path, **options)
            assert tracemalloc.get_traced_memory()[1] < allowed + 8 * len(content)
        finally:
            tracemalloc.stop()
        assert str(path) in str(caught.value)
        return str(caught.value)

    return read


class Runs:
    """Pickled by reference to a function, which plain pickle.loads would call."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def marked(mark):
    """Code that leaves a mark where it runs."""
    return f"open({str(mark)!r}, 'w').close()"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda mark: Runs(os.system, f"touch {mark}"), "system"),
        (lambda mark: Runs(builtins.eval, marked(mark)), "builtins.eval"),
        (lambda mark: Runs(builtins.exec, marked(mark)), "builtins.exec"),
        (lambda mark: Runs(builtins.getattr, Runs(__import__, "os"), "system"), "builtins.getattr"),
        (lambda mark: {"a": [Runs(builtins.eval, marked(mark))]}, "builtins.ev"),
        (lambda mark: Runs(builtins.map, Runs(builtins.eval, marked(mark)), [1]), "map: "),
    ],
)
def test_code_is_named_and_does_not_run(make, name, protocol, refusal, tmp_path):
    mark = tmp_path / "ran"
    content = pickle.dumps(make(mark), protocol=protocol)
    assert name in refusal(archive(content))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["posix.system", "os.system", "builtins.eval", "subprocess.Popen"])
def test_nobody_is_told_to_run_an_attack(name, refusal):
    message = refusal(archive(program(call(name, text("true")))))
    assert "Do not load it" in message
    assert "If you trust" not in message


def test_these_pickles_would_run(tmp_path):
    # Without this, the test above could pass with pickles that do nothing.
    mark = tmp_path / "ran"
    pickle.loads(pickle.dumps(Runs(builtins.eval, marked(mark))))
    assert mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        "torch.load",
        "torch.hub.load",
        "torch._utils._set_obj_state",
        "torch.storage._load_from_bytes",
        "torch.jit.load",
        "torch._dynamo.eval_frame.exec",
        "torch.serialization._load",
        "numpy.load",
        "numpy.f2py.crackfortran.myeval",
        "numpy.testing._private.utils.runstring",
        "jaxopt_core.interop.save",
        "jaxopt_core.interop._machine.Function",
        "pickle.loads",
        "copyreg._reconstructor",
        "functools.partial",
        "operator.attrgetter",
        "collections.namedtuple",
        "collections.OrderedDict.__class__",
        "builtins.__import__",
        "importlib.import_module",
    ],
)
def test_functions_of_libraries_are_no_gadgets(name, refusal):
    for program_ in (
        program(call(name, text("x"))),
        program(text(name.rpartition(".")[0]), text(name.rpartition(".")[2]), b"\x93(", text("x"), b"tR"),
        program(f"c{name.rpartition('.')[0]}\n{name.rpartition('.')[2]}\n".encode()),
    ):
        assert f"refused {name}: " in refusal(archive(program_))


@pytest.mark.parametrize("name", PICKLES)
def test_pickle(name, refusal):
    content, expected = PICKLES[name]
    assert expected in refusal(archive(content))


def test_billion_laughs(refusal):
    doubled = b"]Na" + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(100))
    assert "repeats its parts" in refusal(archive(program(doubled)))


@pytest.mark.parametrize(
    "repeated",
    [
        call("_codecs.encode", b"h\x00", text("latin1")),
        call("builtins.bytearray", b"h\x01"),
        call("builtins.set", b"h\x02"),
        call("collections.OrderedDict", b"h\x03"),
        call(
            "torch._utils._rebuild_tensor_v2",
            b"h\x04",
            number(0),
            forged.numbers([2**24]),
            forged.numbers([1]),
        )[:-2]
        + forged.NO_HOOKS
        + b"}"
        + text("neg")
        + b"\x88stR",
    ],
    ids=["encode", "bytearray", "set", "OrderedDict", "neg"],
)
def test_copying_what_is_in_the_memo_again_and_again(repeated, refusal):
    size = 1 << 20
    zeros = bytes(4 << 24)
    parts = [
        b"(",
        text("x" * size) + b"q\x00",
        b"B" + struct.pack("<I", size) + bytes(size) + b"q\x01",
        b"](" + b"".join(b"J" + struct.pack("<i", n) for n in range(size // 100)) + b"eq\x02",
        b"](" + b"".join(b"J" + struct.pack("<i", n) + b"N\x86" for n in range(size // 100)) + b"eq\x03",
        storage(size=2**24) + b"q\x04",
        repeated * 2000,
        b"t",
    ]
    content = archive(program(*parts), {"data/0": zeros}, zipfile.ZIP_DEFLATED)
    assert "would allocate more than" in refusal(content)


@pytest.mark.parametrize("opcode", [b"]", b"}", b"\x8f", b"(", b"]\x94", b"N\x85"])
def test_one_byte_that_costs_hundreds(opcode, refusal):
    content = archive(program(opcode * 40_000))
    assert "would allocate more than" in refusal(content, allowed=3 << 20, max_bytes=1 << 20)


def patched(content, signature, offset, layout, value, which=0):
    """Overwrites a field of a zip file's header."""
    start = -1
    for _ in range(which + 1):
        start = content.index(signature, start + 1)
    changed = bytearray(content)
    struct.pack_into(layout, changed, start + offset, value)
    return bytes(changed)


CENTRAL, END = b"PK\x01\x02", b"PK\x05\x06"


def test_decompression_bomb(refusal):
    content = archive(program(tensor()), {"data/0": bytes(1 << 28)}, zipfile.ZIP_DEFLATED)
    assert len(content) < 1 << 20
    assert "would allocate more than" in refusal(content)


@pytest.mark.parametrize("claimed", [0, 16, 17])
def test_decompression_bomb_that_claims_to_be_small(claimed, refusal):
    content = archive(program(tensor()), {"data/0": bytes(1 << 28)}, zipfile.ZIP_DEFLATED)
    assert "it is not the" in refusal(patched(content, CENTRAL, 24, "<I", claimed, which=1)).replace(
        "in it is", "it is"
    )


def test_record_that_claims_more_than_there_is(refusal):
    content = archive(program(tensor()))
    large = patched(patched(content, CENTRAL, 20, "<I", 2**31, 1), CENTRAL, 24, "<I", 2**31, 1)
    assert "beyond its end" in refusal(large)


def test_record_that_claims_another_size(refusal):
    assert "stored in 16 bytes but claims 17" in refusal(
        patched(archive(program(tensor())), CENTRAL, 24, "<I", 17, 1)
    )


def test_records_that_overlap(refusal):
    # All claim the bytes of the first: a small file with much content.
    assert "overlap" in refusal(patched(archive(program(tensor())), CENTRAL, 42, "<I", 0, 1))


def test_record_elsewhere(refusal):
    assert "there is no record at byte 3" in refusal(
        patched(archive(program(tensor())), CENTRAL, 42, "<I", 3, 1)
    )


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_record_twice(refusal):
    file = io.BytesIO(archive(program(tensor())))
    with zipfile.ZipFile(file, "a") as made:
        made.writestr("forged/data.pkl", program(b"N"))
    assert "'forged/data.pkl' twice" in refusal(file.getvalue())


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "forged/../../evil", "c:/evil", "a\\..\\evil"])
def test_path_traversal(name, refusal, tmp_path):
    file = io.BytesIO(archive(program(tensor())))
    with zipfile.ZipFile(file, "a") as made:
        made.writestr(name, b"evil")
    before = sorted(tmp_path.parent.rglob("*"))
    assert "out of the archive" in refusal(file.getvalue())
    assert sorted(tmp_path.parent.rglob("*")) == sorted([*before, tmp_path / "evil.pt"])


def test_encrypted(refusal):
    assert "encrypted" in refusal(patched(archive(program(tensor())), CENTRAL, 8, "<H", 1))


def test_other_compression(refusal):
    assert "method 14" in refusal(archive(program(tensor()), method=zipfile.ZIP_LZMA))


def test_broken_deflate(refusal):
    content = archive(program(tensor()), {"data/0": bytes(1000)}, zipfile.ZIP_DEFLATED)
    packed = zlib.compress(bytes(1000))[2:-4]
    assert "cannot be decompressed" in refusal(content.replace(packed[:4], b"\xff" * 4))


def test_a_limit_that_is_too_low_can_be_raised(tmp_path):
    path = tmp_path / "large.pt"
    path.write_bytes(archive(program(tensor()), {"data/0": bytes(1 << 27)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(interop.CheckpointError, match="pass a larger max_bytes"):
        interop.load(path)
    np.testing.assert_array_equal(interop.load(path, max_bytes=1 << 28), np.zeros(4, np.float32))


def test_the_forger_can_write_honest_files(tmp_path):
    path = tmp_path / "honest.pt"
    path.write_bytes(archive(program(tensor())))
    np.testing.assert_array_equal(interop.load(path), np.arange(4, dtype=np.float32))
