"""Running a recipe in PyTorch and here side by side, and saying where the two part."""

from jaxopt_core.parity.differences import Difference, Divergence
from jaxopt_core.parity.report import Parity
from jaxopt_core.parity.run import parity

__all__ = ["Difference", "Divergence", "Parity", "parity"]
