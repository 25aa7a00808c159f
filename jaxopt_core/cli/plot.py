"""``jaxopt-core plot``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jaxopt_core.cli.errors import UsageError
from jaxopt_core.training.plots import plot_curves, read_curves

__all__ = ["plot_runs"]


def plot_runs(folders: Sequence[Path], out: Path) -> None:
    """Draws the curves of runs into one picture.

    Raises:
      UsageError: a folder holds no run, or the picture cannot be written.
    """
    if not folders:
        raise UsageError("expected at least one run's folder, found none")
    runs = {}
    for folder in folders:
        try:
            runs[str(folder)] = read_curves(folder)
        except FileNotFoundError as error:
            raise UsageError(
                f"expected a run's folder with {Path(error.filename).name}, found none in {folder}"
            ) from None
        except ValueError as error:
            raise UsageError(str(error)) from error
    title = ", ".join(runs) if len(runs) < 4 else f"{len(runs)} runs"
    try:
        plot_curves(out, runs, title)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"--out: could not write {out} ({error.strerror})") from error
    sys.stdout.write(f"wrote {out}\n")
