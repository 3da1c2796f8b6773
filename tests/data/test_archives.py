"""Zips of every kind, other archives, and sources that are neither files nor folders."""

import io
import os
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import soundfile

from core.data import preparation, prepared_corpora
from core.data.checks import doctor
from core.data.corpora import CorpusError
from core.data.sources import indexing
from tests.support import corpus_trees
from tests.support.file_trees import write_zip

RATE = 16_000


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DACSSGAN_DATA", str(tmp_path / "data"))


def noise(seed=0):
    return np.random.default_rng(seed).normal(0, 0.05, 19_200)


def wav(seed=0):
    file = io.BytesIO()
    soundfile.write(file, noise(seed), RATE, format="WAV")
    return file.getvalue()


def prepared(root, name="mine"):
    path = preparation.prepare_corpus(name, root, workers=1)
    return prepared_corpora.load_corpus_file(path)


def test_a_members_fault_is_told_with_its_own_words(tmp_path, home):
    sound = io.BytesIO()
    soundfile.write(sound, noise(), RATE, format="WAV")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as z:
        for i in range(3):
            z.writestr(f"audio/happy/{i}.wav", sound.getvalue())
    data = bytearray((tmp_path / "x.zip").read_bytes())
    first, second = (data.index(f"audio/happy/{i}.wav".encode()) for i in range(2))
    data[first + 500] ^= 0xFF  # damaged content
    at = data.rindex(b"audio/happy/1.wav") - 46 + 8  # flags in the list of members
    data[at] |= 1
    data[second - 30 + 6] |= 1  # encrypted
    (tmp_path / "x.zip").write_bytes(bytes(data))
    reasons = prepared(tmp_path / "x.zip").meta["left_out"]
    assert "0.wav is damaged inside x.zip" in reasons["audio/happy/0.wav"]
    assert "encrypted in x.zip; unpack it and give the folder" in reasons["audio/happy/1.wav"]


def archive(kind: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{kind}") as tar:
        tar.addfile(tarfile.TarInfo("train/happy/1.jpg"))
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("f.tar.gz", archive("gz"), "is a gz archive, and zips alone are read packed; unpack it"),
        ("f.tar", archive(""), "is a tar archive"),
        ("f.tar.xz", archive("xz"), "is an xz archive"),
        ("f.zip", b"Rar!\x1a\7\0" + bytes(99), "is a rar archive"),
        ("f.7z", b"7z\xbc\xaf\x27\x1c" + bytes(99), "is a 7z archive"),
        ("f.wav", corpus_trees.encode_wav(np.zeros(99, np.int16)), "is a single media file"),
        ("fer2013.csv", b"emotion,pixels,Usage\n0,70 80,Training\n", "read from files like train/"),
        ("f.zip", b"", "is empty"),
        ("f.zip", corpus_trees.lfs_pointer("a"), "git lfs pull|is a table"),
    ],
)
def test_what_is_no_corpus_is_called_what_it_is(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=words) as caught:
        indexing.index_clips("fer2013", tmp_path / name)
    assert "download it again" not in str(caught.value)


def test_a_zip_that_is_cut_is_still_called_damaged(tmp_path):
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as z:
        z.writestr("train/happy/1.jpg", bytes(999))
    (tmp_path / "f.zip").write_bytes((tmp_path / "f.zip").read_bytes()[:500])
    with pytest.raises(CorpusError, match="is damaged .*; download it again"):
        indexing.index_clips("fer2013", tmp_path / "f.zip")


def test_of_members_of_one_name_the_last_is_taken_and_the_others_named(tmp_path, home):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as z, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(3):
            z.writestr("audio/happy/1.wav", wav(seed))
    write_zip(tmp_path / "last.zip", {"audio/happy/1.wav": wav(2)})
    twice, last = prepared(tmp_path / "x.zip"), prepared(tmp_path / "last.zip", "last")
    assert np.array_equal(twice.voices, last.voices)
    index = indexing.index_corpus("mine", tmp_path / "x.zip")
    assert set(index.passed_over.values()) == {"another member of the same name is taken"}
    report = doctor.examine_corpus(tmp_path / "x.zip", workers=1)
    assert report.names()["passed-over"] == set(index.passed_over)


def test_names_in_utf_8_that_do_not_say_so_are_read(tmp_path):
    path = write_zip(tmp_path / "mac.zip", {"audio/happy/Zoë/ü.wav": b"", "audio/sad/x/1.wav": b""})
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\1\2", 9), (b"PK\3\4", 7)):  # the flag in both of a member's headers
        at = -1
        while (at := data.find(mark, at + 1)) >= 0:
            data[at + place] &= ~8
    path.write_bytes(data)
    entries = indexing.index_clips("mine", path)
    assert [(e.clip, e.subject) for e in entries] == [
        ("audio/happy/Zoë/ü.wav", "Zoë"),
        ("audio/sad/x/1.wav", "x"),
    ]


@pytest.mark.parametrize("part", ["first", "last"])
def test_a_part_of_a_zip_is_called_one(tmp_path, part):
    whole = write_zip(tmp_path / "whole.zip", {f"audio/happy/{i}.wav": wav(i) for i in range(3)})
    data = whole.read_bytes()
    path = tmp_path / "part.zip"
    path.write_bytes(b"PK\7\10" + data[:9_000] if part == "first" else data[-9_000:])
    with pytest.raises(CorpusError, match=r"part\.zip is one part of a zip in several parts; join"):
        indexing.index_clips("mine", path)
    with pytest.raises(CorpusError, match=r"part\.zip cannot be opened"):
        doctor.examine_corpus(path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pipe", "is a device or a pipe"),
        ("loop", "is a link to itself"),
        ("dangling", "is a link to nothing"),
        ("absent", "does not exist"),
        ("a\0b", r"does not exist"),
    ],
)
def test_a_source_that_is_neither_file_nor_folder_is_called_what_it_is(tmp_path, home, kind, words):
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind in ("loop", "dangling"):
        path.symlink_to("loop" if kind == "loop" else "nowhere")
    with pytest.raises(CorpusError, match=words):
        preparation.prepare_corpus("mine", path)
    with pytest.raises(CorpusError, match=words):
        doctor.examine_corpus(path)
    assert not (tmp_path / "data").exists()
