"""scikit-learn's digits and their fixed split."""

import numpy as np

from jaxopt_core.data import load_digits


def test_split():
    data = load_digits()
    assert (data.classes, data.features) == (10, 64)
    assert (len(data.train.labels), len(data.test.labels)) == (1437, 360)
    for split in (data.train, data.test):
        assert split.images.dtype == np.float32
        assert split.labels.dtype == np.int32
        assert (split.images.min(), split.images.max()) == (0, 1)
        # Every class is there, and none is rare.
        assert np.bincount(split.labels).min() > 0.07 * len(split.labels)


def test_no_image_is_on_both_sides():
    data = load_digits()
    train = {image.tobytes() for image in data.train.images}
    assert not train & {image.tobytes() for image in data.test.images}
