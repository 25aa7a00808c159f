"""Spoken digits, synthesised: speech recognition without a download."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jaxopt_core.data.mel import log_mel
from jaxopt_core.data.speech import SpeechData, assemble

__all__ = ["make_spoken_digits", "speak"]

SAMPLE_RATE = 8000
# Two resonances in hertz at the beginning and at the end of each digit, spread over the plane that
# vowels fill (Peterson and Barney, "Control Methods Used in a Study of the Vowels", 1952).
_FORMANTS = (
    ((350, 2200), (600, 1000)),
    ((600, 900), (650, 1100)),
    ((320, 900), (320, 900)),
    ((280, 2300), (280, 2300)),
    ((600, 900), (450, 1400)),
    ((750, 1200), (300, 2200)),
    ((400, 2000), (400, 2000)),
    ((550, 1850), (300, 1200)),
    ((500, 1850), (270, 2400)),
    ((700, 1150), (700, 1800)),
)


def make_spoken_digits(
    train: int = 1000,
    test: int = 200,
    *,
    max_digits: int = 5,
    n_mels: int = 24,
    noise: float = 0.02,
    seed: int = 0,
) -> SpeechData:
    """Utterances of one to ``max_digits`` digits by many voices, as log-mels every 10 ms.

    No sound file is needed and none is as hard as real speech: it shows that a recipe works. Each digit
    is a voiced sound of 0.14 to 0.24 s whose two resonances glide from a place of its own to another; pitch,
    size of the vocal tract, loudness, durations and pauses differ between utterances.

    Args:
        train: utterances. Default 1000.
        test: utterances, by other voices. Default 200.
        max_digits: in an utterance. Default 5.
        n_mels: bands. Default 24.
        noise: standard deviation of the white noise; the voices' is about 0.1. Default 0.02.
        seed: of all of it. Default 0.

    Example:
        >>> data = make_spoken_digits(train=8, test=2)
        >>> data.train["features"].shape[::2], data.train["labels"].shape, data.alphabet[:3]
        ((8, 24), (8, 5), ('0', '1', '2'))
    """
    random = np.random.default_rng(seed)
    features, labels = [], []
    for _ in range(train + test):
        digits = random.integers(0, 10, random.integers(1, max_digits + 1))
        sound = speak(digits.tolist(), random)
        sound = sound + noise * random.normal(size=len(sound)).astype(np.float32)
        features.append(log_mel(sound, SAMPLE_RATE, n_mels=n_mels, n_fft=256, hop_length=80, floor=1e-6))
        labels.append(digits + 1)
    is_test = np.arange(train + test) >= train
    return assemble("synthesised digits", tuple("0123456789"), features, labels, is_test, max_digits)


def speak(digits: list[int], random: np.random.Generator) -> NDArray[np.float32]:
    """The sound of digits, by a voice drawn from ``random``, at 8 kHz.

    Returns:
        float32 of shape ``(samples,)``.
    """
    pitch, tract = random.uniform(90, 220), random.uniform(0.9, 1.1)
    pieces = [_silence(random, 0.05, 0.1)]
    for digit in digits:
        pieces += [
            _voice(digit, pitch * random.uniform(0.9, 1.1), tract, random),
            _silence(random, 0.03, 0.1),
        ]
    return np.concatenate(pieces).astype(np.float32)


def _voice(digit: int, pitch: float, tract: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Harmonics of a falling pitch, each as loud as the gliding resonances let it through."""
    samples = int(SAMPLE_RATE * random.uniform(0.14, 0.24))
    progress = np.linspace(0, 1, samples)
    falling = pitch * (1.05 - 0.15 * progress)
    phase = 2 * np.pi * np.cumsum(falling) / SAMPLE_RATE
    count = int(0.45 * SAMPLE_RATE / pitch)
    # Powers of one tone are its harmonics, cheaper than a sine for each.
    tones = np.cumprod(np.broadcast_to(np.exp(1j * phase), (count, samples)), axis=0).imag
    # The resonances move slowly: their gain at a few moments is enough.
    moments = np.linspace(0, 1, 9)
    start, end = (tract * np.array(formants)[:, None, None] for formants in _FORMANTS[digit])
    resonances = start + (end - start) * moments
    frequencies = np.arange(1, count + 1)[:, None] * np.interp(moments, progress, falling)
    # The width of a resonance is about 80 Hz and grows with its frequency.
    off = (frequencies - resonances) / (40 + 0.05 * resonances)
    gain = np.tensordot([1.0, 0.6], 1 / (1 + off**2), axes=1)
    between = np.maximum(0, 1 - np.abs(progress * 8 - np.arange(9)[:, None]))
    sound = np.einsum("ht,ht->t", gain @ between, tones)
    envelope = np.minimum(1, 8 * np.minimum(progress, 1 - progress))
    return 0.1 * random.uniform(0.7, 1.3) * sound * envelope


def _silence(random: np.random.Generator, least: float, most: float) -> NDArray[np.float64]:
    return np.zeros(int(SAMPLE_RATE * random.uniform(least, most)))
