"""§3.3: the log-mel is librosa's, the window is the clip's middle, and a sound carries the spectrogram it was made from."""

import io

import numpy as np
import pytest
import soundfile
import torch

from core.media import spectrograms, waveforms
from tests.support import media_files


@pytest.mark.parametrize("samples", [100, 16_000, 23_457])
def test_log_mel_is_librosas(samples):
    import librosa

    wave = media_files.voice_like(2)[:samples]
    power = librosa.feature.melspectrogram(
        y=wave,
        sr=media_files.S.rate,
        n_fft=media_files.S.n_fft,
        win_length=media_files.S.window,
        hop_length=media_files.S.hop,
        n_mels=media_files.S.bands,
        fmin=media_files.S.f_min,
        fmax=media_files.S.f_max,
    )
    theirs = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None).T
    ours = spectrograms.log_mel(wave, media_files.S)
    assert ours.shape == theirs.shape == (1 + samples // media_files.S.hop, media_files.S.bands)
    assert np.abs(ours - theirs).max() < 1e-3


def istft(spectrum):
    """The least-squares inverse of `stft`, frame by frame: (..., columns, bins) -> (..., (columns - 1) * hop)."""
    columns, half = spectrum.shape[-2], media_files.S.n_fft // 2
    out = np.zeros((*spectrum.shape[:-2], media_files.S.n_fft + media_files.S.hop * (columns - 1)))
    power = np.zeros(out.shape[-1])
    for k in range(columns):
        at = slice(k * media_files.S.hop, k * media_files.S.hop + media_files.S.n_fft)
        out[..., at] += np.fft.irfft(
            spectrum[..., k, :], n=media_files.S.n_fft
        ) * spectrograms.hann(media_files.S)
        power[at] += spectrograms.hann(media_files.S) ** 2
    return (out / np.maximum(power, 1e-3))[..., half:-half]


def plain_griffin_lim(magnitude, seed, iterations, momentum=0.99):
    """What the fast one is held to: the algorithm as it is printed."""
    turn = np.random.default_rng(seed).random(magnitude.shape, dtype=np.float32)
    phase, previous = np.exp(2j * np.pi * turn), 0
    for _ in range(iterations):
        rebuilt = spectrograms.stft(istft(magnitude * phase), media_files.S)
        phase = rebuilt + momentum * (rebuilt - previous)
        phase, previous = phase / np.maximum(np.abs(phase), 1e-12), rebuilt
    return istft(magnitude * phase)


def test_griffin_lim_is_the_printed_algorithm():
    """Value by value as long as rounding has not grown, and as close to the magnitudes after all turns."""
    magnitude = np.abs(
        spectrograms.stft(
            np.stack([media_files.voice_like(seed=k)[:9000] for k in range(11)]), media_files.S
        )
    )
    assert len(magnitude) > waveforms.SPECTROGRAMS_PER_TASK
    fast, plain = (
        f(magnitude, seed=3, iterations=4)
        for f in (lambda m, **k: waveforms.griffin_lim(m, media_files.S, **k), plain_griffin_lim)
    )
    assert fast.dtype == np.float32
    assert np.abs(fast - plain).max() < 1e-5 * np.abs(plain).max()

    def apart(wave):
        again = np.abs(spectrograms.stft(wave.astype(np.float32), media_files.S))
        return np.linalg.norm(again - magnitude) / np.linalg.norm(magnitude)

    assert apart(waveforms.griffin_lim(magnitude, media_files.S, seed=3)) == pytest.approx(
        apart(plain_griffin_lim(magnitude, 3, 48)), rel=0.02
    )
    assert waveforms.griffin_lim(magnitude[:0], media_files.S).shape == (0, fast.shape[1])
    assert np.array_equal(
        waveforms.griffin_lim(magnitude[0], media_files.S, seed=3),
        waveforms.griffin_lim(magnitude[0], media_files.S, seed=3),
    )


def test_a_batch_equals_its_rows():
    waves = np.stack([media_files.voice_like(seed=k) for k in range(3)])
    assert np.allclose(
        spectrograms.log_mel(waves, media_files.S)[1],
        spectrograms.log_mel(waves[1], media_files.S),
        atol=1e-4,
    )


@pytest.mark.parametrize(("columns", "seconds"), [(28, 0.25), (56, 0.50), (112, 1.01)])
def test_the_middle_is_symmetric(columns, seconds):
    db = np.repeat(np.arange(301.0)[:, None], media_files.S.bands, axis=1)
    window = spectrograms.centre_crop(db, columns)
    assert window.shape == (columns, media_files.S.bands)
    assert abs(window[:, 0].mean() - 150) <= 0.5
    assert columns * media_files.S.hop / media_files.S.rate == pytest.approx(seconds, abs=0.006)
    short = spectrograms.centre_crop(db[:11], columns)
    assert short.shape == (columns, media_files.S.bands)
    assert (short[0] == spectrograms.FLOOR_DB).all()


def test_scale_and_back():
    db = np.linspace(-120, 40, 200)
    y = spectrograms.scale(db, 5.0, media_files.S)
    assert y.min() == -1
    assert y.max() == 1
    inside = (db > 5 - media_files.S.range_db) & (db < 5)
    assert np.allclose(spectrograms.unscale(y, 5.0, media_files.S)[inside], db[inside], atol=1e-3)


def test_upload_gain_lifts_to_the_corpus_level_within_its_limit():
    db = spectrograms.log_mel(media_files.voice_like(), media_files.S)
    for offset, expected in ((-12.0, 12.0), (7.0, -7.0), (-80.0, 30.0)):
        assert spectrograms.upload_gain_db(
            db + offset, float(spectrograms.level_db(db))
        ) == pytest.approx(expected, abs=1e-3)


def test_wav_file():
    data = waveforms.wav_bytes(media_files.voice_like(1.0), media_files.S.rate, "made by a test")
    with soundfile.SoundFile(io.BytesIO(data)) as f:
        assert (f.samplerate, f.channels, f.subtype, f.comment) == (
            media_files.S.rate,
            1,
            "PCM_16",
            "made by a test",
        )
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
        assert set(
            pool.map(lambda _: (torch.ones(10**6) + 1, torch.get_num_threads())[1], range(8))
        ) == {1}
        assert torch.get_num_threads() == 2
    finally:
        pool.shutdown()
        torch.set_num_threads(before)
