"""Numpy arrays and scalars inside a pickle, of numbers only: an array of objects is a pickle of its own."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from jaxopt_core.interop._machine import Call, Pending
from jaxopt_core.interop.errors import RESAVE, Budget, Fault


class Array:
    """``numpy.ndarray`` as an argument of numpy's ``_reconstruct``."""


def calls(budget: Budget) -> dict[str, Call]:
    """Names -> functions; numpy 1 and 2 name them differently."""

    def array(shape: Any, dtype: Any, data: Any, order: Any) -> Any:
        if (
            type(shape) is not tuple
            or any(type(n) is not int or not 0 <= n < 2**48 for n in shape)
            or len(shape) > 64
        ):
            raise Fault("its pickle holds a numpy array with a shape that no array has")
        count = math.prod(shape)
        numbers = isinstance(dtype, np.dtype) and type(data) in (bytes, bytearray)
        if not numbers or type(order) is not str or order not in ("C", "F"):
            raise Fault("its pickle holds a numpy array that is not made of numbers", RESAVE)
        if count * dtype.itemsize != len(data) or math.prod(n or 1 for n in shape) * dtype.itemsize > 2**62:
            raise Fault(f"its pickle holds a numpy array of shape {shape} in {len(data)} bytes")
        made = np.frombuffer(data, dtype) if count else np.empty(0, dtype)
        if not dtype.isnative:
            budget.charge(len(data))
            made = made.astype(dtype.newbyteorder("="))
        made = made.reshape(shape, order="F" if order == "F" else "C")
        made.flags.writeable = False
        return made

    def reconstruct(arguments: tuple[Any, ...]) -> Pending:
        match arguments:
            case (kind, (int(0),), bytes()) if kind is Array:
                return Pending("a numpy array", fill)
        raise Fault("its pickle makes a numpy array in an unknown way")

    def fill(state: Any) -> np.ndarray:
        match state:
            case (int(1), shape, dtype, bool() as fortran, data):
                return array(shape, dtype, data, "F" if fortran else "C")
        raise Fault("its pickle holds a numpy array that is not made of numbers", RESAVE)

    def frombuffer(arguments: tuple[Any, ...]) -> np.ndarray:
        match arguments:
            case (data, dtype, shape, order):
                return array(shape, dtype, data, order)
        raise Fault("its pickle makes a numpy array in an unknown way")

    def scalar(arguments: tuple[Any, ...]) -> np.generic:
        match arguments:
            case (dtype, data):
                return array((), dtype, data, "C")[()]
        raise Fault("its pickle makes a numpy scalar in an unknown way")

    names: dict[str, Call] = {"numpy.dtype": _dtype}
    for module in ("numpy._core", "numpy.core"):
        names |= {
            f"{module}.multiarray._reconstruct": reconstruct,
            f"{module}.multiarray.scalar": scalar,
            f"{module}.numeric._frombuffer": frombuffer,
        }
    return names


def _dtype(arguments: tuple[Any, ...]) -> Pending:
    match arguments:
        case (np.dtype() as dtype, _, _):
            pass
        case (str() as code, _, _) if re.fullmatch(r"b1|[iu][1248]|f[248]|c(8|16)", code):
            dtype = np.dtype(code)
        case _:
            shown = arguments[0] if arguments and type(arguments[0]) is str else "without a name"
            raise Fault(
                f"its pickle holds a numpy array of dtype {shown[:50]!a}, which is not a number", RESAVE
            )

    def finish(state: Any) -> np.dtype:
        match state:
            case (int(), str("<" | ">" | "|" | "=") as order, None, None, None, *_):
                swapped = order in "<>" and dtype.kind in "iufc" and dtype.itemsize > 1
                return dtype.newbyteorder(order) if swapped else dtype
        raise Fault("its pickle holds a numpy array of records, which is not made of numbers", RESAVE)

    return Pending("a numpy dtype", finish)
