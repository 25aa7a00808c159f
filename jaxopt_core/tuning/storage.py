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


def open_storage(url: str | None, *, patience: float = 60.0) -> BaseStorage:
    """Opens the storage of a study.

    Args:
      url: ``None``, in memory; ``"sqlite:///study.db"``; ``"journal:///study.journal"``, a file that only
        grows, also on network file systems; ``"postgresql://user:password@host/database"``. A path that
        ends in ``.db`` or ``.journal`` will do.
      patience: seconds to wait for a database that another worker is making at this moment, or holds.
        Default 60.

    Raises:
      StorageError: it cannot be opened.
      MissingExtraError: Optuna is not installed, or not the driver of the database.
    """
    with needs_extra("tune"):
        from optuna.storages import InMemoryStorage

    if url is None:
        return InMemoryStorage()
    full, end = _full(url), time.monotonic() + patience
    while True:
        try:
            return _connect(full)
        except _transient() as error:
            if not _may_pass(error) or time.monotonic() > end:
                raise StorageError(
                    f"cannot open the storage {_masked(url)}: {_first_line(error)}. {_remedy(error)}"
                ) from error
        time.sleep(0.05)


def _connect(url: str) -> BaseStorage:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.pool import NullPool

    if url.startswith("journal:///"):
        return JournalStorage(JournalFileBackend(url.removeprefix("journal:///")))
    connect = {"timeout": _BUSY_S}
    if url.startswith("postgresql"):
        with needs_extra("tune"):
            import psycopg  # noqa: F401  # the driver, named by the URL
        url = re.sub(r"^postgresql://", "postgresql+psycopg://", url)
        connect = {"connect_timeout": _BUSY_S}
    # No connection outlives its transaction, so a server may restart in between, and none is left open.
    return RDBStorage(url, engine_kwargs={"connect_args": connect, "poolclass": NullPool})


def _may_pass(error: Exception) -> bool:
    """Whether another worker holds the file, or makes the same tables, which Optuna does without a lock."""
    from sqlalchemy.exc import IntegrityError

    return isinstance(error, IntegrityError) or any(
        words in _first_line(error) for words in ("already exists", "locked")
    )


def _remedy(error: Exception) -> str:
    if _may_pass(error):
        return "Another program holds it: wait until that is done, or end it"
    return "Check that the folder exists and can be written to, or that the server runs and lets this user in"


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
