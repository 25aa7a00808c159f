"""The opcodes of pickle that are known, and the loop that runs a program of them.

Protocol 0 and 1, the extension registry, ``DUP``, ``INST``, ``OBJ`` and out-of-band buffers are refused.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from typing import Any

from jaxopt_core.interop._machine import CONTAINER, SET, Machine
from jaxopt_core.interop.errors import COPY_AGAIN, RESAVE, Fault

_NAMES = {ord(op.code): op.name for op in pickletools.opcodes}
_STOP = ord(".")
_INT32, _UINT16, _UINT32, _UINT64, _DOUBLE = map(struct.Struct, ("<i", "<H", "<I", "<Q", ">d"))


def run(machine: Machine) -> Any:
    """Runs a program to its end.

    Returns:
        The object that the program makes.

    Raises:
        Fault: the program is not valid, or does what only code could want.
    """
    while True:
        where = machine.at
        code = machine.read_code()
        if code == _STOP:
            return machine.finish()
        operation = OPERATIONS.get(code)
        if operation is None:
            name = _NAMES.get(code, f"0x{code:02x}")
            raise Fault(
                f"its pickle has {name} at byte {where}, which no pickle of torch.save's contains",
                RESAVE if code in _NAMES else COPY_AGAIN,
            )
        operation(machine)


# Every opcode that is known; `m` is the machine.
OPERATIONS: dict[int, Callable[[Machine], None]] = {
    code[0]: operation
    for code, operation in {
        b"\x80": lambda m: m.take(1),  # the protocol's number
        b"\x95": lambda m: m.take(8),  # a frame's length, a hint for buffered reading
        b"(": lambda m: m.push_mark(),
        b"N": lambda m: m.push(None),
        b"\x88": lambda m: m.push(True),
        b"\x89": lambda m: m.push(False),
        b"J": lambda m: m.push(m.read_number(_INT32)),
        b"K": lambda m: m.push(m.read_code()),
        b"M": lambda m: m.push(m.read_number(_UINT16)),
        b"G": lambda m: m.push(m.read_number(_DOUBLE)),
        b"\x8a": lambda m: m.push_long(m.read_code()),
        b"\x8b": lambda m: m.push_long(m.read_number(_INT32)),
        b"X": lambda m: m.push(m.read_text(m.take(m.read_number(_UINT32)))),
        b"\x8c": lambda m: m.push(m.read_text(m.take(m.read_code()))),
        b"\x8d": lambda m: m.push(m.read_text(m.take(m.read_number(_UINT64)))),
        b"B": lambda m: m.push(m.take(m.read_number(_UINT32))),
        b"C": lambda m: m.push(m.take(m.read_code())),
        b"\x8e": lambda m: m.push(m.take(m.read_number(_UINT64))),
        b"\x96": lambda m: m.push(bytearray(m.take(m.read_number(_UINT64)))),
        b")": lambda m: m.push(()),
        b"\x85": lambda m: m.push_tuple(1),
        b"\x86": lambda m: m.push_tuple(2),
        b"\x87": lambda m: m.push_tuple(3),
        b"t": lambda m: m.push(tuple(m.since_mark())),
        b"]": lambda m: m.push_empty(list, CONTAINER),
        b"}": lambda m: m.push_empty(dict, CONTAINER),
        b"\x8f": lambda m: m.push_empty(set, SET),
        b"a": lambda m: m.extend_list([m.pop()]),
        b"e": lambda m: m.extend_list(m.since_mark()),
        b"s": lambda m: m.set_item(),
        b"u": lambda m: m.set_items(m.since_mark()),
        b"\x90": lambda m: m.extend_set(m.since_mark()),
        b"\x91": lambda m: m.push_frozenset(),
        b"q": lambda m: m.set_memo(m.read_code()),
        b"r": lambda m: m.set_memo(m.read_number(_UINT32)),
        b"\x94": lambda m: m.set_memo(len(m.memo)),
        b"h": lambda m: m.push_memo(m.read_code()),
        b"j": lambda m: m.push_memo(m.read_number(_UINT32)),
        b"c": lambda m: m.push_global(),
        b"\x93": lambda m: m.push_stack_global(),
        b"R": lambda m: m.reduce(),
        # cls.__new__(cls, *arguments): the table's function stands for the class
        b"\x81": lambda m: m.reduce(),
        b"b": lambda m: m.build(),
        b"Q": lambda m: m.persistent_id(),
    }.items()
}
