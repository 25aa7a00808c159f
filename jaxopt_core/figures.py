"""How every picture of this package looks."""

from typing import Any

__all__ = ["COLORS", "STYLE"]

COLORS = ("#3b6fb6", "#d1495b", "#4f9d69", "#8a5fb0", "#e08e2b", "#4aa3a2", "#9b6a4c", "#777777")
"""Of the lines, in order."""

_INK = "#333333"
STYLE: Any = {
    "axes.edgecolor": "#999999",
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "font.size": 10,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}
"""Matplotlib's settings."""
