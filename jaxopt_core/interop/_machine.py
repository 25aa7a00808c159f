"""A pickle machine that cannot run code.

Pickle is a program for a stack machine (https://docs.python.org/3/library/pickletools.html). Python's own
imports what the program names and calls it. This one knows no import: a name is looked up in a table that
its caller gives, what is not there is refused, and what is there is a function of ours over plain values.
No attribute is ever set (but ``_metadata`` of an OrderedDict), and no method of the file's choosing
is called.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from jaxopt_core.interop.errors import RESAVE, Budget, Fault

_MOST_DIGITS = 1024  # bytes of an integer; random number generators have states of 16
_LONGEST_NAME = 1000
_MAPPINGS = (dict, OrderedDict, Counter)
_SCALARS = (str, int, float, bool, complex, bytes, type(None))

# What one object costs in CPython, roughly; what a program of one-byte opcodes can ask for must be paid.
SLOT, CONTAINER, SET, CALL = 100, 80, 240, 200

Call = Callable[[tuple[Any, ...]], Any]


class Function:
    """A name from the table that may be called; never the thing that it names in Python."""

    def __init__(self, name: str, call: Call):
        self.name, self.call = name, call


class Pending:
    """An object that comes in two steps: made by a call, filled by ``BUILD``, which sets ``value`` once."""

    def __init__(self, name: str, build: Callable[[Any], Any]):
        self.name, self.build, self.built, self.value = name, build, False, None


def check_key(key: Any) -> Any:
    """A dictionary's key or set's element, or a Fault: hashing must be quick and must not recurse."""
    kind = type(key)
    if kind is tuple and len(key) <= 16 and all(type(part) in _SCALARS for part in key):
        return key
    if kind not in _SCALARS:
        raise Fault(f"its pickle uses {_describe(key)} as a dictionary's key or set's element", RESAVE)
    if kind is int and key.bit_length() > 64:
        raise Fault("its pickle uses an integer of more than 64 bits as a key", RESAVE)
    return key


def _ends() -> Fault:
    return Fault("its pickle ends in the middle")


def _describe(value: Any) -> str:
    return value.name if isinstance(value, Function | Pending) else f"a {type(value).__name__}"


class Machine:
    """The state of one run, and what the opcodes do to it.

    Args:
        program: the pickle's bytes.
        table: ``"module.name"`` -> a plain value, or a Function.
        refusals: ``"module.name"`` or a prefix of it -> (what it is, remedy), for better messages.
        persistent: makes the value of a persistent id, which in torch's files is a storage.
        budget: what the program may allocate.
    """

    def __init__(
        self,
        program: bytes,
        table: Mapping[str, Any],
        refusals: Callable[[str], tuple[str, str] | None],
        persistent: Callable[[Any], Any],
        budget: Budget,
    ):
        self._program, self.at = program, 0
        self._table, self._refusals, self._persistent, self._budget = table, refusals, persistent, budget
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def finish(self) -> Any:
        """The object that the program has made."""
        if len(self._stack) != 1 or self._marks:
            raise Fault("its pickle ends with its stack in disorder")
        return self._resolve(self._stack[0])

    # Reading the program.

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self._program):
            raise _ends()
        taken, self.at = self._program[self.at : end], end
        return taken

    def read_number(self, layout: struct.Struct) -> Any:
        end = self.at + layout.size
        if end > len(self._program):
            raise _ends()
        (value,) = layout.unpack_from(self._program, self.at)
        self.at = end
        return value

    def read_code(self) -> int:
        if self.at >= len(self._program):
            raise _ends()
        code = self._program[self.at]
        self.at += 1
        return code

    def _line(self) -> str:
        end = self._program.find(b"\n", self.at, self.at + _LONGEST_NAME)
        if end < 0:
            raise Fault("its pickle has a name without an end")
        line, self.at = self._program[self.at : end], end + 1
        return self.read_text(line)

    def read_text(self, encoded: bytes) -> str:
        try:
            return encoded.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise Fault("its pickle holds text that is not UTF-8") from None

    # The stack.

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        if not self._stack:
            raise Fault("its pickle takes a value from an empty stack")
        return self._resolve(self._stack.pop())

    def _top(self) -> Any:
        if not self._stack:
            raise Fault("its pickle takes a value from an empty stack")
        return self._stack[-1]

    def _resolve(self, value: Any) -> Any:
        return value.value if isinstance(value, Pending) and value.built else value

    def push_mark(self) -> None:
        self._budget.charge(CONTAINER)
        self._marks.append(self._stack)
        self._stack = []

    def since_mark(self) -> list[Any]:
        if not self._marks:
            raise Fault("its pickle refers to a mark that is not there")
        values, self._stack = self._stack, self._marks.pop()
        return [self._resolve(value) for value in values]

    # Plain values.

    def push_long(self, size: int) -> None:
        if not 0 <= size <= _MOST_DIGITS:
            raise Fault(f"its pickle holds an integer of {size} bytes", RESAVE)
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def push_tuple(self, size: int) -> None:
        self._budget.charge(CONTAINER)
        values = [self.pop() for _ in range(size)]
        self.push(tuple(reversed(values)))

    def push_empty(self, make: Callable[[], Any], cost: int) -> None:
        self._budget.charge(cost)
        self.push(make())

    # Filling containers, which must be exactly of the type that the opcode is for.

    def extend_list(self, values: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise Fault(f"its pickle appends to {_describe(target)}")
        target.extend(values)

    def extend_set(self, values: list[Any]) -> None:
        target = self._top()
        if type(target) is not set:
            raise Fault(f"its pickle adds elements to {_describe(target)}")
        self._budget.charge(SLOT * len(values))
        target.update(check_key(value) for value in values)

    def set_items(self, values: list[Any]) -> None:
        target = self._top()
        if type(target) not in _MAPPINGS:
            raise Fault(f"its pickle sets items of {_describe(target)}")
        if len(values) % 2:
            raise Fault("its pickle has a key without a value")
        self._budget.charge(SLOT * (len(values) // 2))
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[check_key(key)] = value

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def push_frozenset(self) -> None:
        values = self.since_mark()
        self._budget.charge(SET + SLOT * len(values))
        self.push(frozenset(check_key(value) for value in values))

    # The memo.

    def set_memo(self, index: int) -> None:
        self._budget.charge(SLOT)
        self.memo[index] = self._top()

    def push_memo(self, index: int) -> None:
        if index not in self.memo:
            raise Fault(f"its pickle refers to entry {index} of its memo, which is not there")
        self.push(self.memo[index])

    # Names and calls: where Python's own machine would run code.

    def _name(self, module: str, name: str) -> None:
        full = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if full in self._table:
            self.push(self._table[full])
            return
        shown = full if full.isprintable() and len(full) < 200 else ascii(full[:200])
        known = self._refusals(full)
        what, remedy = known or ("only tensors, numbers, strings and plain containers are read", RESAVE)
        raise Fault(f"refused {shown}: {what}", remedy)

    def push_global(self) -> None:
        module = self._line()
        self._name(module, self._line())

    def push_stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise Fault("its pickle has a name that is not text")
        if len(name) + len(module) > _LONGEST_NAME:
            raise Fault("its pickle has a name without an end")
        self._name(module, name)

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Function):
            raise Fault(
                f"refused to call {_describe(function)}: it is not a function that makes data", RESAVE
            )
        if type(arguments) is not tuple:
            raise Fault(f"its pickle calls {function.name} with {_describe(arguments)} as arguments")
        self._budget.charge(CALL)
        self.push(function.call(arguments))

    def build(self) -> None:
        state = self.pop()
        target = self._top()
        if isinstance(target, Pending) and not target.built:
            target.value, target.built = target.build(state), True
        elif type(target) is OrderedDict and type(state) is dict and set(state) <= {"_metadata"}:
            # What Module.state_dict() hangs on its result: the version of each module's layout.
            if state and type(state["_metadata"]) not in _MAPPINGS:
                raise Fault("its pickle has _metadata that is no dictionary")
            for metadata in state.values():
                target._metadata = metadata  # type: ignore[attr-defined]
        else:
            raise Fault(f"refused to set the state of {_describe(target)}", RESAVE)

    def persistent_id(self) -> None:
        self.push(self._persistent(self.pop()))
