"""§4.1.

Words for emotions, labels by intention or by vote, and who is in which set by seed or by published
lists.
"""

import json
import os
from collections import Counter
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import files
from core.config.presets import DEMO
from core.config.settings import CREMA_EMOTIONS, EMOTIONS, SHARED_EMOTIONS, LogMel, replace
from core.data import labels, prepared_corpora, splits
from core.data.corpora import CorpusError


def test_words_for_emotions():
    assert set(labels.EMOTION_SYNONYMS.values()) == set(EMOTIONS)
    words = ("Surprised", "sur", "pleasant_surprise", " ANG ", "contempt", "3", "05", "")
    assert [labels.emotion_of(w) for w in words] == ["surprise"] * 3 + ["angry", "", "", "", ""]
    assert [labels.parse_vote(v) for v in ("", "A", "D:A", "S:N:F:D:A")] == [
        "",
        "angry",
        "angry|disgust",
        "angry|disgust|fear|neutral|sad",
    ]


MEANT = ["angry", "happy", "sad", "fear"]
VOTES = [
    ("neutral", "angry", "angry"),
    ("angry|disgust", "happy", "happy|neutral"),
    ("sad",) * 3,
    ("",) * 3,
]


@pytest.mark.parametrize(
    ("which", "ties", "expected"),
    [
        ("intended", "drop", MEANT),
        ("voice", "drop", ["neutral", "", "sad", ""]),
        ("face", "drop", ["angry", "happy", "sad", ""]),
        ("both", "drop", ["angry", "", "sad", ""]),
        ("both", "intended", ["angry", "happy", "sad", ""]),  # a tie that holds what was meant
        ("voice", "intended", ["neutral", "", "sad", ""]),  # one that does not
    ],
)
def test_which_label_counts(which, ties, expected):
    assert labels.choose_labels(MEANT, VOTES, which, ties).tolist() == expected


def fabricate(
    name: str, subjects, classes, votes=None, known=True, seen=lambda number: True
) -> None:
    """A prepared file of plain faces and voices, two clips of every subject and class.

    `votes` is what raters make of an emotion.

    Subjects of whom no face is `seen` have voices alone.
    """
    rows = [(s, e, i) for s in subjects for e in classes for i in range(2)]
    n, has = (
        len(rows),
        np.array([seen(int(s[-2:])) for s in subjects for _ in classes for _ in range(2)]),
    )
    # Of one value each, as noise takes long to unpack
    faces = np.arange(has.sum()).astype(np.uint8)[:, None, None]
    voices = np.linspace(-40, 0, n, dtype=np.float32)[:, None, None]
    meta = {
        "name": name,
        "digest": "0" * 16,
        "ref_db": 5.0,
        "level": 0.0,
        "left_out": {},
        "key": "",
    }
    prepared_corpora.processed_folder().mkdir(parents=True, exist_ok=True)
    files.write_arrays(
        prepared_corpora.corpus_path(name),
        clip=np.array([f"{s}-{e}-{i}" for s, e, i in rows]),
        subject=np.array([s if known else "" for s, _, _ in rows]),
        sex=np.array(["male" if int(s[-2:]) % 2 else "female" for s, _, _ in rows]),
        emotion=np.array([e for _, e, _ in rows]),
        face_of=np.where(has, np.cumsum(has) - 1, -1),
        voice_of=np.arange(n),
        faces=np.tile(faces, (1, 28, 28)),
        voices=np.tile(voices, (1, 112, LogMel().bands)),
        meta=np.array(json.dumps(meta)),
        **(
            {"votes": np.array([votes(e) if i else ("",) * 3 for _, e, i in rows])} if votes else {}
        ),
    )


def voted(emotion: str) -> tuple[str, str, str]:
    """Raters hear anger as disgust, are of two minds about faces of fear, and agree with the actor
    in all else.
    """
    voice = "disgust" if emotion == "angry" else emotion
    return voice, "fear|sad" if emotion == "fear" else emotion, emotion


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    with mock.patch.dict(os.environ, DACSSGAN_DATA=str(tmp_path_factory.mktemp("data"))):
        fabricate("ravdess", [f"ravdess-{a:02d}" for a in range(1, 25)], EMOTIONS)
        fabricate("crema-d", [f"crema-10{a:02d}" for a in range(1, 21)], CREMA_EMOTIONS, voted)
        fabricate("mine", [f"clip-{a:02d}" for a in range(20)], CREMA_EMOTIONS, known=False)
        fabricate(
            "partly",
            [f"person-{a:02d}" for a in range(20)],
            CREMA_EMOTIONS,
            seen=lambda number: number % 3,
        )
        yield prepared_corpora.processed_folder()


def config(name: str, classes=CREMA_EMOTIONS, **data):
    return replace(DEMO, data={"faces": name, "voices": name, "classes": classes} | data)


def emotions(sets, classes=CREMA_EMOTIONS) -> Counter:
    return Counter(classes[k] for s in sets.values() for k in s.y_label)


@pytest.mark.parametrize("classes", [EMOTIONS, SHARED_EMOTIONS, CREMA_EMOTIONS], ids=len)
def test_ravdess_has_eight_seven_or_six_classes(prepared, classes):
    sets = splits.build_sets(config("ravdess", classes))
    assert emotions(sets, classes) == dict.fromkeys(classes, 48)
    assert all(np.array_equal(s.x_label, s.y_label) for s in sets.values())


def test_votes_are_the_labels_where_asked_for(prepared):
    meant = emotions(splits.build_sets(config("crema-d")))
    assert meant == dict.fromkeys(CREMA_EMOTIONS, 40)
    heard = splits.build_sets(
        config("crema-d", labels="voice")
    )  # half of the clips have no vote at all
    assert emotions(heard) == {e: 20 for e in CREMA_EMOTIONS if e != "angry"} | {"disgust": 40}
    assert emotions(splits.build_sets(config("crema-d", labels="face"))) == {
        e: 20 for e in CREMA_EMOTIONS if e != "fear"
    }
    assert emotions(
        splits.build_sets(config("crema-d", labels="face", ties="intended"))
    ) == dict.fromkeys(CREMA_EMOTIONS, 20)
    for s in heard.values():
        assert np.array_equal(s.x_label, s.y_label)
        assert np.array_equal(s.x_subject, s.y_subject)


def test_votes_that_nobody_gave(prepared):
    with pytest.raises(
        CorpusError,
        match=r"'both' are raters' votes and ravdess has none; .* put its summaryTable\.csv",
    ):
        splits.build_sets(config("ravdess", labels="both"))
    mixed = config(
        "ravdess", voices="crema-d", labels="voice", pairing="emotion"
    )  # RAVDESS' faces keep what was meant
    sets = splits.build_sets(mixed)
    assert emotions(sets)["disgust"] == 40
    assert sum(len(s.x) for s in sets.values()) == 24 * 6 * 2


@pytest.mark.parametrize("fold", range(5))
def test_published_folds_of_ravdess(prepared, fold):
    sets = splits.build_sets(config("ravdess", EMOTIONS, subjects="luna-jimenez-2021", fold=fold))
    actors = {k: {int(s[-2:]) for s in v.y_subject} for k, v in sets.items()}
    assert actors["S4"] == set(splits.LUNA_JIMENEZ_2021_TEST_ACTORS[fold])
    assert set.union(*actors.values()) == set(range(1, 25))
    assert sum(map(len, actors.values())) == 24
    left = 24 - len(actors["S4"])
    assert [len(actors[k]) for k in ("S1", "S2", "S3")] == [10, 4 if left == 20 else 3, 6]
    assert sorted(a for f in splits.LUNA_JIMENEZ_2021_TEST_ACTORS for a in f) == list(range(1, 25))


def test_published_folds_that_do_not_fit(prepared, monkeypatch, tmp_path):
    listed = {"subjects": "luna-jimenez-2021"}
    with pytest.raises(CorpusError, match="RAVDESS' actors and the voices are crema-d's"):
        splits.build_sets(config("crema-d", **listed))
    with pytest.raises(CorpusError, match="folds 0 to 4, and none is 5"):
        splits.build_sets(config("ravdess", fold=5, **listed))
    faces = splits.build_sets(
        config("ravdess", faces="crema-d", pairing="emotion", fold=1, **listed)
    )
    assert {int(s[-2:]) for s in faces["S4"].y_subject} == {3, 6, 7, 13, 18}
    assert len(set(faces["S4"].x_subject)) == 4  # a fifth of CREMA-D's
    monkeypatch.setenv("DACSSGAN_DATA", str(tmp_path))
    fabricate("ravdess", [f"ravdess-{a:02d}" for a in range(1, 21)], CREMA_EMOTIONS)
    assert splits.build_sets(config("ravdess", fold=2, **listed))
    with pytest.raises(
        CorpusError, match="no usable clip of ravdess-21, ravdess-23, ravdess-24; prepare all 24"
    ):
        splits.build_sets(config("ravdess", fold=3, **listed))


@given(
    st.sampled_from(["ravdess", "crema-d", "mine"]),
    st.integers(0, 2**31),
    st.integers(0, 4),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=20)
def test_sets_share_no_subject(prepared, name, seed, fold, published, votes):
    listed = (
        {"subjects": "luna-jimenez-2021", "fold": fold % 5}
        if published and name == "ravdess"
        else {"fold": fold}
    )
    sets = splits.build_sets(
        config(
            name,
            split_seed=seed,
            **listed,
            **({"labels": "voice"} if votes and name == "crema-d" else {}),
        )
    )
    for role in ("x_subject", "y_subject"):
        members = [set(getattr(s, role)) for s in sets.values()]
        assert (
            len(set.union(*members))
            == sum(map(len, members))
            == {"ravdess": 24, "crema-d": 20, "mine": 20 * 6 * 2}[name]
        )


@given(st.integers(0, 2**31), st.integers(0, 4))
@settings(max_examples=10)
def test_nobodys_face_and_voice_are_in_different_sets(prepared, seed, fold):
    sets = splits.build_sets(
        config("partly", pairing="emotion", split_seed=seed, fold=fold)
    ).values()
    assert sum(len(set(s.x_subject)) for s in sets) == 13
    members = [set(s.x_subject) | set(s.y_subject) for s in sets]
    assert sum(map(len, members)) == len(set.union(*members)) == 20


def test_the_table_of_sets(prepared):
    sets = splits.build_sets(config("ravdess", faces="mine", pairing="emotion"))
    s = splits.build_sets(config("ravdess", SHARED_EMOTIONS))["S4"]
    told = json.loads(json.dumps(splits.set_table({"S4": s})))["S4"]
    assert told["faces"] == told["voices"]
    assert list(told["voices"]["subjects"]) == sorted(set(s.y_subject))
    assert set(map(str, told["voices"]["subjects"].values())) == {
        str(dict.fromkeys(SHARED_EMOTIONS, 2))
    }
    assert told["voices"]["classes"] == dict.fromkeys(SHARED_EMOTIONS, 2 * len(set(s.y_subject)))
    assert (told["voices"]["clips"], told["voices"]["unknown"]) == (len(s.y), 0)
    nobody = splits.set_table(sets)["S1"]["faces"]
    assert (nobody["subjects"], nobody["unknown"], nobody["clips"]) == (
        {},
        len(sets["S1"].x),
        len(sets["S1"].x),
    )
