"""Where a study keeps its trials: memory, SQLite, a journal file, PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from jaxopt_core.extras import needs_extra

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

__all__ = ["Patience", "StorageError", "is_shared", "open_storage", "quiet"]

T = TypeVar("T")
_BUSY_S = 10  # seconds that SQLite waits for another writer, and PostgreSQL for a connection


class StorageError(RuntimeError):
    """A storage that cannot be opened, or no longer reached; names it, the cause and the remedy."""


def open_storage(url: str | None) -> BaseStorage:
    """Opens the storage of a study.

    Args:
      url: ``None``, in memory; ``"sqlite:///study.db"``; ``"journal:///study.journal"``, a file that only
        grows, also on network file systems; ``"postgresql://user:password@host/database"``. A path that
        ends in ``.db`` or ``.journal`` will do.

    Raises:
      StorageError: it cannot be opened.
      MissingExtraError: Optuna is not installed, or not the driver of the database.
    """
    with needs_extra("tune"):
        from optuna import storages
        from optuna.storages import journal
        from sqlalchemy.pool import NullPool

    if url is None:
        return storages.InMemoryStorage()
    full = _full(url)
    try:
        if full.startswith("journal:///"):
            return storages.JournalStorage(journal.JournalFileBackend(full.removeprefix("journal:///")))
        connect = {"timeout": _BUSY_S}
        if full.startswith("postgresql"):
            with needs_extra("tune"):
                import psycopg  # noqa: F401  # the driver, named by the URL
            full = re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", full)
            connect = {"connect_timeout": _BUSY_S}
        # No connection outlives its transaction, so a server may restart in between, and none is left open.
        return storages.RDBStorage(full, engine_kwargs={"connect_args": connect, "poolclass": NullPool})
    except _transient() as error:
        remedy = (
            "Check that the folder exists and can be written to, "
            "or that the server runs and lets this user in"
        )
        if "locked" in str(error):
            remedy = f"Another program has held it for {_BUSY_S} s: wait until that is done, or end it"
        raise StorageError(
            f"cannot open the storage {_masked(url)}: {_first_line(error)}. {remedy}"
        ) from error


def is_shared(storage: BaseStorage) -> bool:
    """Whether other processes may use it too."""
    from optuna.storages import InMemoryStorage

    return not isinstance(storage, InMemoryStorage)


class Patience:
    """Repeats what failed because the storage is locked or away, up to a limit.

    Args:
      seconds: how long to wait for one call, in all.
      on_trouble: told, in one line, when waiting begins.
    """

    def __init__(self, seconds: float, on_trouble: Callable[[str], None]) -> None:
        self.seconds, self.on_trouble = seconds, on_trouble

    def __call__(self, what: str, call: Callable[[], T], seconds: float | None = None) -> T:
        """Returns ``call()``.

        Raises:
          StorageError: it still fails when patience ends.
        """
        end = time.monotonic() + (self.seconds if seconds is None else seconds)
        pause = 0.05
        told = False
        while True:
            try:
                return call()
            except _transient() as error:
                if not told:
                    self.on_trouble(f"{what}: the storage does not answer ({_first_line(error)})")
                    told = True
                if time.monotonic() + pause > end:
                    raise StorageError(
                        f"{what}: the storage does not answer: {_first_line(error)}"
                    ) from error
            time.sleep(pause)
            pause = min(2 * pause, 2.0)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Optuna from reporting every trial on standard error, and restores that."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _transient() -> tuple[type[Exception], ...]:
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    return StorageInternalError, SQLAlchemyError, OSError


def _full(url: str) -> str:
    if "://" not in url:
        kind = {".db": "sqlite", ".sqlite": "sqlite", ".journal": "journal"}.get(Path(url).suffix)
        if kind is None:
            raise StorageError(
                f"storage: expected sqlite:///FILE, journal:///FILE, postgresql://... or a path that ends in "
                f".db or .journal, found {url!r}"
            )
        return f"{kind}:///{os.fspath(url)}"
    scheme = url.partition("://")[0].partition("+")[0]
    if scheme not in ("sqlite", "journal", "postgresql", "postgres"):
        raise StorageError(f"storage: expected sqlite, journal or postgresql, found {scheme!r}")
    return re.sub(r"^postgres://", "postgresql://", url)


def _masked(url: str) -> str:
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)


def _first_line(error: BaseException) -> str:
    # Optuna wraps the database's error in one that only says where to look.
    cause = error.__cause__ or error
    return _masked(str(cause).strip().partition("\n")[0]) or type(cause).__name__
