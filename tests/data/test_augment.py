"""Preprocessing in jit: what each example becomes, for explicit keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_core.data import mixup, normalize, random_crop, random_flip, spec_augment

KEY = jax.random.key(0)
IMAGES = jnp.arange(1, 64 * 5 * 6 * 2 + 1, dtype=jnp.float32).reshape(64, 5, 6, 2)


def test_normalize():
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 3, 3), np.uint8)
    mean, std = np.float32([0.49, 0.48, 0.44]), np.float32([0.2, 0.19, 0.2])
    got = jax.jit(normalize)(images, mean, std)
    np.testing.assert_allclose(got, (images.astype(np.float32) / 255 - mean) / std, rtol=1e-5, atol=1e-6)
    assert normalize(jnp.asarray(images), 0.5, 0.5, dtype=jnp.bfloat16).dtype == jnp.bfloat16


def test_random_crop_moves_each_image_by_itself():
    cropped = np.asarray(jax.jit(lambda key, x: random_crop(key, x, padding=2))(KEY, IMAGES))
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    places = set()
    for image, around in zip(cropped, padded, strict=True):
        found = [
            (i, j) for i in range(5) for j in range(5) if np.array_equal(around[i : i + 5, j : j + 6], image)
        ]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 15  # of 25


def test_random_flip_mirrors_about_half():
    flipped = np.asarray(jax.jit(random_flip)(KEY, IMAGES))
    mirrored = [np.array_equal(one, image[:, ::-1]) for one, image in zip(flipped, IMAGES, strict=True)]
    kept = [np.array_equal(one, image) for one, image in zip(flipped, IMAGES, strict=True)]
    assert all(m != k for m, k in zip(mirrored, kept, strict=True))
    assert 20 < sum(mirrored) < 44


def test_spec_augment_hides_bands_and_stretches_within_the_utterance():
    lengths = jnp.where(jnp.arange(64) % 2, 30, 12)
    run = jax.jit(
        lambda key: spec_augment(
            key,
            jnp.ones((64, 40, 16)),
            lengths,
            freq_masks=1,
            freq_width=5,
            time_masks=1,
            time_width=10,
            time_fraction=0.5,
        )
    )
    hidden = np.asarray(run(KEY)) == 0
    bands, frames = hidden.all(axis=1), hidden.all(axis=2)
    np.testing.assert_array_equal(hidden, bands[:, None] | frames[:, :, None])
    for masks in (bands, frames):
        assert np.all(np.abs(np.diff(masks.astype(int), axis=1)).sum(axis=1) <= 2)  # one piece
    assert set(bands.sum(axis=1)) == set(range(6))
    assert set(frames[lengths == 12].sum(axis=1)) == set(range(7))  # half of 12
    assert set(frames[lengths == 30].sum(axis=1)) == set(range(11))
    assert not frames[lengths == 12][:, 12:].any()
    assert not np.array_equal(hidden, np.asarray(run(jax.random.key(1))) == 0)


def test_mixup_mixes_examples_and_targets_alike():
    x, targets = jax.jit(mixup)(KEY, jnp.eye(8), jnp.eye(8))
    np.testing.assert_array_equal(x, targets)
    np.testing.assert_allclose(x.sum(axis=1), 1, rtol=1e-6)
    lam = {round(float(v), 6) for v in np.diag(x)} - {1.0}
    assert len(lam) == 1  # one for the batch
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)).
    draw = jax.jit(
        jax.vmap(lambda key: mixup(key, jnp.array([[1.0], [0.0]]), jnp.eye(2), alpha=0.5)[0][:, 0])
    )
    values = np.asarray(draw(jax.random.split(KEY, 4000)))
    mixed = values[values[:, 0] != 1, 0]
    assert np.mean(mixed) == pytest.approx(0.5, abs=0.05)
    assert np.var(mixed) == pytest.approx(1 / 8, abs=0.02)


def test_mixup_refuses():
    with pytest.raises(TypeError, match="got float32 and int32: make probabilities of classes"):
        mixup(KEY, jnp.eye(2), jnp.arange(2))
    with pytest.raises(ValueError, match="Invalid alpha value: -1"):
        mixup(KEY, jnp.eye(2), jnp.eye(2), alpha=-1)
    assert mixup(KEY, IMAGES, IMAGES, alpha=0)[0] is IMAGES
