"""Containers and small values that a pickle makes by calling a name."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

from jaxopt_core.interop._machine import Call, check_key
from jaxopt_core.interop._refusals import malformed
from jaxopt_core.interop.errors import Budget

_PER_ELEMENT = 100  # bytes of a container, roughly


def calls(budget: Budget) -> dict[str, Call]:
    """Names -> functions that check their arguments, and charge for what they copy."""

    def elements(name: str, arguments: tuple[Any, ...]) -> list[Any]:
        match arguments:
            case ():
                return []
            case (list() | tuple() | dict() as values,):
                budget.charge(_PER_ELEMENT * (1 + len(values)))
                return list(values)
        raise malformed(name)

    def ordered(arguments: tuple[Any, ...]) -> Any:
        made: OrderedDict[Any, Any] = OrderedDict()
        for pair in elements("collections.OrderedDict", arguments):
            if type(pair) not in (list, tuple) or len(pair) != 2:
                raise malformed("collections.OrderedDict")
            made[check_key(pair[0])] = pair[1]
        return made

    def counter(arguments: tuple[Any, ...]) -> Any:
        match arguments:
            case (dict() as counts,):
                budget.charge(_PER_ELEMENT * (1 + len(counts)))
                return Counter(counts)
            case ():
                return Counter()
        raise malformed("collections.Counter")

    def make_set(kind: type) -> Call:
        return lambda arguments: kind(
            check_key(value) for value in elements(f"builtins.{kind.__name__}", arguments)
        )

    def encode(arguments: tuple[Any, ...]) -> bytes:
        match arguments:
            case (str() as text, str("latin1")):
                budget.charge(len(text))
                try:
                    return text.encode("latin1")
                except UnicodeEncodeError:
                    pass
        raise malformed("_codecs.encode")

    def make_bytes(kind: Callable[[bytes], Any]) -> Call:
        def call(arguments: tuple[Any, ...]) -> Any:
            match arguments:
                case ():
                    return kind(b"")
                case (bytes() as value,):
                    budget.charge(len(value))
                    return kind(value)
            raise malformed("builtins.bytearray")

        return call

    def make_complex(arguments: tuple[Any, ...]) -> complex:
        match arguments:
            case (float() as real, float() as imag):
                return complex(real, imag)
        raise malformed("builtins.complex")

    def text(arguments: tuple[Any, ...]) -> str:
        match arguments:
            case (str() as value,):
                return value
        raise malformed("torch.device or torch.torch_version.TorchVersion")

    def device(arguments: tuple[Any, ...]) -> str:
        match arguments:
            case (str() as kind, int() as index) if len(kind) < 100:
                return f"{kind}:{index}" if abs(index) < 2**16 else kind
        return text(arguments)

    def size(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        match arguments:
            case (tuple() as sizes,):
                return sizes
        raise malformed("torch.Size")

    return {
        "collections.OrderedDict": ordered,
        # Its factory is code: what it holds is read into a plain dictionary.
        "collections.defaultdict": lambda _: {},
        "collections.Counter": counter,
        "builtins.set": make_set(set),
        "builtins.frozenset": make_set(frozenset),
        "builtins.bytes": make_bytes(bytes),
        "builtins.bytearray": make_bytes(bytearray),
        "builtins.complex": make_complex,
        "_codecs.encode": encode,
        "torch.Size": size,
        "torch.device": device,
        "torch.torch_version.TorchVersion": text,
    }
