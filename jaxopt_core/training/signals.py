"""Noticing a request to stop without being stopped by it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["noticing_sigterm"]


@contextmanager
def noticing_sigterm() -> Iterator[threading.Event]:
    """While it lasts, SIGTERM sets an event instead of ending the process.

    Outside of the main thread, where Python allows no handlers, it changes nothing.

    Example:
      >>> import os, signal
      >>> with noticing_sigterm() as asked:
      ...     os.kill(os.getpid(), signal.SIGTERM)
      ...     asked.wait(5)
      True
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        asked.set()

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
