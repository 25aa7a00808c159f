"""Files that torch.save would not write: a pickle, and records, of the test's choosing."""

import io
import struct
import zipfile

import numpy as np

TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
NO_HOOKS = b"\x89ccollections\nOrderedDict\n)R"


def text(value):
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value):
    return b"\x8a" + struct.pack("<B", 9) + value.to_bytes(9, "little", signed=True)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def call(name, *arguments):
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n(".encode() + b"".join(arguments) + b"tR"


def storage(kind="FloatStorage", key="0", size=4):
    return (
        b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(size) + b"tQ"
    )


def tensor(shape=(4,), strides=(1,), offset=0, memory=None):
    return call(
        "torch._utils._rebuild_tensor_v2",
        storage() if memory is None else memory,
        number(offset),
        numbers(shape),
        numbers(strides),
        NO_HOOKS,
    )


def program(*parts):
    return b"\x80\x02" + b"".join(parts) + b"."


def archive(pickled, records=None, method=zipfile.ZIP_STORED, root="forged"):
    """A checkpoint with this pickle and one storage of four float32, 0 to 3, unless records say otherwise."""
    records = (
        {"data/0": np.arange(4, dtype=np.float32).tobytes(), "version": b"3\n"}
        if records is None
        else records
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        made.writestr(f"{root}/data.pkl", pickled)
        for name, content in records.items():
            made.writestr(f"{root}/{name}", content)
    return file.getvalue()
