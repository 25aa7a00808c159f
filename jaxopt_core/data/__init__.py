"""Data sets: arrays in memory, and readers for the files that people have."""

from jaxopt_core.data.arrays import Dataset, Split
from jaxopt_core.data.digits import load_digits
from jaxopt_core.data.idx import DataFileError, read_idx
from jaxopt_core.data.mnist import load_mnist

__all__ = ["DataFileError", "Dataset", "Split", "load_digits", "load_mnist", "read_idx"]
