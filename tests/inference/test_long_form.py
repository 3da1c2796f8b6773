"""Long-form voices: cross-faded windows with each face's condition; one window is unchanged."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import soundfile

from core.__main__ import main
from core.files import ROOT
from core.inference import generation, long_form
from core.inference.generation import AnalysedClip
from core.media import spectrograms, waveforms
from core.runs import store
from tests.support import trained_runs

RATE, FPS = 16_000, 12.5


def film(seconds: float, sound: bool = True, lost: slice = slice(0), seed: int = 0) -> AnalysedClip:
    """A film of faces of noise, some of them not found."""
    rng, n = np.random.default_rng(seed), round(seconds * FPS) + 1
    times, found = np.arange(n) / FPS, np.ones(n, bool)
    found[lost] = False
    aligned = rng.integers(0, 256, (n, 28, 28), np.uint8) * found[:, None, None].astype(np.uint8)
    wave = 0.1 * rng.standard_normal(round(seconds * RATE)).astype(np.float32) if sound else None
    middle = int(np.where(found, np.abs(times - seconds / 2), np.inf).argmin())
    frames, boxes = np.zeros((n, 4, 4, 3), np.uint8), np.zeros((n, 4))
    return AnalysedClip("film", times, frames, boxes, aligned, found, 1, wave, (), middle)


@pytest.fixture(scope="module", params=["label", "classifier", "cp"])
def shipped(request):
    return generation.load_run(store.resolve("demo", request.param, ROOT / "checkpoints"))


def levels(opened, y):
    return 10 * np.log10(
        (10 ** (spectrograms.unscale(y, opened.ref_db, opened.config.logmel) / 10)).mean(axis=-1)
    )


def test_a_film_of_a_second_gets_what_it_always_got(shipped):
    for seen in (film(1.0), film(0.4), film(0.9, sound=False)):
        p = long_form.generate_long_voice(shipped, seen, seed=7)
        x = seen.aligned[seen.middle]
        judged = generation.judged_faces(seen)
        c, told = generation.condition_of(shipped, generation.explain_film(shipped, judged))
        np.testing.assert_array_equal(p.y, generation.generate_voices(shipped, x, c, 7)[0])
        assert (len(p.starts), p.told, p.frames.tolist()) == (1, told, [seen.middle])


def test_a_film_is_judged_by_the_mean_over_its_frames(shipped):
    seen = film(6.0, lost=slice(20, 50))
    faces = generation.judged_faces(seen)
    assert len(faces) == min(int(seen.found.sum()), generation.MOST_JUDGED)
    assert (faces[[0, -1]] == seen.aligned[np.nonzero(seen.found)[0][[0, -1]]]).all()
    one = generation.explain_faces(shipped, faces)
    mean = generation.explain_film(shipped, faces)
    np.testing.assert_allclose(mean.softmax, np.mean([e.softmax for e in one], axis=0), atol=1e-6)
    assert mean.prediction == mean.p.argmax()
    again = generation.explain_film(shipped, generation.judged_faces(seen, seen.middle))
    alone = generation.explain_face(shipped, seen.aligned[seen.middle])
    np.testing.assert_array_equal(again.p, alone.p)


@pytest.mark.parametrize(
    ("seconds", "cut"), [(1.02, False), (2.0, False), (7.3, False), (20.0, False), (23.0, True)]
)
def test_it_is_as_long_as_the_film_up_to_a_limit(shipped, seconds, cut):
    for sound in (True, False):
        seen = film(seconds, sound)
        s, p = shipped.config.logmel, long_form.generate_long_voice(shipped, seen)
        assert (len(p.y) - 1) * s.hop / s.rate == pytest.approx(
            min(seconds, long_form.MAX_SECONDS), abs=0.041
        )  # half a frame
        assert p.is_truncated == cut
        assert len(p.starts) == long_form.count_windows(shipped, seen)
        assert p.starts[-1] < len(p.y) <= p.starts[-1] + s.columns
        edges = long_form.window_edges(p, s.columns)
        assert (edges[0], edges[-1]) == (0, len(p.y))
        assert (np.diff(edges) > 0).all()


def test_each_window_is_drawn_from_its_own_face_with_the_noise_of_all(shipped):
    seen = film(6.0, lost=slice(20, 50))
    p = long_form.generate_long_voice(shipped, seen, seed=3)
    s = shipped.config.logmel
    assert seen.found[p.frames].all()
    for i, (start, frame) in enumerate(zip(p.starts, p.frames)):
        middle = (start + s.columns / 2) * s.hop / s.rate
        away = np.abs(seen.times - middle)
        assert away[frame] == away[seen.found].min()
        c, _ = generation.condition_of(
            shipped, generation.explain_face(shipped, seen.aligned[frame])
        )
        np.testing.assert_allclose(p.c[i], c, atol=1e-6)
        np.testing.assert_allclose(
            p.crops[i], generation.generate_voices(shipped, seen.aligned[frame], c, 3)[0], atol=1e-4
        )


def test_a_named_emotion_holds_for_the_whole_film():
    opened = generation.load_run(store.resolve("demo", "label", ROOT / "checkpoints"))
    p = long_form.generate_long_voice(opened, film(4.0), "fear")
    assert {opened.classes[k] for k in p.c.argmax(axis=1)} == {"fear"}
    assert p.told == "label: fear"
    assert "first choice" in long_form.generate_long_voice(opened, film(4.0)).told
    with pytest.raises(ValueError, match="hungry"):
        long_form.generate_long_voice(opened, film(4.0), "hungry")


def test_windows_that_agree_stay_as_they_are():
    rng = np.random.default_rng(0)
    for window in (28, 56, 112):
        step = window - window // long_form.OVERLAP_DIVISOR
        whole = rng.uniform(-1, 1, (5 * step + window, 28)).astype(np.float32)
        crops = np.stack([whole[k * step : k * step + window] for k in range(6)])
        np.testing.assert_allclose(
            long_form.cross_fade_crops(crops, len(whole) - 3), whole[:-3], atol=1e-6
        )


def test_joins_jump_no_more_than_the_windows_do(shipped):
    jumps, within = [], []
    for seed in range(4):
        p = long_form.generate_long_voice(shipped, film(9.0, seed=seed), seed=seed)
        both = shipped.config.logmel.columns // long_form.OVERLAP_DIVISOR
        steps = np.abs(np.diff(levels(shipped, p.y)))
        jumps += [steps[k - 1 : k + both].max() for k in p.starts[1:]]
        within.append(max(np.abs(np.diff(levels(shipped, crop))).max() for crop in p.crops))
        assert steps.max() <= within[-1] + 0.5
    assert np.median(jumps) < min(within)


def test_the_sound_carries_it_as_well_as_it_carries_a_second(shipped):
    p = long_form.generate_long_voice(shipped, film(8.0), seed=1)
    whole = generation.to_audio(shipped, p.y, 1)
    ones = [generation.to_audio(shipped, crop, 1).error_db for crop in p.crops]
    assert whole.error_db <= max(ones) + 0.05
    assert len(whole.wave) == (len(p.y) - 1) * shipped.config.logmel.hop
    assert (
        generation.to_audio(
            shipped, long_form.generate_long_voice(shipped, film(8.0), seed=1).y, 1
        ).wav
        == whole.wav
    )
    assert not np.array_equal(long_form.generate_long_voice(shipped, film(8.0), seed=2).y, p.y)


def test_a_wav_is_neither_clipped_nor_cut_and_says_what_it_is(shipped):
    sound = generation.to_audio(shipped, long_form.generate_long_voice(shipped, film(4.0)).y, 5)
    with soundfile.SoundFile(io.BytesIO(sound.wav)) as f:
        wave, words = f.read(dtype="float32"), f.comment
    assert np.abs(wave).max() <= waveforms.MAX_PEAK + 1e-4
    assert abs(wave[0]) < 1e-4
    assert abs(wave[-1]) < 1e-4
    inside = slice(80, -80)
    np.testing.assert_allclose(
        wave[inside], sound.wave[inside], atol=1e-4
    )  # one gain for all of it, and no other
    for part in (shipped.run.id, "seed 5", "the vocoder", "28 mel bands", "nobody's voice"):
        assert part in words
    with soundfile.SoundFile(
        io.BytesIO(generation.to_audio(shipped, np.zeros((112, 28), np.float32), plain=True).wav)
    ) as f:
        assert "plain Griffin-Lim" in f.comment


def test_what_is_told_of_it_covers_the_film(shipped):
    seen = film(5.0)
    p = long_form.generate_long_voice(shipped, seen)
    told = long_form.window_records(shipped, seen, p, long_form.classify_windows(shipped, p))
    assert [a["to"] for a in told[:-1]] == [b["from"] for b in told[1:]]
    assert told[-1]["to"] == pytest.approx(5.0, abs=0.02)
    assert all(
        sum(one["heard by the scorer"].values()) == pytest.approx(1, abs=1e-4) for one in told
    )
    json.dumps(told)


def test_the_films_own_voice_is_heard_from_its_beginning(shipped):
    seen = film(3.0)
    y, gain = long_form.voice_spectrogram(
        shipped, seen.waveform, long_form.count_columns(shipped, seen)
    )
    s = shipped.config.logmel
    np.testing.assert_array_equal(
        y, spectrograms.scale(spectrograms.log_mel(seen.waveform, s) + gain, shipped.ref_db, s)
    )
    wav, less = waveforms.crop_to_wav(seen.waveform, len(y), s, gain, "own", start=0)
    wave, _ = soundfile.read(io.BytesIO(wav), dtype="float32")
    assert len(wave) == (len(y) - 1) * s.hop
    again = spectrograms.scale(spectrograms.log_mel(wave, s)[2:-2] - less, shipped.ref_db, s)
    np.testing.assert_allclose(again, y[2:-2], atol=0.02)  # at the level of its spectrogram


def test_the_command_line_writes_a_whole_film(landmark_model, tmp_path, capsys):
    from core.data.demo import actors, recordings
    from core.media import clips

    frames, wave = recordings.render_clip(
        max(actors.list_takes(), key=lambda t: t.strength), fps=12
    )
    clips.write_clip(tmp_path / "talks.mp4", frames, 12, wave)
    out = tmp_path / "out"
    go = [
        "generate",
        str(tmp_path / "talks.mp4"),
        "--run",
        trained_runs.TINY_CONFIG.name,
        "--whole",
        "--seed",
        "4",
        "--out",
        str(out),
    ]
    assert main(go) == 0
    assert "told most of all" in capsys.readouterr().out
    found = {f.suffix: f for f in out.iterdir()}
    assert set(found) == {".wav", ".npy", ".png", ".json"}
    facts, y = json.loads(found[".json"].read_text()), np.load(found[".npy"])
    seconds = soundfile.info(found[".wav"]).duration
    assert seconds == pytest.approx(len(wave) / RATE, abs=0.02)
    assert facts["seconds"] == pytest.approx(seconds, abs=1e-3)
    assert (len(y) - 1) * 144 / RATE == pytest.approx(seconds)
    assert len(facts["windows"]) > 1
    assert main([*go, "--frame", "3"]) == 1
    assert "--frame" in capsys.readouterr().err
