"""How much memory there is for trials, and how much a compiled program needs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import jax

__all__ = ["default_memory", "free_memory", "kept_and_temporary", "program_bytes"]

_FRACTION = 0.8  # of the free memory; the rest is for data and fragments
_UNKNOWN = 4 << 30  # where the system does not say


def default_memory(device: jax.Device) -> int:
    """Bytes that a batch of trials may use on a device; devices of one process share its main memory."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(_FRACTION * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)))
    return int(_FRACTION * free_memory() / jax.local_device_count())


def free_memory(root: Path = Path("/")) -> int:
    """Bytes of main memory that this process may still take: available, and left by its container.

    Args:
      root: where ``proc`` and ``sys`` are.
    """
    try:
        # What a cache of files takes counts as available: it is given back.
        found = re.search(r"MemAvailable:\s*(\d+) kB", (root / "proc/meminfo").read_text())
    except OSError:
        return _half_of_all()
    available = int(found[1]) << 10 if found else _half_of_all()
    return min([available, *_left_in_groups(root)])


def _left_in_groups(root: Path) -> list[int]:
    """What the control groups of this process leave, if they set a limit."""
    left = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        path = line.rpartition(":")[2].strip("/")
        group = root / "sys/fs/cgroup"
        for part in ("", *path.split("/")):
            group = group / part
            limit, used = _read(group / "memory.max"), _read(group / "memory.current")
            if limit.strip().isdecimal() and used.strip().isdecimal():
                given_back = re.search(r"^inactive_file (\d+)", _read(group / "memory.stat"), re.MULTILINE)
                left.append(int(limit) - int(used) + (int(given_back[1]) if given_back else 0))
    return left


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _half_of_all() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN


def program_bytes(compiled: Any) -> int:
    """Bytes on one device that a compiled program needs: arguments, results and what lies between."""
    return sum(kept_and_temporary(compiled))


def kept_and_temporary(compiled: Any) -> tuple[int, int]:
    """Of :func:`program_bytes` the arguments and results, and what lies between."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0, 0
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(kept), int(memory.temp_size_in_bytes)
