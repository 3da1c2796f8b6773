"""Surrogate pairs: each voice has a face of its emotion that f_S does not learn from."""

import json

import numpy as np
import pytest

from core import files
from core.config.presets import PRESETS
from core.config.settings import SHARED_EMOTIONS, replace
from core.data import prepared_corpora, splits
from core.data.corpora import CorpusError
from core.data.prepared_corpora import PreparedCorpus
from core.data.sources import surrogate_pairs


def corpus(name, clips, subject, faces, voices, digest="d"):
    n = len(clips)
    rng, meta = np.random.default_rng(0), {"digest": digest, "licence": "l", "source": "s"}
    emotion = np.array([SHARED_EMOTIONS[i % 7] for i in range(n)])
    return PreparedCorpus(
        name=name,
        clip=np.array(clips),
        subject=np.array(subject),
        sex=np.full(n, ""),
        emotion=emotion,
        face_of=np.arange(n) if faces else np.full(n, -1),
        voice_of=np.arange(n) if voices else np.full(n, -1),
        faces=rng.integers(0, 255, (n if faces else 0, 28, 28)).astype(np.uint8),
        voices=rng.normal(size=(n if voices else 0, 112, 28)).astype(np.float32),
        votes=np.full((n, 3), ""),
        meta=meta | {"ref_db": 5.0, "level": 1.0, "name": name},
    )


@pytest.fixture(scope="module")
def both():
    # two faces of each near-duplicate group, which have one subject
    n = 7 * 40
    faces = corpus(
        "fer2013",
        [f"f{i}" for i in range(n)],
        [f"image-{i // 14}-{i % 7}" for i in range(n)],
        True,
        False,
    )
    actors = [f"ravdess-{i // 7:02d}" for i in range(7 * 10)]
    voices = corpus("ravdess", [f"v{i}" for i in range(70)], actors, False, True)
    return faces, voices


def test_each_voice_gets_a_face_of_its_emotion_and_keeps_its_actor(both):
    pairs = surrogate_pairs.join(*both)["surrogate-pairs"]
    faces, voices = both
    names = [c.split(" + ") for c in pairs["clip"]]
    place = {c: i for i, c in enumerate(faces.clip)}
    assert [v for v, _ in names] == voices.clip.tolist()
    assert len({f for _, f in names}) == 70  # no face twice
    assert faces.emotion[[place[f] for _, f in names]].tolist() == voices.emotion.tolist()
    assert np.array_equal(pairs["faces"], faces.faces[[place[f] for _, f in names]])
    assert pairs["subject"].tolist() == voices.subject.tolist()


def test_no_face_of_a_pair_nor_its_near_duplicate_trains_f_s(both):
    made, (faces, _) = surrogate_pairs.join(*both), both
    of_pairs = {c.split(" + ")[1] for c in made["surrogate-pairs"]["clip"]}
    near = set(faces.subject[np.isin(faces.clip, list(of_pairs))])
    rest = made["surrogate-faces"]
    assert len(rest["clip"])
    assert not of_pairs & set(rest["clip"])
    assert not near & set(rest["subject"])


def test_a_seed_decides_the_pairs(both):
    first, again, other = (surrogate_pairs.join(*both, seed=s) for s in (0, 0, 1))
    name = "surrogate-pairs"
    assert first[name]["clip"].tolist() == again[name]["clip"].tolist()
    assert first[name]["meta"]["digest"] == again[name]["meta"]["digest"]
    assert first[name]["meta"]["digest"] != other[name]["meta"]["digest"]


def test_too_few_faces_are_named(both):
    with pytest.raises(CorpusError, match="voices are neutral, and ravdess has 0 faces"):
        surrogate_pairs.join(both[1], both[1])


def test_the_preset_trains_on_the_files_that_are_made_once(both, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "data_folder", lambda: tmp_path)
    with pytest.raises(CorpusError, match="prepare fer2013"):
        surrogate_pairs.prepare()
    prepared_corpora.processed_folder().mkdir(parents=True)
    for c in both:
        fields = {k: getattr(c, k) for k in ("clip", "subject", "sex", "emotion", "votes")}
        fields |= {k: getattr(c, k) for k in ("face_of", "voice_of", "faces", "voices")}
        meta = np.array(json.dumps(c.meta))
        files.write_arrays(prepared_corpora.corpus_path(c.name), **fields, meta=meta)
    surrogate_pairs.prepare()
    path = prepared_corpora.corpus_path("surrogate-pairs")
    stamp = path.stat().st_mtime_ns
    surrogate_pairs.prepare()
    assert path.stat().st_mtime_ns == stamp
    config = replace(PRESETS["surrogate-pairs"], seed=0)
    sets = splits.build_sets(config)
    assert all(s.paired for s in sets.values())
    x, labels = splits.f_s_training_data(config, sets)
    assert len(x) == len(prepared_corpora.load_corpus("surrogate-faces").clip)
    assert set(labels.tolist()) == set(range(7))
