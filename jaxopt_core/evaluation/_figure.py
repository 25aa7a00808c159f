"""The figure that every picture of this package is drawn on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jaxopt_core.extras import needs_extra
from jaxopt_core.figures import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["StrPath", "bare", "picture"]

StrPath = str | os.PathLike[str]


@contextmanager
def picture(path: StrPath, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure in this package's style, written when all is drawn.

    Args:
        path: the PNG to write.
        size: width and height in inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with needs_extra("train"):
        import matplotlib as mpl
        from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        # Figure instead of pyplot: no global state, and no display is looked for.
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        figure.savefig(path, dpi=120)


def bare(axes: Axes) -> None:
    """Takes away all but the picture and its titles."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)
