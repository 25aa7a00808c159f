"""What has been made of a program before."""

from __future__ import annotations

import weakref
from typing import Any

__all__ = ["memo"]

_memos: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()


def memo(jaxpr: Any) -> dict[Any, Any]:
    """What has been made of a program before, by what it depends on; it lives as long as the program.

    A function that is called under ``jit`` is the same program every time that it is traced. Without this,
    deep models would be planned exponentially often, and eager calls would compile every time.
    """
    return _memos.setdefault(jaxpr, {})
