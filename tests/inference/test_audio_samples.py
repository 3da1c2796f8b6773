"""Audio samples: one for each emotion and condition, as their records describe them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import soundfile

from core.__main__ import main
from core.data import prepared_corpora
from core.files import ROOT
from core.inference import audio_samples, examples, generation
from core.inference.gallery import real_items
from core.media import spectrograms, waveforms
from core.runs import store
from tests.support import trained_runs


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The first collection, for the tests that follow: its folder, and its samples once written."""
    return tmp_path_factory.mktemp("kept") / "examples", []


@pytest.fixture
def made(own_trained_home, kept):
    """The samples of the tiny runs; the same runs always give the same ones."""
    folder, samples = kept
    if not samples:
        samples += audio_samples.write_samples(
            audio_samples.resolve_runs([trained_runs.TINY_CONFIG.name]), folder
        )
    shutil.copytree(folder, audio_samples.folder())
    return samples


def test_each_emotion_has_a_voice_by_each_condition_and_a_real_one(made):
    classes = trained_runs.TINY_CONFIG.data.classes
    cells = {(p.emotion, p.condition, p.way) for p in made}
    assert cells == {
        (e, c, w)
        for e in classes
        for c in ("", "label", "classifier", "cp")
        for w in audio_samples.INVERSIONS
    }
    assert len(made) == len(cells)
    assert {p.what for p in made if not p.condition} == {"real"}
    assert all((audio_samples.folder() / p.file).is_file() for p in made)


def test_the_wavs_are_as_their_records_describe_them(made):
    for p in made[:: len(made) // 7]:
        run = store.resolve(p.run)
        opened, s = generation.load_run(run), run.config.logmel
        one = examples.load_face_example(run, p.emotion)
        y = one.y if p.what == "generated" else gallery_voice(run, p.emotion, one)
        with soundfile.SoundFile(audio_samples.folder() / p.file) as f:
            wave, words = f.read(dtype="float32"), f.comment
            assert (f.samplerate, f.channels, f.subtype) == (s.rate, 1, "PCM_16")
        assert len(wave) == (s.columns - 1) * s.hop
        assert np.abs(wave).max() <= waveforms.MAX_PEAK + 1e-4
        assert max(abs(wave[0]), abs(wave[-1])) < 1e-4
        error = spectrograms.resynthesis_agreement(y, wave, opened.ref_db, s, p.gain_db)[1]
        assert error == pytest.approx(p.error_db, abs=0.6)  # the wav has fades and 16 bits
        assert p.run in words
        assert p.emotion in words
        assert ("nobody's voice" in words) == (p.what == "generated")
        assert ("plain Griffin-Lim" in words) == (p.way == "griffin-lim")
        heard = generation.classify_samples(opened, y[None])["scorer"][0]
        assert list(p.heard.values()) == pytest.approx(heard, abs=1e-3)


def gallery_voice(run, emotion, one):
    """The real voice beside a run's sample."""
    if one.real is not None:
        return one.real
    voices = real_items.load_real_voices(run)
    return voices.y[np.nonzero(voices.label == run.config.data.classes.index(emotion))[0][0]]


@pytest.mark.slow
def test_made_again_it_is_the_same_and_other_runs_stay(made):
    label = next(p.run for p in made if p.condition == "label")
    first = {p.file: (audio_samples.folder() / p.file).read_bytes() for p in made}
    again = audio_samples.write_samples([store.resolve(label)])
    assert {p.run for p in again} == {label}
    files_now = {p.name: p.read_bytes() for p in audio_samples.folder().glob("*.wav")}
    assert all(files_now[name] == content for name, content in first.items())


def test_without_its_corpus_the_real_voices_are_left_out(own_trained_home, monkeypatch):
    monkeypatch.setattr(examples, "is_demo", lambda config: False)
    prepared_corpora.corpus_path("demo", trained_runs.TINY_CONFIG.data.demo_takes).unlink()
    found = audio_samples.write_samples(audio_samples.resolve_runs([trained_runs.TINY_CONFIG.name]))
    assert {p.what for p in found} == {"generated"}


def test_without_a_shipped_run_the_command_says_what_to_do(own_trained_home, capsys):
    assert main(["examples"]) == 1
    assert "no shipped run" in capsys.readouterr().err
    assert main(["examples", "--run", "nothing"]) == 1
    assert "no run 'nothing'" in capsys.readouterr().err


def test_the_command_writes_them_and_says_how_good_they_are(own_trained_home, tmp_path, capsys):
    assert (
        main(["examples", "--run", trained_runs.TINY_CONFIG.name, "--out", str(tmp_path / "out")])
        == 0
    )
    said = capsys.readouterr().out
    assert "| tiny | generated | griffin-lim | 18 |" in said
    assert len(list((tmp_path / "out").iterdir())) == 6 * 4 * 2
    assert f"wrote 48 wavs to {tmp_path / 'out'}" in said
    assert not audio_samples.folder().exists()


def test_git_does_not_take_them():
    assert "/checkpoints/*" in (ROOT / ".gitignore").read_text().splitlines()
