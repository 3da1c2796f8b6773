"""§4.1: every published form of a corpus gives one index; its votes; the order of its files."""

import csv
import dataclasses
import os
import shutil
import time
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from core.config.settings import CREMA_EMOTIONS, EMOTIONS
from core.data import corpora
from core.data.corpora import CorpusError
from core.data.sources import indexing, media_files
from tests.support.file_trees import write_files, write_zip


def bare(entries, *fields) -> list:
    """Entries without where their media lie."""
    gone = {"video": None, "audio": None} | dict.fromkeys(fields)
    return [dataclasses.replace(e, **gone) for e in entries]


# ------------------------------------------------------------------ RAVDESS

ACTORS = (1, 2, 18)
CODES = ["01-01-01-01-01", "01-02-01-01-01", "01-05-02-02-02", "01-08-01-02-01"]
SONGS = ["02-03-01-01-01", "02-06-02-02-02"]
FILM = {a: [f"{m}-{c}-{a:02d}.mp4" for c in CODES for m in ("01", "02")] for a in ACTORS}
SOUND = {a: [f"03-{c}-{a:02d}.wav" for c in CODES] for a in ACTORS}
EVERY = [f"Actor_{a:02d}/{n}" for a in ACTORS for n in FILM[a] + SOUND[a]]


def zipped(root: Path, films=True, sounds=True) -> Path:
    for a in ACTORS if films else ():
        names = [f"Actor_{a:02d}/{n}" for n in FILM[a]]
        write_zip(
            root / f"Video_Speech_Actor_{a:02d}.zip",
            [*names, f"__MACOSX/Actor_{a:02d}/._01-{CODES[0]}-{a:02d}.mp4"],
        )
        write_zip(
            root / f"Video_Song_Actor_{a:02d}.zip",
            [f"Actor_{a:02d}/01-{c}-{a:02d}.mp4" for c in SONGS],
        )
    if sounds:
        write_zip(
            root / "Audio_Speech_Actors_01-24.zip",
            [f"Actor_{a:02d}/{n}" for a in ACTORS for n in SOUND[a]],
        )
    return root


RAVDESS_FORMS = {
    "unpacked": lambda t: write_files(t, EVERY),
    "zips": zipped,
    "sounds unpacked": lambda t: write_files(
        zipped(t, sounds=False), [n for n in EVERY if n.endswith("wav")]
    ),
    "films unpacked": lambda t: write_files(
        zipped(t, films=False), [f"Video_Speech_{n}" for n in EVERY if n.endswith("mp4")]
    ),
    "both": lambda t: write_files(zipped(t), EVERY),
    "nested twice": lambda t: write_files(t, [f"{n.split('/')[0]}/{n}" for n in EVERY]),
    "the tree twice": lambda t: write_files(
        t, [*EVERY, *(f"audio_speech_actors_01-24/{n}" for n in EVERY)]
    ),
    "one zip": lambda t: write_zip(t / "all.zip", [f"./ravdess/{n}" for n in EVERY]),
    "windows zip": lambda t: write_zip(t / "all.zip", [n.replace("/", "\\") for n in EVERY]),
    "capitals": lambda t: write_files(
        t, [n.replace("wav", "WAV").replace("mp4", "Mp4") for n in EVERY]
    ),
    "flat, with odd ones": lambda t: write_files(
        t,
        [
            *(n.split("/")[1] for n in EVERY),
            "03-01-09-01-01-01-01.wav",
            "03-01-01-01-01-01-25.wav",
            "notes.txt",
            f".{SOUND[1][0]}",
        ],
    ),
}


@pytest.mark.parametrize("form", RAVDESS_FORMS)
def test_ravdess_is_the_same_in_every_form(tmp_path, form):
    entries = indexing.index_clips("ravdess", RAVDESS_FORMS[form](tmp_path / form))
    assert bare(entries) == bare(
        indexing.index_clips("ravdess", write_files(tmp_path / "plain", EVERY))
    )
    assert [e.clip for e in entries] == sorted(
        f"ravdess-{c}-{a:02d}" for c in CODES for a in ACTORS
    )
    for e in entries:  # the film with sound, and the wav rather than the film's own sound
        code = e.clip.removeprefix("ravdess-")
        assert [Path(f.replace("\\", "/")).stem for f in (e.video, e.audio)] == [
            f"01-{code}",
            f"03-{code}",
        ]
        assert form != "both" or ("!" not in e.video and "!" not in e.audio)
    e = next(e for e in entries if e.clip == "ravdess-01-05-02-02-02-18")
    assert (e.subject, e.sex, e.emotion, e.intensity, e.statement[:4]) == (
        "ravdess-18",
        "female",
        "angry",
        "strong",
        "Dogs",
    )


def test_ravdess_in_parts(tmp_path):
    silent = write_files(
        tmp_path / "silent", [n for n in EVERY if not n.split("/")[1].startswith("01-")]
    )
    assert {
        (Path(e.video).name[:2], Path(e.audio).name[:2])
        for e in indexing.index_clips("ravdess", silent)
    } == {("02", "03")}
    films = write_files(tmp_path / "films", [n for n in EVERY if n.split("/")[1].startswith("01-")])
    assert all(e.video == e.audio for e in indexing.index_clips("ravdess", films))
    mute = write_files(tmp_path / "mute", [n for n in EVERY if n.split("/")[1].startswith("02-")])
    assert {e.audio for e in indexing.index_clips("ravdess", mute)} == {None}


def test_songs_only_where_asked_for(tmp_path):
    root = zipped(tmp_path)
    speech, both = (
        indexing.index_clips("ravdess", root),
        indexing.index_clips("ravdess", root, song=True),
    )
    songs = [e for e in both if e not in speech]
    assert len(both) == len(speech) + len(songs) == len(ACTORS) * (len(CODES) + len(SONGS))
    assert {e.clip for e in songs} == {
        f"ravdess-song-{c[3:]}-{a:02d}" for c in SONGS for a in ACTORS
    }
    assert {e.subject for e in songs} <= {e.subject for e in speech}


def test_the_real_ravdess_zip(shared_data):
    entries = indexing.index_clips("ravdess", shared_data / "ravdess_audio_actors_01-20_16k.zip")
    assert len(entries) == 1200
    assert Counter(e.subject for e in entries) == {f"ravdess-{a:02d}": 60 for a in range(1, 21)}
    assert Counter(e.emotion for e in entries) == dict.fromkeys(EMOTIONS, 160) | {"neutral": 80}
    assert Counter(e.sex for e in entries) == {"male": 600, "female": 600}
    with media_files.media_file(entries[0].audio) as path:
        assert path.read_bytes()[:4] == b"RIFF"


# ------------------------------------------------------------------ CREMA-D

CLIPS = ["1001_DFA_ANG_XX", "1002_DFA_HAP_XX", "1040_ITH_SAD_XX", "1091_IEO_FEA_HI"]
CHECKOUT = [
    f"{d}/{c}.{s}"
    for c in CLIPS
    for d, s in (("VideoFlash", "flv"), ("AudioWAV", "wav"), ("AudioMP3", "mp3"))
]
SUMMARY = "\n".join(
    [
        '"","FileName","VoiceVote","VoiceLevel","FaceVote","FaceLevel","MultiModalVote","MultiModalLevel"',
        '"1","1001_DFA_ANG_XX","N","70","A","80","A","60"',
        '"2","1002_DFA_HAP_XX","D:A","70","H","80","H:N","60"',
        '"3","1040_ITH_SAD_X","S","70","S","80","S","60"',
        '"4","1003_DFA_SAD_XX","S","70","S","80","S","60"',
    ]
)
VOTES = [
    ("neutral", "angry", "angry"),
    ("angry|disgust", "happy", "happy|neutral"),
    ("sad",) * 3,
    ("",) * 3,
]


def tables(root: Path) -> Path:
    (root / "processedResults").mkdir(parents=True, exist_ok=True)
    (root / "processedResults" / "summaryTable.csv").write_text(SUMMARY)
    (root / "VideoDemographics.csv").write_text(
        '"ActorID","Age","Sex"\n1001,51,"Male"\n1002,21,"Female"\n1040,42,"Male"\n'
    )
    return root


def checkout(root: Path) -> Path:
    return tables(
        write_files(
            root,
            [
                *CHECKOUT,
                ".git/lfs/objects/1001_DFA_DIS_XX.wav",
                "AudioWAV/.1001_DFA_DIS_XX.wav",
                "AudioWAV/notes.wav",
            ],
        )
    )


def with_mirror_zip(root: Path) -> Path:
    inner = tables(write_files(root / "in" / "crema-d-mirror-main", CHECKOUT))
    path = Path(shutil.make_archive(str(root / "mirror"), "zip", root / "in"))
    shutil.rmtree(inner)
    return path


CREMA_FORMS = {
    "checkout": checkout,
    "mirror, zipped": with_mirror_zip,
    "mp4 and capitals": lambda t: tables(
        write_files(t, [f"a/b/{c}.{s}" for c in CLIPS for s in ("MP4", "WAV")])
    ),
    "flat": lambda t: tables(
        write_files(t, [f"{c}.{s}" for c in CLIPS for s in ("flv", "mp4", "wav", "mp3")])
    ),
    "an old copy": lambda t: tables(
        write_files(t, [n.replace("SAD_XX", "SAD_X") for n in CHECKOUT])
    ),
    "twice": lambda t: tables(write_files(t, [*CHECKOUT, *(f"crema/{n}" for n in CHECKOUT)])),
}


@pytest.mark.parametrize("form", CREMA_FORMS)
def test_crema_is_the_same_in_every_form(tmp_path, form):
    entries = indexing.index_clips("crema-d", CREMA_FORMS[form](tmp_path / "form"))
    assert [e.clip for e in entries] == [f"crema-{c}" for c in CLIPS]
    assert bare(entries) == bare(indexing.index_clips("crema-d", checkout(tmp_path / "checkout")))
    assert [e.votes for e in entries] == VOTES
    assert [e.sex for e in entries] == [
        "male",
        "female",
        "male",
        "female",
    ]  # the last from our own list
    for e in entries:
        assert e.audio.lower().endswith(".wav")
        assert e.video.lower().endswith(".mp4" if form == "mp4 and capitals" else ".flv")


def test_sounds_alone_and_an_odd_table(tmp_path):
    entries = indexing.index_clips(
        "crema-d", write_files(tmp_path / "kaggle", [f"AudioWAV/{c}.wav" for c in CLIPS])
    )
    assert bare(entries, "votes") == bare(
        indexing.index_clips("crema-d", checkout(tmp_path / "all")), "votes"
    )
    assert {(e.video, e.votes) for e in entries} == {(None, ("", "", ""))}
    films = indexing.index_clips(
        "crema-d", write_files(tmp_path / "films", [f"{c}.flv" for c in CLIPS])
    )
    assert all(e.audio == e.video for e in films)
    table = tmp_path / "all" / "processedResults" / "summaryTable.csv"
    table.write_text(SUMMARY.replace('"D:A"', '"D:X"'))
    with pytest.raises(CorpusError, match=r"summaryTable\.csv, line 3: the vote 'D:X'"):
        indexing.index_clips("crema-d", tmp_path / "all")
    table.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(CorpusError, match="git lfs pull"):
        indexing.index_clips("crema-d", tmp_path / "all")


@pytest.fixture(scope="module")
def full_crema(shared_data, tmp_path_factory):
    """All 14,884 official names as empty files, with the official tables."""
    root, metadata = tmp_path_factory.mktemp("crema"), shared_data / "crema-d" / "metadata"
    for folder in ("AudioWAV", "VideoFlash"):
        (root / folder).mkdir()
    with open(metadata / "lfs_manifest.csv", newline="") as f:
        for row in csv.DictReader(f):
            (root / row["path"]).touch()
    for name in ("summaryTable.csv", "VideoDemographics.csv"):
        shutil.copy(metadata / name, root)
    return root


def test_all_of_crema_with_its_official_votes(full_crema):
    start = time.process_time()
    entries = indexing.index_clips("crema-d", full_crema)
    assert time.process_time() - start < 3  # about 0.3 s; files are listed once
    assert len(entries) == 7442
    assert Counter(e.emotion for e in entries) == dict.fromkeys(CREMA_EMOTIONS, 1271) | {
        "neutral": 1087
    }
    assert len({e.subject for e in entries}) == 91
    assert all(e.video and e.audio for e in entries)
    voice, face, both = (Counter(e.votes[i] for e in entries) for i in range(3))
    assert (
        voice["neutral"],
        face["happy"],
        both["disgust"],
        both["angry|disgust"],
        voice["disgust|neutral"],
    ) == (3897, 1266, 1139, 60, 81)
    assert voice["angry|disgust|fear|neutral|sad"] == face["angry|disgust|happy|neutral"] == 1
    assert [sum(n for k, n in c.items() if "|" in k) for c in (voice, face, both)] == [
        644,
        470,
        420,
    ]
    assert "" not in voice | face | both
    with open(full_crema / "VideoDemographics.csv", newline="") as f:
        sexes = {f"crema-{row['ActorID']}": row["Sex"].lower() for row in csv.DictReader(f)}
    assert {e.subject: e.sex for e in entries} == sexes
    assert {f"crema-{a}" for a in corpora.CREMA_WOMEN} == {
        s for s, sex in sexes.items() if sex == "female"
    }


# ------------------------------------------------------------------ files


def test_files_come_in_one_order_and_without_what_is_hidden(tmp_path):
    root = write_files(
        tmp_path / "c",
        ["b/2.wav", "a.wav", ".git/x.wav", "__MACOSX/x.wav", "b/.hidden", "c!d/3.wav"],
    )
    write_zip(root / "b" / "z.zip", ["0.wav", "m/1.wav", "__MACOSX/._1.wav", "m/.DS_Store"])
    os.symlink(root, root / "b" / "circle")
    os.symlink(root / "nowhere", root / "broken.wav")
    os.symlink(root / "self", root / "self")
    assert [f.removeprefix(f"{root}/") for f, _ in media_files.list_files(root, {})] == [
        "a.wav",
        "b/2.wav",
        "c!d/3.wav",
        "b/z.zip!0.wav",
        "b/z.zip!m/1.wav",
    ]
    (root / "c!d" / "3.wav").write_bytes(b"three")
    write_zip(root / "c!d" / "y.zip", ["q!r.wav"])
    with media_files.media_file(str(root / "c!d" / "3.wav")) as path:
        assert path.read_bytes() == b"three"
    with media_files.media_file(f"{root}/c!d/y.zip!q!r.wav") as path:
        assert path.read_bytes() == b""
    (root / "cut.zip").write_bytes(b"PK nonsense")
    with pytest.raises(CorpusError, match=r"cut\.zip is not a zip archive or is damaged"):
        media_files.list_files(root, {})


def test_a_zip_of_zips_says_so(tmp_path):
    with zipfile.ZipFile(tmp_path / "record.zip", "w") as z:
        z.writestr("Video_Speech_Actor_01.zip", b"")
    with pytest.raises(
        CorpusError, match=r"Video_Speech_Actor_01\.zip inside a zip: unpack the outer one"
    ):
        indexing.index_clips("ravdess", tmp_path / "record.zip")
