"""The vocoder: its parts, its training, and how well its sounds carry their spectrograms."""

import itertools

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from core import files
from core.config.settings import Config, LogMel
from core.evaluation.hearing import acoustics
from core.experiments import vocoder_training
from core.media import spectrograms, vocoder, waveforms
from core.models import networks
from tests.support.media_files import voice_like

S = LogMel()
PLAIN = [pytest.param(True, id="Griffin-Lim"), pytest.param(False, id="network")]


def spectrogram(wave):
    db = spectrograms.centre_crop(spectrograms.log_mel(wave, S), S.columns)
    return spectrograms.scale(db, 25.0, S)


def test_the_shipped_network_is_small_and_known():
    network, settings = vocoder.load(vocoder.weights_path(S.bands))
    assert vocoder.has_network(S)
    assert sum(p.numel() for p in network.parameters()) < 1_000_000
    assert settings["bands"] == S.bands
    assert not vocoder.has_network(LogMel(bands=33))


@pytest.mark.parametrize("plain", PLAIN)
@pytest.mark.parametrize("blur", [0, 3])
def test_a_sound_carries_its_spectrogram(blur, plain):
    from scipy.ndimage import gaussian_filter

    db = spectrograms.centre_crop(spectrograms.log_mel(voice_like(), S), S.columns)
    y = spectrograms.scale(gaussian_filter(db, blur) if blur else db, 25.0, S)
    wave, gain = vocoder.to_waveform(y, 25.0, S, seed=3, plain=plain)
    assert wave.shape == ((S.columns - 1) * S.hop,)
    correlation, error = spectrograms.resynthesis_agreement(y, wave, 25.0, S, float(gain))
    assert correlation >= 0.9
    assert error <= 6
    assert np.array_equal(wave, vocoder.to_waveform(y, 25.0, S, seed=3, plain=plain)[0])  # seeded
    assert not np.array_equal(wave, vocoder.to_waveform(y, 25.0, S, seed=4, plain=plain)[0])


def test_a_voice_keeps_its_tone_and_noise_gets_none():
    """The network's own share of tone leaves a quarter of this voice without a pitch."""
    noise = (0.05 * np.random.default_rng(0).normal(size=24_000)).astype(np.float32)
    y = np.stack([spectrogram(wave) for wave in (voice_like(seed=0), voice_like(seed=1), noise)])
    *voices, hiss = vocoder.to_waveform(y, 25.0, S)[0]
    assert min((acoustics.pitch(wave, S) > 0).mean() for wave in voices) > 0.85
    assert not acoustics.pitch(hiss, S).any()


def test_it_carries_twice_as_well_as_griffin_lim():
    y = np.stack([spectrogram(voice_like(seed=k)) for k in range(3)])
    error = {}
    for plain in (True, False):
        waves, gain = vocoder.to_waveform(y, 25.0, S, plain=plain)
        triples = zip(y, waves, gain)
        agreement = [spectrograms.resynthesis_agreement(a, w, 25.0, S, g) for a, w, g in triples]
        error[plain] = np.mean([db for _, db in agreement])
    assert error[False] <= 0.5 * error[True]


def test_a_batch_is_its_rows():
    y = np.stack(
        [spectrogram(voice_like(seed=k)) for k in range(waveforms.SPECTROGRAMS_PER_TASK + 1)]
    )
    together = vocoder.to_waveform(y, 25.0, S)[0]
    assert np.allclose(together[-1], vocoder.to_waveform(y[-1], 25.0, S)[0], atol=1e-3)
    assert vocoder.to_waveform(y[:0], 25.0, S)[0].shape == (0, together.shape[1])


@pytest.mark.parametrize("plain", PLAIN)
def test_a_loud_spectrogram_is_turned_down_not_clipped(plain):
    wave, gain = vocoder.to_waveform(np.full((112, 28), 1.0, np.float32), 60.0, S, plain=plain)
    assert gain < 0
    assert np.abs(wave).max() == pytest.approx(waveforms.MAX_PEAK, abs=1e-3)


@pytest.mark.parametrize("plain", PLAIN)
def test_silence_stays_silent(plain):
    wave, gain = vocoder.to_waveform(np.full((112, 28), -1.0, np.float32), 5.0, S, plain=plain)
    assert np.abs(wave).max() < 1e-3
    assert gain == 12  # of RAVDESS


def test_other_settings_fall_back_to_griffin_lim():
    other = LogMel(bands=33)
    y = spectrograms.scale(spectrograms.log_mel(voice_like(), other)[:112], 25.0, other)
    assert np.array_equal(
        vocoder.to_waveform(y, 25.0, other)[0], vocoder.to_waveform(y, 25.0, other, plain=True)[0]
    )


def test_pulses_have_their_harmonics_and_no_clicks():
    E = vocoder.pulse_spectrum(torch.full((1, 60), 200.0), S)[0].abs().mean(dim=0)
    hz = torch.arange(len(E)) * S.rate / S.n_fft
    at = [int((hz - 200 * k).abs().argmin()) for k in (1, 5, 20)]
    between = [int((hz - 200 * (k + 0.5)).abs().argmin()) for k in (1, 5, 20)]
    assert E[at].min() > 5 * E[between].max()
    assert E[at].max() == pytest.approx(1, abs=0.1)
    assert E[hz > S.f_max + 200].max() < 0.1
    glide = vocoder.pulse_spectrum(torch.linspace(100, 400, 60)[None], S)
    assert torch.isfinite(glide.abs()).all()


def test_the_melody_is_the_likeliest_path():
    """Against every path, on a field small enough to try them all."""
    generator = torch.Generator().manual_seed(0)
    few = 4
    logits = torch.full((1, 5, vocoder.PITCH_BINS + 1), -50.0)
    logits[0, :, 20 : 20 + few] = 2 * torch.randn(5, few, generator=generator)
    weighted = logits[0, :, :-1].log_softmax(dim=-1) * (1 - logits[0].softmax(dim=-1)[:, -1:])

    def score(path):
        cost = sum(0.5 * abs(a - b) for a, b in itertools.pairwise(path))
        return float(sum(weighted[t, k] for t, k in enumerate(path))) - cost

    best = max(itertools.product(range(20, 20 + few), repeat=5), key=score)
    hz = vocoder.viterbi_pitch(logits)[0]
    step = np.log(vocoder.MAX_F0 / vocoder.MIN_F0) / (vocoder.PITCH_BINS - 1)
    # The path is refined by at most its neighbours.
    assert ((hz / vocoder.pitch_grid()[list(best)]).log().abs() < 2.1 * step).all()


def test_what_is_held_is_the_bands_energy():
    """More iterations bring the spectrogram nearer, also from noise."""
    db = torch.from_numpy(spectrograms.log_mel(voice_like(1.0), S))[None]
    magnitude = vocoder.spread_over_bins(10 ** (db / 10), S).sqrt()
    start = vocoder.noise_phases(1, db.shape[1], S, 0) * magnitude
    waves = (vocoder.consistent_waveform(start, db, S, n)[0].numpy() for n in (0, 10, 40))
    first, second, third = (
        float(np.abs(spectrograms.log_mel(wave, S) - db[0].numpy()).mean()) for wave in waves
    )
    assert first > 2 * second > 2 * third


def test_training_gets_better_and_is_seeded():
    wave = voice_like(3.0)
    f0 = vocoder_training.pitch(wave, S)
    assert np.median(f0[f0 > 0]) == pytest.approx(140, abs=40)
    spoken = vocoder_training.join_recordings([(wave, f0)] * 2, S, 56)
    assert int(spoken.starts.max() + 56) * S.hop + S.n_fft < len(spoken.wave)

    def trained():
        lessons = vocoder_training.train(
            spoken, vocoder_training.new_state(S, 12), S, 12, batch=2, columns=56
        )
        return [(float(v["pitch"]), float(v["log"])) for v in lessons]

    once = trained()
    assert once == trained()
    assert np.mean(once[-4:]) < np.mean(once[:4])


@pytest.mark.parametrize("at", [pytest.param("pitch", marks=pytest.mark.slow), "train"])
def test_a_stopped_training_goes_on_as_if_nothing_had_been(monkeypatch, tmp_path, at):
    """Stopped in either phase: no weights yet, no pitch computed twice, then the same weights."""
    found, told = [], []
    monkeypatch.setattr(
        vocoder_training,
        "load_recordings",
        lambda config, sets: [(f"clip {k}", voice_like(1.6, seed=k)) for k in range(3)],
    )
    monkeypatch.setattr(
        vocoder_training,
        "pitch",
        lambda wave, s: found.append(1) or np.full(1 + len(wave) // s.hop, 140, np.float32),
    )

    def learn(folder, should_stop=lambda: False):
        told.clear()
        return vocoder_training.train_vocoder(
            Config(),
            S,
            6,
            0,
            folder,
            lambda phase, done, *_: told.append((phase, done)),
            should_stop,
        )

    whole, before = learn(tmp_path / "whole")
    assert before is None
    asked = itertools.count()
    with pytest.raises(
        files.StopRequested, match="recording 2 of 3" if at == "pitch" else "step 4 of 6"
    ):  # asked once for each of them
        learn(tmp_path / "parts", lambda: next(asked) == (2 if at == "pitch" else 3 + 3))
    assert not list((tmp_path / "parts").rglob("*.safetensors"))
    assert learn(tmp_path / "parts")[0].read_bytes() == whole.read_bytes()
    assert len(found) == 6  # three in each folder
    assert told == ([("pitch of recordings", 3)] if at == "pitch" else []) + [("train", 6)]
    # A finished training needs no checkpoint.
    assert not list((tmp_path / "parts" / ".cache").glob("vocoder-*.pt"))
    # Other weights in its place are never lost.
    there = []
    for content in (b"those that came", b"those of yesterday"):
        whole.write_bytes(content)
        there.append(learn(tmp_path / "whole")[1])
        assert there[-1].read_bytes() == content
    assert len(set(there)) == 2


def test_a_file_that_is_no_vocoder_is_named(tmp_path):
    path = tmp_path / "28.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(files.UserError, match=r"28\.safetensors is no vocoder"):
        vocoder.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(files.UserError, match="is no vocoder"):
        vocoder.load(path)


def test_weights_come_back_as_they_were_saved(tmp_path):
    network = vocoder.Vocoder(S.bands, 1 + S.n_fft // 2, width=16, blocks=1)
    vocoder.save(tmp_path / "a.safetensors", network, S)
    again, settings = vocoder.load(tmp_path / "a.safetensors")
    assert settings["hop"] == S.hop
    for a, b in zip(network.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a.half().float(), b)


def test_worth_of_a_perfect_carrier(monkeypatch, tmp_path):
    """The figures are distances: of the recording to itself they are nothing."""
    waves = np.stack([voice_like(1.2, seed=k)[: 111 * S.hop] for k in range(2)])
    y = spectrograms.scale(spectrograms.log_mel(waves, S), 25.0, S)
    monkeypatch.setattr(
        vocoder, "to_waveform", lambda y, *a, **k: (waves[: len(y)], np.zeros(len(y)))
    )
    monkeypatch.setattr(networks, "load", lambda path: lambda images: torch.eye(2)[: len(images)])
    run = type(
        "R", (), {"config": type("C", (), {"logmel": S}), "model_path": lambda self, name: tmp_path}
    )()
    w = vocoder_training.inversion_quality(run, y, np.array([0, 1]), waves, 25.0, plain=False)
    assert w.distance < 1e-3
    assert w.convergence < 1e-5
    assert w.error < 1e-4
    assert w.accuracy == w.before == 1
