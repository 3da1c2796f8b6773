"""Corpora of any layout with any fault: prepare and doctor agree, and each file is accounted for.

A fault of a single read changes nothing once it is gone.
"""

import builtins
import contextlib
import errno
import io
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from core import files
from core.data import extraction, preparation, prepared_corpora
from core.data.checks import doctor
from core.data.sources import media_files
from tests.support import corpus_trees
from tests.support.file_trees import write_files, write_zip
from tests.support.trained_runs import install_landmark_model


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DACSSGAN_DATA", str(tmp_path / "data"))


def encoded(image, kind):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def voice(form="WAV"):
    file = io.BytesIO()
    wave = np.random.default_rng(0).normal(0, 0.05, 19_200)
    soundfile.write(file, wave, 16_000, format=form)
    return file.getvalue()


@dataclass(frozen=True)
class Pool:
    """Contents by the folder that they may lie in: (ending, bytes); short when it is printed."""

    faces: list[tuple[str, bytes]] = field(repr=False)
    audio: list[tuple[str, bytes]] = field(repr=False)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Contents by the role they can play: (ending, bytes); good ones, and some with a fault."""
    install_landmark_model(tmp_path_factory.mktemp("films"))
    frames = corpus_trees.face_frames(None)
    grey = np.asarray(Image.fromarray(frames[0]).convert("L"))[:, 12:84]
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    black = Image.new("L", (48, 48))
    film = corpus_trees.encode_film("mp4", frames)
    mute = corpus_trees.encode_film("mp4", np.zeros_like(frames), sound=False)
    face = Image.fromarray(grey)
    return Pool(
        faces=[
            *((f".{e}", encoded(face, k)) for e, k in (("jfif", "JPEG"), ("gif", "GIF"))),
            *((f".{e}", encoded(face, k)) for e, k in (("pgm", "PPM"), ("PNG", "PNG"))),
            (".png", encoded(deep, "PNG")),
            (".webp", encoded(face, "WEBP")),
            (".photo", encoded(face, "PNG")),
            (".png", encoded(black, "PNG")),
            (".jpg", encoded(face, "JPEG")[:300]),
            (".heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)),
            (".mp4", film),
            (".mp4", mute),
            (".jpg", b""),
            (".jpg", corpus_trees.lfs_pointer("a")),
            (".txt", b"no medium\n"),
        ],
        audio=[
            (".wav", voice()),
            (".aiff", voice(form="AIFF")),
            (".sound", voice(form="FLAC")),
            (".mp4", film),
            (".wav", corpus_trees.encode_wav(np.zeros(20_000, np.int16))),
            (".wav", np.random.default_rng(0).bytes(900)),
            (".mp3", b"<html>404</html>"),
            (".md", b"# notes\n"),
        ],
    )


def plant(root: Path, pool, draw) -> tuple[Path, list[str]]:
    """A corpus of random layout below root, folder or zip; the paths inside it."""
    paths, above = {}, draw(st.sampled_from(["", "mine/", "a/b c/", "down/here/faces/it/is/"]))
    for n in range(draw(st.integers(2, 7))):
        role = draw(st.sampled_from(["faces", "audio"]))
        ending, content = draw(st.sampled_from(getattr(pool, role)))
        emotion = draw(st.sampled_from(["happy", "Sad", "ANGER"]))
        subject = draw(st.sampled_from(["", "anna/", "Zoë/", "a b [c] 'd'/"]))
        paths[f"{above}{role}/{emotion}/{subject}{n}{ending}"] = content
    paths[f"{above}faces/happy/face.png"] = pool.faces[3][1]
    if draw(st.booleans()):
        paths[f"{above}README"] = b"read me\n"
    form = draw(st.sampled_from(["folder", "zip", "zip in a folder"]))
    if form != "folder":
        slash = draw(st.sampled_from(["/", "\\"]))
        inside = form == "zip in a folder"
        archive = root / "in/z.zip" if inside else root.with_suffix(".zip")
        write_zip(archive, paths, slash)
        return (root, [f"in/z/{path}" for path in paths]) if inside else (archive, list(paths))
    return write_files(root, paths), list(paths)


def fault_at(monkeypatch, root: Path, number: int) -> list[int]:
    """Let the read of that number below a source fail: of a file, a folder, or a zip's member.

    Returns the list whose only number is that of the reads so far.
    """
    seen = [0]

    def reads(original, place=lambda *args: args[0]):
        def faulty(*args, **options):
            at = place(*args)
            if isinstance(at, str | os.PathLike) and str(at).startswith(str(root)):
                seen[0] += 1
                if seen[0] == number:
                    raise OSError(errno.EIO, "Input/output error", str(at))
            return original(*args, **options)

        return faulty

    for module, name in ((builtins, "open"), (io, "open"), (os, "scandir"), (os, "stat")):
        monkeypatch.setattr(module, name, reads(getattr(module, name)))
    of_archive = reads(zipfile.ZipFile.open, lambda archive, *_: archive.filename)
    monkeypatch.setattr(zipfile.ZipFile, "open", of_archive)
    return seen


@pytest.mark.parametrize("form", ["folder", "zip", "zip in a folder", "table"])
def test_a_fault_at_each_single_read_leaves_the_same_bytes(tmp_path, home, form):
    root, contents = tmp_path / "source" / "own", {}
    for i, emotion in enumerate(("happy", "sad")):
        contents[f"audio/{emotion}/anna/{i}.sound" if i else f"audio/{emotion}/0.wav"] = voice()
    contents["audio/sad/notes.text"] = b"words\n"
    contents["t.csv"] = b"path,subject,label,clip\n" + b"".join(
        f"{path},anna,happy,{i}\n".encode() for i, path in enumerate([*contents][:2])
    )
    if form in ("folder", "table"):
        write_files(root, contents)
    else:
        write_zip(root / "z.zip" if "folder" in form else root.with_suffix(".zip"), contents)
    source = {"zip": root.with_suffix(".zip"), "table": root / "t.csv"}.get(form, root)

    def results():
        media_files._open_archive.cache_clear()
        path = preparation.prepare_corpus("mine", source, workers=1)
        record = prepared_corpora.source_record_path(path)
        both = path.read_bytes(), record.read_bytes()
        path.unlink()
        record.unlink()
        return both

    reference, number = results(), 0
    while True:
        number += 1
        with pytest.MonkeyPatch.context() as faulty:
            seen, stopped = fault_at(faulty, root.parent, number), False
            try:
                disturbed = results()
            except (files.UserError, OSError):  # both become one line
                stopped = True
            if seen[0] < number:
                break
        assert stopped or disturbed[0] == reference[0], number
        assert results() == reference, number
    assert number > 8


@settings(
    max_examples=8,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_prepare_and_doctor_agree_on_any_corpus(tmp_path_factory, pool, data):
    folder = tmp_path_factory.mktemp("any")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "TARGET_PARTS", 3)
        patch.setenv("DACSSGAN_DATA", str(folder / "data"))
        root, paths = plant(folder / "corpus", pool, data.draw)
        path = preparation.prepare_corpus("mine", root, workers=1)
        corpus = prepared_corpora.load_corpus_file(path)
        record = prepared_corpora.read_source_record(path)
        # Each file is used, or named with a reason
        left_out = {k: v for k, v in corpus.meta["left_out"].items() if "landmarks/" not in k}
        passed = record["passed_over"]
        named = [set(corpus.clip.tolist()), set(left_out), set(passed)]
        assert sorted(x for names in named for x in names) == sorted(paths)
        assert all([*left_out.values(), *passed.values()])
        # Doctor says the same
        report = doctor.examine_corpus(root, workers=1)
        errors = {n for f in report.faults if f.severity == "error" for n in f.names}
        errors = {name.replace(".zip!", "/") for name in errors}
        assert (report.corpus, errors) == ("own", set(left_out))
        assert report.names().get("passed-over", set()) == set(passed)
        # A fault at any single read leaves the same bytes once it is gone
        media_files._open_archive.cache_clear()
        reference = path.read_bytes()
        path.unlink()
        with pytest.MonkeyPatch.context() as faulty:
            fault_at(faulty, root, data.draw(st.integers(1, 40)))
            with contextlib.suppress(files.UserError, OSError):  # both become one line
                preparation.prepare_corpus("mine", root, workers=1)
        media_files._open_archive.cache_clear()
        assert preparation.prepare_corpus("mine", root, workers=1).read_bytes() == reference
