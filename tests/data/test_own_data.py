"""§4.1: labelled faces, and own data in folders and tables."""

import dataclasses
from collections import defaultdict

import pytest

from core.data.checks import inventory
from core.data.corpora import CorpusError
from core.data.sources import indexing
from tests.support.file_trees import write_files, write_zip


def bare(entries) -> list:
    """Entries without where their media lie."""
    return [dataclasses.replace(e, video=None, audio=None) for e in entries]


def test_labelled_faces(tmp_path):
    names = [
        "train/happy/1.jpg",
        "train/Sad/2.PNG",
        "test/happy/1.jpg",
        "train/contempt/3.jpg",
        "train/happy/notes.txt",
    ]
    entries = indexing.index_clips(
        "fer2013", write_files(tmp_path / "f", [*names, *(f"fer2013/{n}" for n in names)])
    )
    assert [(e.clip, e.emotion, e.crop, e.subject) for e in entries] == [
        ("test/happy/1.jpg", "happy", True, ""),
        ("train/Sad/2.PNG", "sad", True, ""),
        ("train/happy/1.jpg", "happy", True, ""),
    ]
    assert bare(indexing.index_clips("fer2013", write_zip(tmp_path / "f.zip", names))) == bare(
        entries
    )
    assert (
        len(indexing.index_clips("my-faces", tmp_path / "f")) == 6
    )  # of own pictures two with one name may be two


@pytest.mark.parametrize("above", ["", "mine/"])
def test_own_folders(tmp_path, above):
    names = [
        "faces/happy/ann/1.jpg",
        "faces/happy/2.jpg",
        "Faces/SURPRISED/bob/c.mp4",
        "audio/happiness/ann/1.wav",
        "audio/sur/x.mp4",
        "audio/sur/cover.jpg",
        "faces/happy/ann/1.wav",
        "readme.txt",
    ]
    entries = indexing.index_clips("mine", write_files(tmp_path, [above + n for n in names]))
    found = {
        e.clip.removeprefix(above): (e.emotion, e.subject, bool(e.video), bool(e.audio), e.crop)
        for e in entries
    }
    assert found == {
        "faces/happy/ann/1.jpg": ("happy", "ann", True, False, True),
        "faces/happy/2.jpg": ("happy", "", True, False, True),
        "Faces/SURPRISED/bob/c.mp4": ("surprise", "bob", True, False, False),
        "audio/happiness/ann/1.wav": ("happy", "ann", False, True, False),
        "audio/sur/x.mp4": ("surprise", "", False, True, False),
    }
    write_files(tmp_path, [f"{above}audio/contempt/1.wav"])
    with pytest.raises(
        CorpusError,
        match=r"contempt/1\.wav has an unknown emotion 'contempt'; known are .*"
        r"surprise \(surprised, sur",
    ):
        indexing.index_clips("mine", tmp_path)


@pytest.mark.parametrize("above", ["", "mine/"])
def test_people_above_emotions(tmp_path, above):
    """A person's folder may lie above the emotion's as well as below it."""
    names = ["faces/ann/happy/1.jpg", "faces/sad/ann/2.jpg", "audio/bob/angry/x/1.wav"]
    entries = indexing.index_clips("mine", write_files(tmp_path, [above + n for n in names]))
    assert [(e.emotion, e.subject) for e in entries] == [
        ("angry", "bob"),
        ("happy", "ann"),
        ("sad", "ann"),
    ]


def test_people_that_are_not_used_are_named(tmp_path):
    """Folders above emotions' without faces/ are named, by the index and by the doctor."""
    names = ["ann/happy/1.jpg", "ann/sad/2.jpg", "bob/happy/3.jpg"]
    root = write_files(tmp_path / "people", names)
    index = indexing.index_corpus("mine", root)
    assert {e.subject for e in index.entries} == {""}
    assert index.passed_over == dict.fromkeys(("ann/", "bob/"), indexing.NO_PERSON)
    findings = defaultdict(dict)
    media = inventory.list_media_files(root, findings)
    inventory.group_by_clip("fer2013", root, media, findings)
    assert findings["passed-over"] == index.passed_over
    split = write_files(tmp_path / "split", ["train/happy/1.jpg", "test/happy/2.jpg"])
    assert not indexing.index_corpus("mine", split).passed_over
