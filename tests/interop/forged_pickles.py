"""Pickle programs that no file of torch.save holds, and a part of what is said about each."""

import struct

from tests.interop import forged
from tests.interop.forged import call, number, program, storage, tensor, text

PICKLES = {
    # Names that are known, used as what they are not.
    "a function as data": (program(forged.TENSOR), "in the place of data"),
    "a class as data": (program(b"ctorch\nTensor\n"), "in the place of data"),
    "a storage as data": (program(storage()), "bare storage"),
    "a dtype is called": (program(b"ctorch\nfloat32\n)R"), "refused to call"),
    "a tensor is called": (program(tensor(), b")R"), "refused to call"),
    "builtins.int is called": (program(call("builtins.int", text("9" * 9))), "refused to call builtins.int"),
    "a tensor from a tensor": (program(tensor(memory=tensor())), "that PyTorch never gives"),
    "a rebuild of a rebuild": (
        program(
            call(
                "torch._tensor._rebuild_from_type_v2", b"c_codecs\nencode\n", b"ctorch\nTensor\n", b")", b"}"
            )
        ),
        "that PyTorch never gives",
    ),
    "state of a dictionary": (program(b"}}", text("update"), b"Nsb"), "refused to set the state"),
    "state of an OrderedDict": (
        program(b"ccollections\nOrderedDict\n)R}", text("__class__"), b"Nsb"),
        "refused to set the state",
    ),
    "state of a function": (program(forged.TENSOR, b"}b"), "refused to set the state"),
    "metadata that is no dictionary": (
        program(b"ccollections\nOrderedDict\n)R}", text("_metadata"), forged.TENSOR, b"sb"),
        "_metadata",
    ),
    "metadata that is a function": (
        program(b"ccollections\nOrderedDict\n)R}", text("_metadata"), b"}", text("a"), forged.TENSOR, b"ssb"),
        "in the place of data",
    ),
    "the other encodings": (program(call("_codecs.encode", text("x"), text("idna"))), "arguments"),
    "an array of objects": (
        program(call("numpy.dtype", text("O8"), b"\x89", b"\x88")),
        "'O8'",
    ),
    "an array that is not filled": (
        program(call("numpy._core.multiarray._reconstruct", b"cnumpy\nndarray\n", b"(K\x00t", b"C\x01b")),
        "in the place of data",
    ),
    # Opcodes.
    "extension registry": (program(b"\x82\x01"), "EXT1"),
    "extension registry, two bytes": (program(b"\x83\x01\x00"), "EXT2"),
    "extension registry, four bytes": (program(b"\x84\x01\x00\x00\x00"), "EXT4"),
    "INST": (b"(ios\nsystem\n.", "INST"),
    "OBJ": (program(b"(cos\nsystem\no"), "refused os.system"),
    "OBJ of a known name": (program(b"(", forged.TENSOR, b"o"), "OBJ"),
    "persistent id of protocol 0": (program(b"Pstorage\n"), "PERSID"),
    "out-of-band buffers": (program(b"\x97"), "NEXT_BUFFER"),
    "numbers as text": (program(b"L" + b"9" * 10000 + b"L\n"), "LONG"),
    "DUP": (program(b"]2a"), "DUP"),
    # Persistent ids that lie.
    "persistent id is text": (program(text("storage"), b"Q"), "not a storage"),
    "persistent id is a module": (
        program(b"(", text("module"), b"ctorch\nFloatStorage\n", text("0"), text("cpu"), number(4), b"tQ"),
        "not a storage",
    ),
    "persistent id has a tensor for its word": (
        program(b"(", tensor(), b"ctorch\nFloatStorage\n", text("0"), text("cpu"), number(4), b"tQ"),
        "not a storage",
    ),
    "storage of another file": (program(tensor(memory=storage(key="../../../etc/passwd"))), "it lacks"),
    "storage of an absolute path": (program(tensor(memory=storage(key="/etc/passwd"))), "it lacks"),
    "storage of another kind": (program(tensor(memory=storage("QInt8Storage"))), "quantized"),
    # Sizes that lie.
    "storage larger than its record": (program(tensor(memory=storage(size=5))), "claims 20"),
    "storage of half the record as doubles": (
        program(tensor(memory=storage("DoubleStorage", size=4))),
        "claims 32",
    ),
    "storage of negative size": (program(tensor(memory=storage(size=-1))), "claims -4"),
    "shape beyond the storage": (program(tensor(shape=(5,))), "reaches element 4"),
    "strides beyond the storage": (program(tensor(shape=(2,), strides=(4,))), "reaches element 4"),
    "offset beyond the storage": (program(tensor(offset=1)), "reaches element 4"),
    "negative offset": (program(tensor(offset=-1)), "no tensor has"),
    "negative shape": (program(tensor(shape=(-1,))), "no tensor has"),
    "negative stride": (program(tensor(strides=(-1,), offset=3)), "no tensor has"),
    "huge shape": (program(tensor(shape=(2**62,))), "no tensor has"),
    "shape that overflows": (program(tensor(shape=(2**31, 2**31, 2**31), strides=(0, 0, 0))), "no memory"),
    "empty shape that overflows": (program(tensor(shape=(0, 2**61, 2**61), strides=(1, 1, 1))), "no memory"),
    "expanded to a terabyte": (program(tensor(shape=(2**38,), strides=(0,))), "repeats a storage"),
    "more dimensions than numpy has": (program(tensor(shape=(1,) * 65, strides=(1,) * 65)), "65 dimensions"),
    "strides of another rank": (program(tensor(strides=(1, 1))), "no tensor has"),
    "numpy array of too few bytes": (
        program(
            call(
                "numpy._core.numeric._frombuffer",
                b"C\x04abcd",
                b"cml_dtypes\nbfloat16\n",
                b"(J\xff\xff\xff\x7ft",
                text("C"),
            )
        ),
        "in 4 bytes",
    ),
    "text longer than the file": (program(b"X\xff\xff\xff\xff"), "ends in the middle"),
    "text of 2**63 bytes": (program(b"\x8d" + b"\xff" * 8), "ends in the middle"),
    "bytes of 2**63": (program(b"\x8e" + b"\xff" * 8), "ends in the middle"),
    "bytearray of 2**62": (program(b"\x96" + b"\xff" * 7 + b"\x3f"), "ends in the middle"),
    "integer of 2**31 bytes": (program(b"\x8b\xff\xff\xff\x7f"), "integer of"),
    "integer of negative length": (program(b"\x8b\xff\xff\xff\xff"), "integer of"),
    "integer of a million bytes": (program(b"\x8b" + struct.pack("<i", 10**6) + bytes(10**6)), "integer of"),
    # The stack and the memo.
    "empty stack": (program(b"a"), "empty stack"),
    "nothing left": (program(), "in disorder"),
    "two results": (program(b"NN"), "in disorder"),
    "a mark left": (program(b"(N"), "in disorder"),
    "no mark": (program(b"t"), "mark"),
    "memo that is not there": (program(b"h\x07"), "entry 7 of its memo"),
    "a function from the memo": (
        program(forged.TENSOR, b"q\x00)Rh\x00"),
        "that PyTorch never gives",
    ),
    "a function's own memo": (
        program(forged.TENSOR, b"q\x00h\x00\x85R"),
        "that PyTorch never gives",
    ),
    "POP": (program(b"NN0"), "POP"),
    "append to a dictionary": (program(b"}Na"), "appends to"),
    "items of a list": (program(b"]NNs"), "sets items of"),
    "items of a tensor": (program(tensor(), b"NNs"), "sets items of"),
    "a key without a value": (program(b"}(Nu"), "key without a value"),
    "a list in itself": (program(b"]q\x00h\x00a"), "contains itself"),
    "a dictionary in itself": (program(b"}q\x00", text("a"), b"h\x00s"), "contains itself"),
    "a list as a key": (program(b"}]Ns"), "a dictionary's key"),
    "a tensor as a key": (program(b"}", tensor(), b"Ns"), "a dictionary's key"),
    "a deep tuple as a key": (program(b"}", b")" + b"\x85" * 20_000, b"Ns"), "a dictionary's key"),
    "an integer of 1000 bytes as a key": (
        program(b"}\x8b\xe8\x03\x00\x00", b"\x7f" * 1000, b"Ns"),
        "64 bits",
    ),
    # Small programs for large memory.
    "deep lists": (program(b"]" * 20_000 + b"a" * 19_999), "deep"),
    "deep tuples": (program(b")" + b"\x85" * 20_000), "deep"),
}
