"""Handwritten digits that come with scikit-learn: real data without a download."""

import numpy as np

from jaxopt_core.data.dataset import Dataset, Split
from jaxopt_core.extras import needs_extra

_LARGEST_PIXEL = np.float32(16)


def load_digits() -> Dataset:
    """Reads scikit-learn's embedded 8x8 digits: 1437 to train on, 360 to test on.

    Every fifth image is a test image. The split depends on no random generator, so it is the same
    on every machine and in every release; like a shuffled split, it has each writer on both sides.

    Returns:
        Ten classes, 64 features.

    Raises:
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> digits = load_digits()
        >>> digits.train.images.shape, digits.test.images.shape
        ((1437, 64), (360, 64))
    """
    with needs_extra("train"):
        from sklearn import datasets

    pixels, classes = datasets.load_digits(return_X_y=True)
    images = pixels.astype(np.float32) / _LARGEST_PIXEL
    labels = classes.astype(np.int32)
    is_test = np.arange(len(labels)) % 5 == 0
    return Dataset(
        name="scikit-learn digits",
        classes=10,
        train=Split(images[~is_test], labels[~is_test]),
        test=Split(images[is_test], labels[is_test]),
    )
