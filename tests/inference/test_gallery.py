"""The gallery: voices are the run's own, pairs are pairs, copies are found, corpora may lack."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import shutil
from unittest import mock

import numpy as np
import pytest

from core import files
from core.config.settings import CREMA_EMOTIONS, replace
from core.data import prepared_corpora
from core.experiments import pipeline
from core.inference import generation
from core.inference.gallery import generated_voices, real_items, selection
from core.inference.gallery.selection import Round
from core.runs import store
from core.runs.directory import Run
from tests.support import noise_corpora, trained_runs

SPEAKERS = tuple(f"speaker-{i:02d}" for i in range(12))
PAIRED_BY_EMOTION = replace(
    trained_runs.TINY_CONFIG,
    name="mixed",
    data={"faces": "people", "voices": "speakers", "pairing": "emotion"},
    gan={"condition": "cp"},
)


def run_of(condition: str = "cp") -> Run:
    return Run(
        next(
            p
            for p in files.checkpoints_folder().glob("*")
            if p.name.startswith(f"tiny-{condition}")
        )
    )


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """A home with a run whose faces and voices are of different corpora, trained once."""
    folder = tmp_path_factory.mktemp("apart")
    with mock.patch.dict(os.environ, trained_runs.home_environment(folder)):
        noise_corpora.write_noise_corpus("people", voices=False)
        noise_corpora.write_noise_corpus("speakers", faces=False, subjects=SPEAKERS, level=-10.0)
        pipeline.run(PAIRED_BY_EMOTION, device="cpu")
    return folder


@pytest.fixture
def mixed(apart, home):
    trained_runs.copy_home(apart, home)
    return Run(next((home / "checkpoints").glob("mixed-*")))


# --- the real side ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["S4", "S3"])
def test_a_face_stands_beside_the_voice_of_its_own_clip(own_trained_home, name):
    r = real_items.load_real_items(run_of(), name)
    assert len(r) > 0
    assert (r.clip == r.voices.clip[r.voice_row]).all()
    assert (r.subject == r.voices.subject[r.voice_row]).all()
    corpus = prepared_corpora.load_corpus("demo", trained_runs.TINY_CONFIG.data.demo_takes)
    at = {c: i for i, c in enumerate(corpus.clip)}
    for i in (0, len(r) - 1):
        assert corpus.emotion[at[r.clip[i]]] == trained_runs.TINY_CONFIG.data.classes[r.label[i]]
        np.testing.assert_array_equal(corpus.faces[corpus.face_of[at[r.clip[i]]]], r.face[i])
    assert len(set(np.bincount(r.label).tolist())) == 1  # as many of each emotion
    assert not r.notes
    assert not r.missing


def test_training_voices_are_of_other_people_than_s4(own_trained_home):
    r = real_items.load_real_items(run_of())
    assert set(r.trained.subject) & set(r.voices.subject) == set()
    assert (np.diff(r.real_nearest_db) >= 0).all()
    assert len(r.real_nearest_db) == len(r.voices.y)
    assert r.real_nearest_db[0] == pytest.approx(
        real_items.nearest_voices(r.voices.y, r.trained.y, 80.0)[1].min()
    )


def test_without_corpora_there_is_what_the_run_ships(own_trained_home):
    run, stored = run_of(), run_of().arrays("generated")
    prepared_corpora.corpus_path("demo", trained_runs.TINY_CONFIG.data.demo_takes).unlink()
    r = real_items.load_real_items(run)
    assert r.missing == ("demo",)
    assert (len(r.face), len(r.voices.y), len(r.real_nearest_db)) == (0, 0, 0)
    assert (r.voice_row == -1).all()
    np.testing.assert_array_equal(r.row, stored["row"])
    np.testing.assert_array_equal(r.label, stored["label"])
    np.testing.assert_array_equal(r.p, run.arrays()["p_S4"][stored["row"]])
    m = generated_voices.load_generated_voices(generation.load_run(run), r)
    np.testing.assert_array_equal(m.y, stored["y"])
    assert (m.near == -1).all()
    assert selection.available_orders(m) == [
        "mixed",
        "set",
        "credible",
        "strange",
        "sure",
        "unsure",
    ]
    with pytest.raises(ValueError, match="keeps no samples"):
        real_items.load_real_items(run, "S3")


def test_an_unfinished_run_and_one_that_makes_faces_are_refused(home):
    with pytest.raises(ValueError, match="let its training finish"):
        real_items.load_real_items(trained_runs.fabricate_run("stopped"))
    turned = trained_runs.fabricate_run(
        "done",
        replace(trained_runs.TINY_CONFIG, gan={"direction": "voice-face", "condition": "label"}),
    )
    with pytest.raises(ValueError, match="makes faces"):
        real_items.load_real_items(turned)


def changed(name: str, **arrays) -> None:
    """Change arrays of a prepared corpus by functions of the old ones; its digest changes too."""
    path = prepared_corpora.corpus_path(name, trained_runs.TINY_CONFIG.data.demo_takes)
    now = files.read_arrays(path)
    now |= {k: f(now) for k, f in arrays.items()}
    meta = json.loads(str(now["meta"])) | {"digest": "another"}
    files.write_arrays(path, **now | {"meta": np.array(json.dumps(meta))})


def test_another_preparation_of_the_same_clips_is_shown_and_said(own_trained_home):
    before = real_items.load_real_items(run_of())
    changed("demo", voices=lambda a: a["voices"] + np.float32(1e-4))
    r = real_items.load_real_items(run_of())
    assert "demo, prepared on this machine" in r.notes[0]
    assert (r.clip == before.clip).all()
    assert len(r.face) == len(before.face)


def test_a_corpus_that_falls_into_other_sets_is_left_out_and_named(own_trained_home):
    changed("demo", subject=lambda a: np.char.add("x", a["subject"][::-1]))
    r = real_items.load_real_items(run_of())
    assert any("other sets" in n for n in r.notes)
    assert (len(r.face), len(r.voices.y)) == (0, 0)
    assert len(generated_voices.load_generated_voices(generation.load_run(run_of()), r).y) == len(r)


# --- faces and voices of different corpora ------------------------------------------------------


def test_a_face_of_another_corpus_stands_beside_a_voice_of_its_emotion(mixed):
    r = real_items.load_real_items(mixed)
    assert not r.paired
    assert (r.voices.label[r.voice_row] == r.label).all()
    used = np.bincount(r.voice_row, minlength=len(r.voices.y))
    for k in range(6):
        of = used[r.voices.label == k]
        assert of.max() - of.min() <= 1  # each about equally often
    assert set(r.voices.subject) == set(mixed.json("sets")["S4"]["voices"]["subjects"])


def test_voices_are_told_by_name_where_more_people_or_no_faces_are_here(mixed):
    before = real_items.load_real_items(mixed)
    noise_corpora.write_noise_corpus(
        "speakers", faces=False, subjects=(*SPEAKERS, *(f"speaker-{i}" for i in range(90, 96)))
    )
    r = real_items.load_real_items(mixed)  # split anew, the sets would be others
    assert set(r.voices.subject) == set(before.voices.subject)
    assert set(r.trained.subject) == set(before.trained.subject)
    prepared_corpora.corpus_path("people").unlink()
    r = real_items.load_real_items(mixed)
    assert r.missing == ("people",)
    assert len(r.face) == 0
    assert set(r.voices.subject) == set(before.voices.subject)
    assert (r.voices.label[r.voice_row] == r.label).all()
    m = generated_voices.load_generated_voices(generation.load_run(mixed), r)
    assert (m.near >= 0).all()
    assert "copy" in selection.available_orders(m)


def test_voices_of_which_clips_lack_are_left_out(mixed):
    noise_corpora.write_noise_corpus("speakers", faces=False, subjects=SPEAKERS[:7])
    r = real_items.load_real_items(mixed)
    assert len(r.voices.y) == 0
    assert any("speakers" in n for n in r.notes)


# --- the generated side -------------------------------------------------------------------------


@pytest.mark.parametrize("condition", ["cp", "label", "classifier"])
def test_generated_voices_are_those_that_fid_was_measured_on(own_trained_home, condition):
    run, stored = run_of(condition), run_of(condition).arrays("generated")
    r = real_items.load_real_items(run)
    m = generated_voices.load_generated_voices(generation.load_run(run), r)
    assert m.condition == condition
    np.testing.assert_array_equal(r.row, stored["row"])
    np.testing.assert_allclose(m.y.astype(float), stored["y"].astype(float), atol=2e-3)
    np.testing.assert_allclose(m.scorer, stored["o"], atol=5e-3)
    np.testing.assert_array_equal(m.c, stored["c"])
    assert m.far.min() > 0


def test_nearest_finds_copies_wherever_they_were_moved():
    rng = np.random.default_rng(0)
    bank = rng.uniform(-1, 1, (20, 112, 28)).astype(np.float32)
    y = np.stack(
        [
            bank[3],
            np.roll(bank[7], 14, axis=0),
            np.roll(bank[9], -5, axis=0),
            np.roll(bank[11], 40, axis=0),
        ]
    )
    row, distance = real_items.nearest_voices(y, bank, 80.0)
    assert row[:3].tolist() == [3, 7, 9]
    assert (distance[:3] < 0.1).all()
    assert distance[3] > 10
    other = rng.uniform(-1, 1, (2, 112, 28)).astype(np.float32)
    row, distance = real_items.nearest_voices(other, bank, 80.0)
    every = np.array(
        [
            [
                min(np.sqrt(np.mean((a - np.roll(b, k, 0)) ** 2)) for k in range(-14, 15))
                for b in bank.astype(float)
            ]
            for a in other
        ]
    )
    np.testing.assert_array_equal(row, every.argmin(axis=1))
    np.testing.assert_allclose(distance, 40 * every.min(axis=1), rtol=1e-4)  # 80 dB are two units
    with pytest.raises(ValueError, match="no voice"):
        real_items.nearest_voices(y, bank[:0], 80.0)


def test_a_copy_of_a_training_voice_is_told(own_trained_home):
    r = real_items.load_real_items(run_of())
    y = np.stack([r.trained.y[5]])
    row, distance = real_items.nearest_voices(y, r.trained.y, 80.0)
    assert row[0] == 5
    assert selection.share_closer(r.real_nearest_db, float(distance[0])) == 0.0
    assert selection.share_closer(r.real_nearest_db, 1e3) == 1.0
    assert np.isnan(selection.share_closer(np.zeros(0), 1.0))


def test_what_is_made_is_kept_until_something_changes(own_trained_home, monkeypatch):
    run = run_of()
    r, opened = real_items.load_real_items(run), generation.load_run(run)
    first = generated_voices.load_generated_voices(opened, r)
    with monkeypatch.context() as m:
        m.setattr(
            generated_voices,
            "compute_generated_voices",
            mock.Mock(side_effect=AssertionError("computed again")),
        )
        again = generated_voices.load_generated_voices(opened, r)
        for key, value in vars(first).items():
            np.testing.assert_array_equal(getattr(again, key), value)
        with pytest.raises(AssertionError):
            generated_voices.load_generated_voices(opened, real_items.load_real_items(run, "S3"))
        run.model_path("scorer").write_bytes(run.model_path("Q").read_bytes())
        with pytest.raises(AssertionError):
            generated_voices.load_generated_voices(opened, r)
    kept = next((files.checkpoints_folder() / ".cache" / "gallery").glob("*-S4.npz"))
    kept.write_bytes(kept.read_bytes()[:200])
    assert len(generated_voices.load_generated_voices(opened, r).y) == len(r)
    assert store.index_existing() == []  # what is kept is no run


def test_leaving_ends_the_work_and_leaves_no_half_file(own_trained_home):
    class Left(BaseException):
        pass

    shutil.rmtree(files.checkpoints_folder() / ".cache" / "gallery")
    words = []

    def report(share, what):
        words.append((share, what))
        if "Drawing" in what:
            raise Left

    r = real_items.load_real_items(run_of(), report=report)
    assert [w for w, _ in words] == sorted(w for w, _ in words)
    opened = generation.load_run(run_of())
    with pytest.raises(Left):
        generated_voices.load_generated_voices(opened, r, report)
    assert list((files.checkpoints_folder() / ".cache").glob("gallery/*")) == []
    assert not opened.G._forward_hooks  # visitors share it


def test_a_folder_that_is_only_read_is_no_fault(own_trained_home, monkeypatch):
    monkeypatch.setattr(files, "write_arrays", mock.Mock(side_effect=PermissionError))
    r = real_items.load_real_items(run_of())
    assert len(generated_voices.load_generated_voices(generation.load_run(run_of()), r).y) == len(r)


# --- choosing -----------------------------------------------------------------------------------


@pytest.fixture
def both(own_trained_home):
    r = real_items.load_real_items(run_of())
    return r, generated_voices.load_generated_voices(generation.load_run(run_of()), r)


def test_filters_and_orders_do_what_they_say(both):
    r, m = both
    s, q = m.scorer.argmax(axis=1), m.Q.argmax(axis=1)
    total = {k: set(selection.select_items(r, m, verdict=k).tolist()) for k in selection.VERDICTS}
    assert total["any"] == set(range(len(r)))
    for a, b in (("scorer-right", "scorer-wrong"), ("q-right", "q-wrong")):
        assert total[a] | total[b] == total["any"]
        assert not total[a] & total[b]
    assert total["right"] == total["scorer-right"] & total["q-right"]
    assert total["apart"] == set(np.nonzero(s != q)[0].tolist())
    who = str(r.subject[0])
    rows = selection.select_items(r, m, 2, who, order="credible")
    assert (r.label[rows] == 2).all()
    assert (r.subject[rows] == who).all()
    assert (np.diff(r.credibility[rows]) <= 0).all()
    keys = {"strange": r.credibility, "copy": m.near_db, "typical": m.far, "odd": -m.far}
    for order, key in keys.items():
        assert (np.diff(key[selection.select_items(r, m, order=order)]) >= 0).all()
    assert selection.select_items(r, m, order="set").tolist() == list(range(len(r)))
    assert selection.available_orders(m) == list(selection.ORDERS)
    assert len(selection.select_items(r, m, subject="nobody")) == 0


def test_the_list_and_the_facts_say_what_the_arrays_say(both):
    r, m = both
    rows = selection.select_items(r, m, 1)
    lines = list(csv.DictReader(io.StringIO(selection.to_csv(r, {"cp": m}, rows, CREMA_EMOTIONS))))
    assert len(lines) == len(rows)
    for line, i in zip(lines, rows.tolist(), strict=True):
        assert (line["clip"], line["emotion"], line["real clip"]) == (
            r.clip[i],
            CREMA_EMOTIONS[1],
            r.clip[i],
        )
        assert line["cp: scorer hears"] == CREMA_EMOTIONS[m.scorer[i].argmax()]
        assert float(line["cp: distance dB"]) == pytest.approx(m.near_db[i], rel=1e-4)
        assert float(line["cp: Q p of emotion"]) == pytest.approx(m.Q[i, 1], rel=1e-4)
    i = int(rows[0])
    known = json.loads(
        json.dumps(selection.item_record(r, {"cp": m}, i, CREMA_EMOTIONS, {"cp": "run"}))
    )
    assert known["generated"]["cp"]["nearest training voice"]["clip"] == r.trained.clip[m.near[i]]
    assert sum(known["softmax"].values()) == pytest.approx(1, abs=1e-4)


# --- the quiz -----------------------------------------------------------------------------------


def test_a_game_is_fair_and_its_seed_decides_it(both):
    r, _ = both
    conditions = ("label", "classifier", "cp")
    for seed in range(20):
        game = selection.make_rounds(r, conditions, seed)
        assert len({q.item for q in game}) == selection.ROUNDS_PER_QUIZ
        assert sum(q.is_generated for q in game) == selection.ROUNDS_PER_QUIZ / 2
        counts = np.bincount(r.label[[q.item for q in game]], minlength=6)
        assert counts.max() - counts.min() <= 1
        whose = [sum(q.condition == c for q in game) for c in conditions]
        assert max(whose) - min(whose) <= 1
        assert game == selection.make_rounds(r, conditions, seed)
    first = {selection.make_rounds(r, conditions, seed)[0].is_generated for seed in range(20)}
    assert first == {True, False}


def test_no_game_without_real_voices(own_trained_home):
    prepared_corpora.corpus_path("demo", trained_runs.TINY_CONFIG.data.demo_takes).unlink()
    with pytest.raises(ValueError, match="there are 0"):
        selection.make_rounds(real_items.load_real_items(run_of()), ("cp",), 0)


def test_the_score_counts_streaks_and_who_was_fooled_by_what():
    game = [Round(i, "cp", bool(i % 2)) for i in range(6)]
    label = np.array([0, 0, 1, 1, 2, 2])
    said = [
        False,
        True,
        True,
        True,
        False,
        False,
    ]  # the third (real) doubted, the last (generated) believed
    s = selection.score_answers(game, said, label)
    assert (s.right, s.streak, s.longest_streak, s.generated_as_real, s.real_as_generated) == (
        4,
        0,
        2,
        1,
        1,
    )
    assert s.errors_by_emotion == {0: (0, 2), 1: (1, 2), 2: (1, 2)}
    luck = np.mean([sum(flips) >= 4 for flips in itertools.product((0, 1), repeat=6)])
    assert s.chance == pytest.approx(luck)
    assert selection.score_answers(game, said[:2], label).streak == 2
    assert selection.score_answers(game, [], label).chance == 1.0
