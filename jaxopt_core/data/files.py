"""What all readers of files share: the error that says what is wrong where, and the search in a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["DataFileError", "find_files", "read_bytes"]


class DataFileError(ValueError):
    """A data file that cannot be used; the message is one line: file, expected, found, and where."""

    def __init__(
        self, path: str | os.PathLike[str], *, expected: str, found: str, at: str | None = None
    ) -> None:
        where = f" at {at}" if at else ""
        super().__init__(f"{os.fspath(path)}: expected {expected}, found {found}{where}")


def find_files(
    folder: str | os.PathLike[str], wanted: Mapping[str, Sequence[str]], *, what: str
) -> dict[str, Path]:
    """Finds files in a folder, each by the first of its names that is there.

    Args:
        folder: where to look.
        wanted: for each file what to call it in the result, and the names that it may have.
        what: what the files are together, for the error.

    Raises:
        DataFileError: no such folder, or files are missing: it names all of them.

    Example:
        >>> import pathlib, tempfile
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> (folder / "a.bin.gz").touch()
        >>> find_files(folder, {"a": ["a.bin", "a.bin.gz"]}, what="files")["a"].name
        'a.bin.gz'
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise DataFileError(folder, expected=f"a folder with {what}", found=found)
    paths = {
        key: next((folder / name for name in names if (folder / name).is_file()), None)
        for key, names in wanted.items()
    }
    missing = [wanted[key][0] for key, path in paths.items() if path is None]
    if missing:
        found = f"{len(wanted) - len(missing)} of {len(wanted)} files; missing: {', '.join(missing)}"
        raise DataFileError(folder, expected=what, found=found)
    return {key: path for key, path in paths.items() if path is not None}


def read_bytes(path: Path, *, what: str) -> bytes:
    """The content of a file.

    Raises:
        DataFileError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataFileError(path, expected=what, found="no such file") from None
    except OSError as error:
        raise DataFileError(path, expected="a readable file", found=error.strerror or str(error)) from error
