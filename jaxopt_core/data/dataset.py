"""A classification data set that fits in memory: training and test examples."""

import math
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray


class Split(NamedTuple):
    """Examples and their classes, in NumPy's arrays or, for a compiled function, in JAX's.

    ``split._asdict()`` is what :class:`~jaxopt_core.data.Arrays` takes.

    Attributes:
        images: float32 of shape ``(examples, features)``, in [0, 1]; or, of colour, uint8 of shape
            ``(examples, height, width, 3)``, a quarter of the memory, to be normalised inside ``jit``.
        labels: int32 of shape ``(examples,)``, from 0 to ``classes - 1``.
    """

    images: NDArray[np.float32] | NDArray[np.uint8] | jax.Array
    labels: NDArray[np.int32] | jax.Array


class Dataset(NamedTuple):
    """What a classifier is trained and judged on.

    Attributes:
        name: for people to read.
        classes: number of classes.
        train: what the parameters are fitted to.
        test: what they never see.
    """

    name: str
    classes: int
    train: Split
    test: Split

    @property
    def features(self) -> int:
        """Numbers in one image."""
        return math.prod(self.train.images.shape[1:])
