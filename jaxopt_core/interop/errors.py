"""The one error of reading checkpoints, and what raises it."""

from __future__ import annotations

import os

RESAVE = (
    "If you trust the file, load it in PyTorch with torch.load(path, weights_only=False), which runs the "
    "code in it, and torch.save() only tensors, numbers, strings and plain containers (state_dict())"
)
COPY_AGAIN = "Copy or download it again, and compare its size and checksum with the original's"


class CheckpointError(ValueError):
    """A file that cannot be read, or is refused.

    Attributes:
        path: the file.
        fault: what is wrong with it.
        remedy: what to do about it.

    Example:
        >>> raise CheckpointError("run.pt", "the file is empty", "Copy it again")
        Traceback (most recent call last):
        ...
        jaxopt_core.interop.errors.CheckpointError: run.pt: the file is empty. Copy it again.
    """

    def __init__(self, path: str | os.PathLike[str], fault: str, remedy: str):
        super().__init__(path, fault, remedy)
        self.path, self.fault, self.remedy = os.fspath(path), fault, remedy

    def __str__(self) -> str:
        return f"{self.path}: {self.fault}. {self.remedy}."


class Fault(Exception):
    """A CheckpointError on its way up, from code that does not know the file's name."""

    def __init__(self, fault: str, remedy: str = COPY_AGAIN):
        super().__init__(fault, remedy)
        self.fault, self.remedy = fault, remedy


class Budget:
    """What reading one file may allocate; the tensors of an uncompressed file cost nothing, they are mapped.

    A pickle of a few bytes can ask for a large allocation again and again: each one is charged here
    before it is made.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int):
        self.limit, self.left = limit, limit

    def charge(self, size: int) -> None:
        """Takes ``size`` bytes, or raises a Fault when they are not there."""
        self.left -= size
        if self.left < 0:
            raise Fault(
                f"reading it would allocate more than {self.limit} bytes, more than its size explains",
                "A checkpoint does not do this by accident. If you trust the file, pass a larger max_bytes",
            )
