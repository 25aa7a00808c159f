"""Batches with a position that can be saved, and readers for the files that people have."""

from jaxopt_core.data.arrays import Dataset, Split
from jaxopt_core.data.batches import Arrays
from jaxopt_core.data.digits import load_digits
from jaxopt_core.data.idx import DataFileError, read_idx
from jaxopt_core.data.iterables import FromIterable
from jaxopt_core.data.mnist import load_mnist
from jaxopt_core.data.position import Batches
from jaxopt_core.data.prefetching import Prefetch, prefetch
from jaxopt_core.data.streaming import RandomAccess, Stream

__all__ = [
    "Arrays",
    "Batches",
    "DataFileError",
    "Dataset",
    "FromIterable",
    "Prefetch",
    "RandomAccess",
    "Split",
    "Stream",
    "load_digits",
    "load_mnist",
    "prefetch",
    "read_idx",
]
