"""WAV files, mel filters against their published formulas and torch.stft, and synthesised digits."""

import re
import wave

import numpy as np
import pytest
import torch

from jaxopt_core.data import (
    DataFileError,
    hz_to_mel,
    load_recordings,
    log_mel,
    make_spoken_digits,
    mel_filters,
    mel_to_hz,
    read_wav,
    speak,
)

RANDOM = np.random.default_rng(0)
SOUND = RANDOM.uniform(-1, 1, (50, 2))


def write(path, sound, width, rate=16000):
    bits = 8 * width
    scaled = np.floor(sound * 2 ** (bits - 1)).astype(np.int64) + (128 if width == 1 else 0)
    data = b"".join(int(v).to_bytes(width, "little", signed=width > 1) for v in scaled.ravel())
    with wave.open(str(path), "wb") as file:
        file.setparams((sound.shape[1], width, rate, 0, "NONE", ""))
        file.writeframes(data)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_reads_every_width(tmp_path, width, channels):
    path = tmp_path / "sound.wav"
    write(path, SOUND[:, :channels], width)
    samples, rate = read_wav(path)
    assert (samples.dtype, samples.shape, rate) == (np.float32, (50,), 16000)
    expected = SOUND[:, :channels].mean(axis=1)
    np.testing.assert_allclose(samples, expected, atol=2.0 ** (1 - 8 * width) + 1e-7)


BROKEN = {
    "cut": (lambda c: c[:-8], "expected 50 frames of 4 bytes, found 48 at byte 236, the end"),
    "header cut": (lambda c: c[:30], "expected a whole WAV file of PCM, found"),
    "text": (lambda c: b"hello, world", "expected b'RIFF', found b'hell' at byte 0"),
    "other": (lambda c: c[:8] + b"AVI " + c[12:], "expected b'WAVE', found b'AVI ' at byte 8"),
    "compressed": (lambda c: c[:20] + b"\x11\0" + c[22:], "found unknown format: 17"),
    "empty": (lambda c: b"", "expected b'RIFF', found b'' at byte 0"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken(tmp_path, name):
    change, message = BROKEN[name]
    path = tmp_path / "sound.wav"
    write(path, SOUND, 2)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataFileError, match=re.escape(message)) as caught:
        read_wav(path)
    assert str(caught.value).startswith(f"{path}: expected ")


def test_mel_scales_are_the_published_ones():
    # librosa's documentation of hz_to_mel gives 60 Hz and 110, 220, 440 Hz.
    np.testing.assert_allclose(hz_to_mel(np.array([60.0, 110, 220, 440]), "slaney"), [0.9, 1.65, 3.3, 6.6])
    np.testing.assert_allclose(hz_to_mel(6400.0, "slaney"), 15 + 27)
    np.testing.assert_allclose(hz_to_mel(1000.0, "htk"), 2595 * np.log10(1 + 10 / 7))
    hz = np.array([0.0, 20, 999, 1000, 1001, 8000])
    for scale in ("htk", "slaney"):
        np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz, scale), scale), hz, atol=1e-9)
        with pytest.raises(ValueError, match="expected the scale 'htk' or 'slaney', got 'bark'"):
            (hz_to_mel if scale == "htk" else mel_to_hz)(1.0, "bark")


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("unit_area", [False, True])
def test_filters_are_triangles_between_equally_spaced_mels(scale, unit_area):
    got = mel_filters(40, 512, 16000, f_min=20, f_max=7600, scale=scale, unit_area=unit_area)
    low, high = hz_to_mel(20.0, scale), hz_to_mel(7600.0, scale)
    for m in range(40):  # one number at a time, from the definition
        left, centre, right = (float(mel_to_hz(low + (high - low) * (m + i) / 41, scale)) for i in range(3))
        for k in range(257):
            f = k * 16000 / 512
            up, down = (f - left) / (centre - left), (right - f) / (right - centre)
            height = max(0.0, min(up, down)) * (2 / (right - left) if unit_area else 1)
            assert got[m, k] == pytest.approx(height, abs=1e-12)


def test_log_mel_is_that_of_torch_stft():
    signal = RANDOM.normal(size=3000).astype(np.float32)
    got = log_mel(signal, 16000, n_mels=40)
    spectrum = torch.stft(
        torch.from_numpy(signal).double(),
        400,
        160,
        window=torch.hann_window(400, dtype=torch.float64),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    power = spectrum.abs().pow(2).numpy()
    expected = np.log(np.maximum(mel_filters(40, 400, 16000) @ power, 1e-10)).T
    assert got.shape == (1 + 3000 // 160, 40)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    np.testing.assert_allclose(log_mel(np.zeros(3000), 16000, n_mels=40), np.log(1e-10), rtol=1e-6)


def test_mel_refuses():
    with pytest.raises(ValueError, match=r"0 <= f_min < f_max <= 4000.0, got 100 and 5000"):
        mel_filters(10, 256, 8000, f_min=100, f_max=5000)
    with pytest.raises(ValueError, match="filter 0 of 80 is zero everywhere"):
        mel_filters(80, 256, 16000)
    with pytest.raises(ValueError, match=r"more than 200 samples, got shape \(200,\)"):
        log_mel(np.zeros(200), 16000)


def test_spoken_digits():
    data = make_spoken_digits(30, 10, max_digits=4)
    again, other = (make_spoken_digits(30, 10, max_digits=4, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(data.train["features"], again.train["features"])
    assert not np.array_equal(data.train["labels"], other.train["labels"])
    for part, count in ((data.train, 30), (data.test, 10)):
        frames, size = part["feature_lengths"], part["label_lengths"]
        assert part["features"].dtype == np.float32
        assert part["labels"].shape == (count, 4)
        behind = np.arange(part["features"].shape[1]) >= frames[:, None]
        assert np.all(part["features"][behind] == 0)
        np.testing.assert_array_equal((part["labels"] > 0).sum(axis=1), size)
        # Half of the frames must suffice for CTC: one for each digit and one between equal ones.
        assert np.all(frames // 2 >= 2 * size)
    inside = np.arange(data.train["features"].shape[1]) < data.train["feature_lengths"][:, None]
    heard = data.train["features"][inside]
    np.testing.assert_allclose(heard.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(heard.std(axis=0), 1, atol=1e-3)


def record(folder, count=4, rate=8000):
    random = np.random.default_rng(0)
    for i in range(count):
        digits = random.integers(0, 10, i + 1)
        path = folder / f"speaker{i % 2}" / f"{i}.wav"
        path.parent.mkdir(exist_ok=True, parents=True)
        write(path, speak(digits.tolist(), random)[:, None], 2, rate)
        path.with_suffix(".txt").write_text("\n Said " + "".join(map(str, digits)))
    return folder


def test_recordings(tmp_path):
    data = load_recordings(record(tmp_path), n_mels=20, test_fraction=0.25)
    said = []
    for part, count in ((data.train, 3), (data.test, 1)):
        assert part["features"].shape[::2] == (count, 20)
        for row, size in zip(part["labels"], part["label_lengths"], strict=True):
            said.append("".join(data.alphabet[i - 1] for i in row[:size]))
            assert not row[size:].any()
    transcripts = [path.read_text().strip().lower() for path in tmp_path.rglob("*.txt")]
    assert sorted(said) == sorted(transcripts)
    assert {"s", "a", " "} <= set(data.alphabet)
    samples, _ = read_wav(tmp_path / "speaker0/0.wav")
    frames = np.concatenate([data.train["feature_lengths"], data.test["feature_lengths"]])
    assert 1 + len(samples) // 80 in frames


RECORDINGS_REFUSED = {
    "one": (lambda f: [p.unlink() for p in sorted(f.rglob("*.wav"))[1:]], "two .wav files, found 1"),
    "transcript": (lambda f: (f / "speaker1/3.txt").unlink(), r"found none for speaker1.3\.wav$"),
    "nothing": (lambda f: (f / "speaker1/3.txt").write_text(" "), "3.txt: .* found nothing"),
    "latin-1": (lambda f: (f / "speaker0/2.txt").write_bytes(b"caf\xe9"), "expected UTF-8, .* at byte 3"),
    "rate": (
        lambda f: write(f / "speaker1/3.wav", SOUND, 2, 16000),
        "at 8000 Hz, .* found 50 samples at 16000",
    ),
    "short": (lambda f: write(f / "speaker1/3.wav", SOUND, 2, 8000), "at least 200 samples at 8000 Hz"),
}


@pytest.mark.parametrize("name", RECORDINGS_REFUSED)
def test_recordings_refused(tmp_path, name):
    spoil, message = RECORDINGS_REFUSED[name]
    spoil(record(tmp_path))
    with pytest.raises(DataFileError, match=message):
        load_recordings(tmp_path, n_mels=20)
