"""`generate`: one result never stands in for another, and no fault of the disk leaves half of one.

The clip, the run, the emotion and the seed are in the file's name.
"""

from __future__ import annotations

import json
import os
import resource
import signal

import pytest
from PIL import Image

from core import files
from core.__main__ import main
from core.media.faces import tracking

SEEN: dict = {}  # digest of a clip -> what is seen in it


@pytest.fixture
def portrait(tmp_path, photo, model):
    """A function that writes the portrait under a name and returns its path."""

    def save(name, mirrored=False):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        with open(path, "wb") as file:
            Image.fromarray(photo[:, ::-1] if mirrored else photo).save(file, "PNG")
        return path

    return save


@pytest.fixture(autouse=True)
def seen_once(monkeypatch):
    """The portrait is searched for its face once for all tests."""
    real = tracking.track_file

    def track(path, name=None, should_stop=None):
        key = files.digest(path)
        SEEN[key] = SEEN.get(key) or real(path, name)
        return SEEN[key]

    monkeypatch.setattr(tracking, "track_file", track)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def generate(clip, out, *more, condition="label"):
    options = ["--run", "demo", "--condition", condition, "--out", str(out)]
    return main(["generate", str(clip), *options, *more])


def contents(out):
    return {p.name: p.read_bytes() for p in out.iterdir()}


def test_another_clip_run_emotion_or_seed_is_another_file(portrait, out):
    first, second = portrait("my.clip.v1.png"), portrait("my.clip.v2.png", mirrored=True)
    made = {}
    for clip, more, condition in (
        (first, (), "label"),
        (second, (), "label"),
        (first, (), "cp"),
        (first, ("--emotion", "fear"), "label"),
        (first, ("--seed", "1", "--frame", "0"), "label"),
    ):
        assert generate(clip, out, *more, condition=condition) == 0
        found = contents(out)
        assert found.items() >= made.items()  # nothing earlier was touched
        assert len(found) == len(made) + 4
        made = found
    assert "my.clip.v1.png-demo-label-dc121551-fear-0.wav" in made


def test_the_same_result_is_made_again_and_another_clip_of_this_name_is_refused(
    portrait, out, capsys
):
    assert generate(portrait("a/face.png"), out) == 0
    before = contents(out)
    assert generate(portrait("a/face.png"), out) == 0
    assert {n: b for n, b in contents(out).items() if n.endswith((".wav", ".npy"))} == {
        n: b for n, b in before.items() if n.endswith((".wav", ".npy"))
    }
    before = contents(out)
    assert generate(portrait("b/face.png", mirrored=True), out) == 1
    assert "the result of another clip of this name" in capsys.readouterr().err
    assert contents(out) == before


def test_a_long_name_of_a_clip_is_cut_and_stays_its_own(portrait, out):
    for end in "ab":
        assert generate(portrait("n" * 200 + end + ".png"), out) == 0
    assert len(contents(out)) == 8


def test_what_is_no_clip_is_said(tmp_path, out, capsys):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero", tmp_path / "nothing"):
        assert generate(path, out) == 1
        assert str(path) in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_that_cannot_be_written_is_named_with_the_fix(portrait, tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    for out in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nothing"):
        assert generate(portrait("face.png"), out) == 1
        err = capsys.readouterr().err
        assert str(tmp_path / "file" if str(out)[:5] != "/proc" else "/proc") in err
        assert len(err.strip().splitlines()) == 1
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("limit", [10, 20_000])
def test_without_room_nothing_half_written_is_left(portrait, out, capsys, limit):
    """The limit of a file's size stands for a full disk: the write fails after so many bytes."""
    clip = portrait("face.png")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        assert generate(clip, out) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(out) in (err := capsys.readouterr().err)
    assert "same command" in err
    assert list(out.iterdir()) == []
    assert generate(clip, out) == 0
    (record,) = out.glob("*.json")
    assert json.loads(record.read_text())["clip digest"] == files.digest(clip)
