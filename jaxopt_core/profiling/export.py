"""Handing a recording to other tools."""

from __future__ import annotations

import shutil
from pathlib import Path

from jaxopt_core.profiling.report import Profile

__all__ = ["export_perfetto", "export_tensorboard"]


def export_perfetto(profile: Profile, path: str | Path) -> Path:
    """Writes the recording as a file that ui.perfetto.dev and chrome://tracing open; returns its path.

    The file is a gzipped trace, so let its name end in ``.json.gz``.

    Raises:
      FileNotFoundError: XLA has written none into the profile's folder.
    """
    return _copy(profile, "**/*.trace.json.gz", Path(path))


def export_tensorboard(profile: Profile, logdir: str | Path) -> Path:
    """Copies the recording to where ``tensorboard --logdir`` with its profile plugin finds it."""
    files = sorted(profile.folder.glob("plugins/profile/*"))
    if not files:
        raise FileNotFoundError(
            f"{profile.folder}: expected plugins/profile, as XLA's profiler writes it, found none"
        )
    target = Path(logdir) / "plugins" / "profile" / files[-1].name
    shutil.copytree(files[-1], target, dirs_exist_ok=True)
    return target


def _copy(profile: Profile, pattern: str, path: Path) -> Path:
    files = sorted(profile.folder.glob(pattern))
    if not files:
        raise FileNotFoundError(f"{profile.folder}: expected {pattern}, found none")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(files[-1], path)
    return path
