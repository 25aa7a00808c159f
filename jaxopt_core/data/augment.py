"""Preprocessing of batches inside ``jit``: on the device, and random by an explicit key.

In a training step, ``jax.random.fold_in(key, step)`` gives each update its own randomness, which a resumed
run repeats.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["mixup", "normalize", "random_crop", "random_flip", "spec_augment"]


def normalize(x: jax.Array, mean: Any, std: Any, *, dtype: Any = jnp.float32) -> jax.Array:
    """``(x - mean) / std`` over the last axis; bytes are scaled to [0, 1] first.

    Like torchvision's ``ToTensor`` and ``Normalize``, but channels are last.

    Args:
        x: of shape ``(..., channels)``.
        mean: number, or one for each channel.
        std: likewise.
        dtype: of the result. Default float32.

    Example:
        >>> normalize(jnp.array([[0, 255]], jnp.uint8), 0.5, (0.5, 0.25)).tolist()
        [[-1.0, 2.0]]
    """
    scaled = x.astype(dtype) / 255 if x.dtype == jnp.uint8 else x.astype(dtype)
    mean, std = (jnp.broadcast_to(jnp.asarray(each, dtype), x.shape) for each in (mean, std))
    return (scaled - mean) / std


def random_crop(key: jax.Array, images: jax.Array, *, padding: int = 4) -> jax.Array:
    """Pads each image with zeros and cuts its own size out at a random place.

    torchvision's ``RandomCrop(size, padding=padding)``, with another place for each image of the batch.

    Args:
        key: of the places.
        images: of shape ``(N, height, width, channels)``.
        padding: pixels on each side. Default 4.

    Example:
        >>> jax.jit(random_crop)(jax.random.key(0), jnp.ones((2, 8, 8, 3))).shape
        (2, 8, 8, 3)
    """
    count, height, width, channels = images.shape
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    corners = jax.random.randint(key, (count, 2), 0, 2 * padding + 1)

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        start = (corner[0], corner[1], jnp.zeros_like(corner[0]))
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    return jax.vmap(cut)(jnp.pad(images, sides), corners)


def random_flip(key: jax.Array, images: jax.Array, *, p: float = 0.5) -> jax.Array:
    """Mirrors some images left to right: torchvision's ``RandomHorizontalFlip``, drawn for each image.

    Args:
        key: of the choice.
        images: of shape ``(N, height, width, channels)``.
        p: probability that an image is mirrored. Default 0.5.

    Example:
        >>> image = jnp.arange(3).reshape(1, 1, 3, 1)
        >>> random_flip(jax.random.key(0), image, p=1.0).ravel().tolist()
        [2, 1, 0]
    """
    flipped = jax.random.bernoulli(key, p, (len(images), 1, 1, 1))
    return jnp.where(flipped, images[:, :, ::-1], images)


def spec_augment(
    key: jax.Array,
    features: jax.Array,
    lengths: jax.Array | None = None,
    *,
    freq_masks: int = 2,
    freq_width: int = 27,
    time_masks: int = 2,
    time_width: int = 100,
    time_fraction: float = 1.0,
    value: float = 0.0,
) -> jax.Array:
    """Hides random bands of frequencies and stretches of time.

    Each mask's width is uniform from 0 to its largest, and its place is uniform where it fits. Source: Park
    et al., "SpecAugment", 2019, section 2, without the warping of time; the defaults are its policy LD, in
    which ``time_fraction`` is 1. Widths are bounded by the spectrogram and, in time, by the utterance.

    Args:
        key: of the masks; each utterance has its own.
        features: of shape ``(N, frames, bands)``.
        lengths: int32 of shape ``(N,)``, how many frames count. Default: all.
        freq_masks: bands hidden. Default 2.
        freq_width: their largest width, the paper's F. Default 27.
        time_masks: stretches hidden. Default 2.
        time_width: their largest width in frames, the paper's T. Default 100.
        time_fraction: the largest share of an utterance that one stretch hides, the paper's p. Default 1.
        value: what is put there. Default 0, the mean of standardised features.

    Example:
        >>> @jax.jit
        ... def augment(key, features):
        ...     return spec_augment(key, features, freq_width=8, time_width=10)
        >>> 0 < float(augment(jax.random.key(1), jnp.ones((1, 50, 20))).mean()) < 1
        True
    """
    count, frames, bands = features.shape
    lengths = jnp.full(count, frames) if lengths is None else lengths
    key_frequencies, key_times = jax.random.split(key)
    widest = jnp.full(count, min(freq_width, bands))
    in_band = _masks(key_frequencies, freq_masks, widest, jnp.full(count, bands), bands)
    widest = jnp.minimum(time_width, (time_fraction * lengths.astype(jnp.float32)).astype(jnp.int32))
    in_time = _masks(key_times, time_masks, widest, lengths, frames)
    hidden = in_band[:, None, :] | in_time[:, :, None]
    return jnp.where(hidden, jnp.asarray(value, features.dtype), features)


def mixup(
    key: jax.Array, x: jax.Array, targets: jax.Array, *, alpha: float = 0.2
) -> tuple[jax.Array, jax.Array]:
    """Mixes each example and its target with another's of the batch.

    ``lam x_i + (1 - lam) x_j`` and the same of the targets, one ``lam`` of Beta(alpha, alpha) for the batch.
    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018, and their own implementation,
    which draws one ``lam`` a batch.

    Args:
        key: of the pairs and of ``lam``.
        x: float, of shape ``(N, ...)``.
        targets: probabilities of shape ``(N, classes)``; of classes, ``jax.nn.one_hot`` makes them.
        alpha: 0 leaves the batch as it is. Default 0.2.

    Returns:
        The mixed examples and targets.

    Raises:
        TypeError: one of them is not float: classes have no mean.
        ValueError: ``alpha`` is negative.

    Example:
        >>> x, y = jax.jit(mixup)(jax.random.key(0), jnp.eye(4), jnp.eye(4))
        >>> print(y.sum(axis=1))  # still probabilities
        [1. 1. 1. 1.]
    """
    if not (jnp.issubdtype(x.dtype, jnp.floating) and jnp.issubdtype(targets.dtype, jnp.floating)):
        raise TypeError(
            f"expected floats to mix, got {x.dtype} and {targets.dtype}: "
            f"make probabilities of classes with jax.nn.one_hot"
        )
    if alpha < 0:
        raise ValueError(f"Invalid alpha value: {alpha}")
    if alpha == 0:
        return x, targets
    key_lam, key_pairs = jax.random.split(key)
    lam = jax.random.beta(key_lam, alpha, alpha)
    others = jax.random.permutation(key_pairs, len(x))

    def mix(part: jax.Array) -> jax.Array:
        weight = lam.astype(part.dtype)
        return weight * part + (1 - weight) * part[others]

    return mix(x), mix(targets)


def _masks(key: jax.Array, masks: int, widest: jax.Array, lengths: jax.Array, size: int) -> jax.Array:
    """Bool of shape ``(N, size)``: in a mask, each at most ``widest`` wide and within ``lengths``."""
    count = len(lengths)
    key_width, key_start = jax.random.split(key)
    widths = jax.random.randint(key_width, (masks, count), 0, widest[None] + 1)
    starts = jax.random.randint(key_start, (masks, count), 0, lengths[None] - widths + 1)
    place = jnp.arange(size)[None, None]
    inside = (place >= starts[:, :, None]) & (place < (starts + widths)[:, :, None])
    return inside.any(axis=0)
