"""Random pickle programs over every name that a checkpoint may use, with arguments that nearly fit.

Damaged files mostly fail early. These get as far as each function's own checks.
"""

import struct

from tests.interop.forged import NO_HOOKS, number, program, storage, text

WORDS = [
    *("storage", "0", "1", "cpu", "latin1", "C", "F", "_metadata", "conj", "neg"),
    *("f8", "b1", "O8", "<", ">", "|"),
]
PLAIN = [
    *(b"N", b"\x88", b"\x89", b")", b"]", b"}", b"\x8f", b"C\x08" + b"\x01" * 8),
    *(b"K" + bytes([n]) for n in (0, 1, 2, 3, 4, 8, 16, 255)),
    *(b"G" + struct.pack(">d", x) for x in (0.0, 1.5, float("nan"), float("inf"))),
    *(number(n) for n in (-1, 2**31, 2**61, 2**62, -(2**63))),
    *(b"h" + bytes([n]) for n in range(6)),
]


def name(full):
    module, _, attribute = full.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


class Writer:
    def __init__(self, names, rng):
        self.names, self.rng = names, rng

    def program(self):
        """A program whose memo has six entries from the start."""
        value = self.nearly_right() if self.rng.random() < 0.5 else self.value()
        return program(b"N" + b"".join(b"q" + bytes([n]) for n in range(6)), value, b"\x86")

    def storage(self):
        kinds = ("FloatStorage", "BoolStorage", "ComplexFloatStorage", "BFloat16Storage", "LongStorage")
        return storage(self.rng.choice(kinds), self.rng.choice("01"), self.rng.choice([0, 4, 8, 16]))

    def shape(self):
        return (
            b"("
            + b"".join(b"K" + bytes([self.rng.randrange(4)]) for _ in range(self.rng.randrange(3)))
            + b"t"
        )

    def tensor(self):
        arguments = self.storage() + b"K\x00K\x02\x85K\x01\x85" + NO_HOOKS
        return name("torch._utils._rebuild_tensor_v2") + b"(" + arguments + b"tR"

    def dtype(self):
        made = name("numpy.dtype") + b"(" + text(self.rng.choice(["f8", "i4", "b1", "c8"])) + b"\x89\x88tR"
        return made + b"(K\x03" + text(self.rng.choice("<>|")) + b"NNNK\x00K\x00K\x00tb"

    def value(self, depth=0):
        choice = self.rng.randrange(10 if depth < 4 else 4)
        part = lambda: self.value(depth + 1)  # noqa: E731
        parts = lambda most: b"".join(part() for _ in range(self.rng.randrange(most)))  # noqa: E731
        match choice:
            case 0:
                return self.rng.choice(PLAIN)
            case 1:
                return text(self.rng.choice(WORDS))
            case 2:
                return name(self.rng.choice(self.names))
            case 3:
                return self.rng.choice([self.storage, self.shape, self.tensor, self.dtype])()
            case 4 | 5:
                return name(self.rng.choice(self.names)) + b"(" + parts(9) + b"tR"
            case 6:
                return part() + part() + b"b"
            case 7:
                return b"(" + parts(6) + self.rng.choice([b"t", b"\x91"])
            case 8:
                return b"](" + parts(6) + b"e" + b"q" + bytes([self.rng.randrange(6)])
        empty = self.rng.choice([b"}", name("collections.OrderedDict") + b")R"])
        items = (text(self.rng.choice(WORDS)) + part() for _ in range(self.rng.randrange(4)))
        return empty + b"(" + b"".join(items) + b"u"

    def nearly_right(self):
        """A call with the arguments that the name takes, but one may be another, or one too many."""
        yes, zero, eight = b"\x88", b"K\x00", b"C\x08" + bytes(8)
        dtype = name("torch." + self.rng.choice(["uint16", "float32", "bfloat16"]))
        bits = b"}" + text(self.rng.choice(["conj", "neg"])) + yes + b"s"
        calls = {
            "torch._utils._rebuild_tensor_v2": [
                self.storage(),
                zero,
                self.shape(),
                self.shape(),
                yes,
                b"N",
                bits,
            ],
            "torch._utils._rebuild_tensor_v3": [
                self.storage(),
                zero,
                b"K\x01\x85",
                b"K\x01\x85",
                yes,
                b"N",
                dtype,
            ],
            "torch._utils._rebuild_parameter": [self.tensor(), yes, b"N"],
            "torch._utils._rebuild_device_tensor_from_numpy": [self.tensor(), dtype, text("cpu"), yes],
            "torch._tensor._rebuild_from_type_v2": [
                name("torch._utils._rebuild_tensor_v2"),
                name("torch.Tensor"),
                b"(" + self.storage() + zero + self.shape() + self.shape() + b"t",
                b"}",
            ],
            "numpy._core.numeric._frombuffer": [eight, self.dtype(), self.shape(), text("C")],
            "numpy._core.multiarray.scalar": [self.dtype(), eight],
            "numpy._core.multiarray._reconstruct": [name("numpy.ndarray"), zero + b"\x85", b"C\x01b"],
            "collections.OrderedDict": [b"](K\x01N\x86e"],
            "collections.Counter": [b"}"],
            "builtins.set": [b"](K\x01e"],
            "builtins.complex": [b"G" + bytes(8), b"G" + bytes(8)],
            "_codecs.encode": [text("x"), text("latin1")],
            "torch.device": [text("cuda"), zero],
            "torch.Size": [self.shape()],
        }
        called = self.rng.choice(sorted(calls))
        arguments = calls[called]
        if self.rng.random() < 0.6:
            arguments[self.rng.randrange(len(arguments))] = self.value(3)
        elif self.rng.random() < 0.3:
            arguments.append(self.value(3))
        return name(called) + b"(" + b"".join(arguments) + b"tR"
