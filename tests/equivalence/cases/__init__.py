"""The tables of cases, one file for each kind."""

from tests.equivalence.cases.arguments import ARGUMENTS
from tests.equivalence.cases.by_path import BY_PATH
from tests.equivalence.cases.changing import CHANGING
from tests.equivalence.cases.gradients import GRADIENTS
from tests.equivalence.cases.layout import LAYOUT
from tests.equivalence.cases.precision import PRECISION
from tests.equivalence.cases.sparse import SPARSE

__all__ = ["ARGUMENTS", "BY_PATH", "CHANGING", "GRADIENTS", "LAYOUT", "PRECISION", "SPARSE"]
