"""Sound as a log-mel spectrogram."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["hz_to_mel", "log_mel", "mel_filters", "mel_to_hz"]

Scale = Literal["htk", "slaney"]

# Slaney's scale: 200/3 Hz a mel up to 1 kHz, above it 27 mels from 1 to 6.4 kHz.
_LINEAR, _KNEE, _STEP = 200 / 3, 1000.0, math.log(6.4) / 27


def hz_to_mel(hz: NDArray[np.float64] | float, scale: Scale = "htk") -> NDArray[np.float64]:
    """Frequency in mels.

    ``"htk"`` is ``2595 log10(1 + f / 700)`` (O'Shaughnessy, "Speech Communication", 1987; torchaudio's
    default), ``"slaney"`` is linear below 1 kHz and logarithmic above (Slaney, "Auditory Toolbox", 1998;
    librosa's default).

    Example:
        >>> print(hz_to_mel(700.0).round(2), hz_to_mel(1000.0, "slaney").round(2))
        781.17 15.0
    """
    hz = np.asarray(hz, np.float64)
    if scale == "htk":
        return 2595 * np.log10(1 + hz / 700)
    if scale != "slaney":
        raise ValueError(f"expected the scale 'htk' or 'slaney', got {scale!r}")
    return np.where(hz < _KNEE, hz / _LINEAR, _KNEE / _LINEAR + np.log(np.maximum(hz, _KNEE) / _KNEE) / _STEP)


def mel_to_hz(mel: NDArray[np.float64] | float, scale: Scale = "htk") -> NDArray[np.float64]:
    """The inverse of :func:`hz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    if scale != "slaney":
        raise ValueError(f"expected the scale 'htk' or 'slaney', got {scale!r}")
    knee = _KNEE / _LINEAR
    return np.where(mel < knee, mel * _LINEAR, _KNEE * np.exp(_STEP * (np.maximum(mel, knee) - knee)))


def mel_filters(
    n_mels: int,
    n_fft: int,
    sample_rate: int,
    *,
    f_min: float = 0.0,
    f_max: float | None = None,
    scale: Scale = "htk",
    unit_area: bool = False,
) -> NDArray[np.float64]:
    """Triangles over the frequencies of a Fourier transform, equally wide in mels.

    Args:
        n_mels: how many.
        n_fft: length of the transform.
        sample_rate: in hertz.
        f_min: where the first begins, in hertz. Default 0.
        f_max: where the last ends. Default: half the sample rate.
        scale: see :func:`hz_to_mel`.
        unit_area: divide each by half its width in hertz, as librosa does by default (``norm="slaney"``).
            Default False: the peaks are 1, as torchaudio's.

    Returns:
        float64 of shape ``(n_mels, n_fft // 2 + 1)``.

    Raises:
        ValueError: the frequencies are out of order or too high; or a triangle lies between two
            frequencies of the transform and would be 0 always: take fewer mels or a longer transform.

    Example:
        >>> filters = mel_filters(3, 16, 8000)
        >>> filters.shape, filters[0, 1:4].round(2)  # of 500, 1000 and 1500 Hz
        ((3, 9), array([0.89, 0.17, 0.  ]))
    """
    f_max = sample_rate / 2 if f_max is None else f_max
    if not 0 <= f_min < f_max <= sample_rate / 2:
        raise ValueError(f"expected 0 <= f_min < f_max <= {sample_rate / 2}, got {f_min} and {f_max}")
    low, high = hz_to_mel(np.array([f_min, f_max]), scale)
    edges = mel_to_hz(np.linspace(low, high, n_mels + 2), scale)
    frequencies = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    widths = np.diff(edges)[:, None]
    distance = edges[:, None] - frequencies
    rising, falling = -distance[:-2] / widths[:-1], distance[2:] / widths[1:]
    filters = np.maximum(0, np.minimum(rising, falling))
    empty = np.flatnonzero(filters.max(axis=1) == 0)
    if len(empty):
        raise ValueError(
            f"filter {empty[0]} of {n_mels} is zero everywhere: it lies between two frequencies of "
            f"n_fft={n_fft}; take fewer mels or a longer transform"
        )
    return filters * 2 / (edges[2:] - edges[:-2])[:, None] if unit_area else filters


def log_mel(
    signal: NDArray[np.float32],
    sample_rate: int,
    *,
    n_mels: int = 80,
    n_fft: int = 400,
    hop_length: int = 160,
    floor: float = 1e-10,
    f_min: float = 0.0,
    f_max: float | None = None,
    scale: Scale = "htk",
) -> NDArray[np.float32]:
    """The logarithm of the power in each mel band, frame by frame.

    Frames are centred on multiples of ``hop_length``, the signal is reflected at its ends and the window is
    Hann's, periodic: as in ``torch.stft`` and ``torchaudio.transforms.MelSpectrogram``.

    Args:
        signal: of shape ``(samples,)``.
        sample_rate: in hertz.
        n_mels: bands. Default 80.
        n_fft: samples in a frame. Default 400, which is 25 ms at 16 kHz.
        hop_length: samples from frame to frame. Default 160, which is 10 ms at 16 kHz.
        floor: the least power, so that silence has a logarithm. Default 1e-10.
        f_min: see :func:`mel_filters`.
        f_max: likewise.
        scale: likewise.

    Returns:
        float32 of shape ``(1 + samples // hop_length, n_mels)``.

    Raises:
        ValueError: the signal is not longer than half a frame.

    Example:
        >>> t = np.arange(8000) / 8000
        >>> mel = log_mel(np.sin(2 * np.pi * 1000 * t), 8000, n_mels=20)
        >>> mel.shape, int(mel[25].argmax())  # the band around 1 kHz
        ((51, 20), 9)
    """
    signal = np.asarray(signal, np.float64)
    if signal.ndim != 1 or len(signal) <= n_fft // 2:
        raise ValueError(f"expected a signal of more than {n_fft // 2} samples, got shape {signal.shape}")
    padded = np.pad(signal, n_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    filters = mel_filters(n_mels, n_fft, sample_rate, f_min=f_min, f_max=f_max, scale=scale)
    return np.log(np.maximum(power @ filters.T, floor)).astype(np.float32)
