"""§3.3: the log-mel is librosa's, crops are centred, Griffin-Lim is the printed algorithm."""

import dataclasses
import io
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from core.media import spectrograms, waveforms
from tests.support.media_files import S, voice_like


@pytest.mark.parametrize(("low", "high"), [(0.0, 8000.0), (80.0, 7600.0), (1200.0, 5000.0)])
@pytest.mark.parametrize(
    ("bands", "rate", "n_fft"), [(28, 16_000, 512), (64, 16_000, 400), (80, 22_050, 1024)]
)
def test_mel_filters_are_librosas(bands, rate, n_fft, low, high):
    import librosa.filters

    sizes = {"n_mels": bands, "sr": rate, "n_fft": n_fft}
    theirs = librosa.filters.mel(**sizes, fmin=low, fmax=high)
    s = dataclasses.replace(S, bands=bands, rate=rate, n_fft=n_fft, f_min=low, f_max=high)
    np.testing.assert_array_equal(spectrograms.mel_filters(s), theirs)


def test_a_spectrogram_loads_no_signal_library():
    """They take over a second, for which each `generate` would wait."""
    code = """
import sys, numpy as np
from core.config.settings import LogMel
from core.media import spectrograms
spectrograms.log_mel(np.zeros(16_000, np.float32), LogMel())
print(sorted({"librosa", "numba", "scipy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("samples", [100, 16_000, 23_457])
def test_log_mel_is_librosas(samples):
    import librosa

    wave = voice_like(2)[:samples]
    power = librosa.feature.melspectrogram(
        y=wave,
        sr=S.rate,
        n_fft=S.n_fft,
        win_length=S.window,
        hop_length=S.hop,
        n_mels=S.bands,
        fmin=S.f_min,
        fmax=S.f_max,
    )
    theirs = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None).T
    ours = spectrograms.log_mel(wave, S)
    assert ours.shape == theirs.shape == (1 + samples // S.hop, S.bands)
    assert np.abs(ours - theirs).max() < 1e-3


def istft(spectrum):
    """Least-squares inverse of `stft`, frame by frame: (..., columns, bins) -> (..., samples)."""
    columns, half = spectrum.shape[-2], S.n_fft // 2
    out = np.zeros((*spectrum.shape[:-2], S.n_fft + S.hop * (columns - 1)))
    power = np.zeros(out.shape[-1])
    for k in range(columns):
        at = slice(k * S.hop, k * S.hop + S.n_fft)
        out[..., at] += np.fft.irfft(spectrum[..., k, :], n=S.n_fft) * spectrograms.hann(S)
        power[at] += spectrograms.hann(S) ** 2
    return (out / np.maximum(power, 1e-3))[..., half:-half]


def plain_griffin_lim(magnitude, seed, iterations, momentum=0.99):
    """What the fast one is held to: the algorithm as it is printed."""
    turn = np.random.default_rng(seed).random(magnitude.shape, dtype=np.float32)
    phase, previous = np.exp(2j * np.pi * turn), 0
    for _ in range(iterations):
        rebuilt = spectrograms.stft(istft(magnitude * phase), S)
        phase = rebuilt + momentum * (rebuilt - previous)
        phase, previous = phase / np.maximum(np.abs(phase), 1e-12), rebuilt
    return istft(magnitude * phase)


def test_griffin_lim_is_the_printed_algorithm():
    """Value by value while rounding errors are small; as near the magnitudes at the end."""
    waves = np.stack([voice_like(seed=k)[:9000] for k in range(11)])
    magnitude = np.abs(spectrograms.stft(waves, S))
    assert len(magnitude) > waveforms.SPECTROGRAMS_PER_TASK
    fast = waveforms.griffin_lim(magnitude, S, seed=3, iterations=4)
    plain = plain_griffin_lim(magnitude, seed=3, iterations=4)
    assert fast.dtype == np.float32
    assert np.abs(fast - plain).max() < 1e-5 * np.abs(plain).max()

    def error(wave):
        again = np.abs(spectrograms.stft(wave.astype(np.float32), S))
        return np.linalg.norm(again - magnitude) / np.linalg.norm(magnitude)

    expected = error(plain_griffin_lim(magnitude, 3, 48))
    assert error(waveforms.griffin_lim(magnitude, S, seed=3)) == pytest.approx(expected, rel=0.02)
    assert waveforms.griffin_lim(magnitude[:0], S).shape == (0, fast.shape[1])
    once, again = (waveforms.griffin_lim(magnitude[0], S, seed=3) for _ in range(2))
    assert np.array_equal(once, again)


def test_a_batch_equals_its_rows():
    waves = np.stack([voice_like(seed=k) for k in range(3)])
    together, alone = spectrograms.log_mel(waves, S)[1], spectrograms.log_mel(waves[1], S)
    assert np.allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize(("columns", "seconds"), [(28, 0.25), (56, 0.50), (112, 1.01)])
def test_the_middle_is_symmetric(columns, seconds):
    db = np.repeat(np.arange(301.0)[:, None], S.bands, axis=1)
    window = spectrograms.centre_crop(db, columns)
    assert window.shape == (columns, S.bands)
    assert abs(window[:, 0].mean() - 150) <= 0.5
    assert columns * S.hop / S.rate == pytest.approx(seconds, abs=0.006)
    short = spectrograms.centre_crop(db[:11], columns)
    assert short.shape == (columns, S.bands)
    assert (short[0] == spectrograms.FLOOR_DB).all()


def test_scale_and_back():
    db = np.linspace(-120, 40, 200)
    y = spectrograms.scale(db, 5.0, S)
    assert y.min() == -1
    assert y.max() == 1
    inside = (db > 5 - S.range_db) & (db < 5)
    assert np.allclose(spectrograms.unscale(y, 5.0, S)[inside], db[inside], atol=1e-3)


def test_upload_gain_lifts_to_the_corpus_level_within_its_limit():
    db = spectrograms.log_mel(voice_like(), S)
    level = float(spectrograms.level_db(db))
    for offset, expected in ((-12.0, 12.0), (7.0, -7.0), (-80.0, 30.0)):
        gain = spectrograms.upload_gain_db(db + offset, level)
        assert gain == pytest.approx(expected, abs=1e-3)


def test_wav_file():
    data = waveforms.wav_bytes(voice_like(1.0), S.rate, "made by a test")
    with soundfile.SoundFile(io.BytesIO(data)) as f:
        assert (f.samplerate, f.channels, f.subtype) == (S.rate, 1, "PCM_16")
        assert f.comment == "made by a test"
        wave = f.read()
    assert wave[0] == 0
    assert wave[-1] == 0
    assert np.abs(wave).max() > 0.1


def test_a_worker_has_no_threads_of_its_own():
    """Not before an operation, and not after it; the rest of the process keeps its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    pool = waveforms.thread_pool.__wrapped__()
    try:
        add = lambda _: (torch.ones(10**6) + 1, torch.get_num_threads())[1]  # noqa: E731
        assert set(pool.map(add, range(8))) == {1}
        assert torch.get_num_threads() == 2
    finally:
        pool.shutdown()
        torch.set_num_threads(before)
