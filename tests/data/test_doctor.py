"""§4.1.

Each planted fault is reported and nothing else, on corpora of full size, on the real files, and on
folders that are a mess.
"""

import json
import os
import threading
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.data import corpora, features
from core.data.checks import doctor, faults, inventory
from core.data.corpora import CorpusError
from core.data.sources import indexing
from core.media import probe
from core.media.containers import MediaError
from core.media.faces import landmarker
from tests.support import corpus_trees

IS_FULL = bool(os.environ.get("DACSSGAN_FAULTS"))
FULL = pytest.mark.skipif(
    not IS_FULL, reason="some minutes: DACSSGAN_FAULTS=1 looks for a face in every clip"
)
PEOPLE = 91 if IS_FULL else len(corpus_trees.CREMA_ACTORS)
SECONDS = 120  # of one examination below; two cores need about a tenth


@pytest.fixture(scope="module")
def shared() -> Path | None:
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="module")
def crema(tmp_path_factory, shared):
    manifest = shared / "crema-d/metadata/lfs_manifest.csv" if shared else None
    clip = shared / "crema-d/VideoFlash/1001_DFA_NEU_XX.flv" if shared else None
    with corpus_trees.spacious_folder(tmp_path_factory.mktemp("crema")) as root:
        people = None if IS_FULL else corpus_trees.CREMA_ACTORS
        yield corpus_trees.write_crema_tree(root, manifest, clip=clip, people=people)


@pytest.fixture(scope="module")
def ravdess(tmp_path_factory, shared):
    clip = shared / "ravdess_video/01-01-07-02-02-01-01.mp4" if shared else None
    with corpus_trees.spacious_folder(tmp_path_factory.mktemp("ravdess")) as root:
        people = None if IS_FULL else corpus_trees.RAVDESS_ACTORS
        yield corpus_trees.write_ravdess_tree(root, clip=clip, people=people)


def state(root: Path) -> dict:
    return {p: (p.lstat().st_size, p.lstat().st_mtime_ns) for p in [root, *root.rglob("*")]}


def small(folder: Path, *clips: str) -> Path:
    """Wavs of these CREMA-D clips."""
    noise = corpus_trees.NoiseSource()
    for clip in clips:
        (folder / "AudioWAV").mkdir(parents=True, exist_ok=True)
        (folder / "AudioWAV" / f"{clip}.wav").write_bytes(corpus_trees.encode_wav(noise()))
    return folder


def names(root: Path, **options) -> dict[str, set[str]]:
    """What is reported of a few files, but for their number and that these actors have no video."""
    found = doctor.examine_corpus(root, **options).names()
    return {k: v for k, v in found.items() if k not in ("count", "actors-without-video")}


# ------------------------------------------------------------------ full size


@pytest.fixture
def quick(monkeypatch):
    """Films and sounds that differ by their titles alone are read once."""
    for module, name in ((probe, "video_info"), (probe, "audio_info"), (features, "face_fault")):
        monkeypatch.setattr(module, name, corpus_trees.read_once(getattr(module, name)))


@pytest.fixture
def official(monkeypatch):
    """Name -> number of the official clips of the people who are here."""
    people = {"crema-d": corpus_trees.CREMA_ACTORS, "ravdess": corpus_trees.RAVDESS_ACTORS}

    def here(name):
        lists = corpora.official_clips(name)
        return {a: of for a, of in lists.items() if IS_FULL or a in people[name]}

    monkeypatch.setattr(inventory, "official_clips", here)
    return {name: sum(map(len, here(name).values())) for name in people}


def test_a_large_crema_d_with_its_known_faults(crema, quick, official):
    (root, expected), official = crema, official["crema-d"]
    before = state(root)
    report = doctor.examine_corpus(root, face_clips=100)
    assert report.names() == expected
    assert (report.corpus, report.counts["clips"], report.counts["subjects"]) == (
        "crema-d",
        official,
        PEOPLE,
    )
    assert report.looked_at == {
        **report.looked_at,
        "names": (2 * official + 200,) * 2,
        "videos": (official - 2,) * 2,
        "sounds": (official - 4,) * 2,
    }
    assert report.looked_at["faces"] == (
        100,
        official - 3,
    )  # 1076_MTI_SAD_XX is among them: odd clips come first
    assert report.seconds < SECONDS
    assert state(root) == before


def test_the_index_of_a_faulty_crema_d_is_exact(crema, official):
    entries = indexing.index_clips("crema-d", crema[0])
    assert (len(entries), len({e.subject for e in entries})) == (official["crema-d"], PEOPLE)


def test_a_large_ravdess_with_its_known_faults(ravdess, quick, official):
    (root, expected), official = ravdess, official["ravdess"]
    report = doctor.examine_corpus(root, face_clips=10)
    assert report.names() == expected
    assert (report.corpus, report.counts["clips"], report.counts["subjects"]) == (
        "ravdess",
        official,
        official // 60,
    )
    assert report.looked_at["videos"] == (2 * official - 4,) * 2
    assert report.seconds < SECONDS
    entries = indexing.index_clips("ravdess", root)
    assert (len(entries), len({e.subject for e in entries})) == (official, official // 60)
    assert set(Counter(e.emotion for e in entries).values()) == {official // 15, 2 * official // 15}


@FULL
@pytest.mark.timeout(3600)
def test_every_face_of_full_size(crema, ravdess):
    for root, expected in (crema, ravdess):
        report = doctor.examine_corpus(root, seconds=3000)
        assert report.names() == expected
        assert report.looked_at["faces"][0] == report.looked_at["faces"][1]


def test_official_lists(shared):
    crema, ravdess = (corpora.official_clips(name) for name in ("crema-d", "ravdess"))
    assert (len(crema), sum(map(len, crema.values()))) == (91, 7442)
    assert (len(ravdess), {len(of) for of in ravdess.values()}) == (24, {60})
    if shared:
        lines = (shared / "crema-d/metadata/lfs_manifest.csv").read_text().splitlines()[1:]
        assert set().union(*crema.values()) == {Path(line.split(",")[0]).stem for line in lines}


# ------------------------------------------------------------------ real files


def test_the_real_ravdess_zip(shared_data):
    found = doctor.examine_corpus(shared_data / "ravdess_audio_actors_01-20_16k.zip").names()
    assert found.pop("actors-without-video") == {f"{n:02d}" for n in range(1, 21)}
    stereo = (
        "08-01-02-02-01",
        "02-01-01-02-01",
        "02-01-02-02-05",
        "03-01-02-01-20",
        "06-01-01-02-20",
    )
    assert found == {
        "stereo": {f"Actor_{code[-2:]}/03-01-{code}.wav" for code in stereo},
        "duplicate": {"Actor_07/03-01-03-01-02-01-07.wav = Actor_07/03-01-03-01-02-02-07.wav"},
        "count": {"1,200 of 1,440 clips, 20 of 24 actors"},
    }


def test_real_clips_are_sound(shared_data):
    report = doctor.examine_corpus(shared_data / "crema-d")
    assert report.names() == {
        "actors-without-video": {"1002"},
        "count": {"8 of 7,442 clips, 2 of 91 actors"},
    }
    assert report.looked_at["faces"] == (4, 4)
    assert doctor.examine_corpus(shared_data / "ravdess_video").names().keys() == {
        "actors-without-wav",
        "count",
    }


def test_real_faces(shared_data):
    report = doctor.examine_corpus(shared_data / "fer2013_subset.zip", face_clips=40)
    assert (report.corpus, report.counts["clips"]) == ("fer2013", 15_428)
    assert report.names().keys() <= {"duplicate", "no-landmarks", "odd-face"}
    assert len(report.names()["duplicate"]) == 475  # groups of the same bytes
    black = next(names for names in report.names()["duplicate"] if names.count("=") == 6)
    # seven wholly black pictures, under three emotions, which preparation takes as published
    assert report.names()["odd-face"] == set(black.split(" = "))
    assert (
        len(report.names()["no-landmarks"]) < 50
    )  # those that pack best are looked at first: blurred and half hidden ones


def test_an_unknown_corpus_is_refused_with_its_reason(shared_data):
    with pytest.raises(
        CorpusError,
        match=r"no corpus is recognised in .*grid: of its 3 media files none is named as CREMA-D's",
    ):
        doctor.examine_corpus(shared_data / "grid")


# ------------------------------------------------------------------ names


def test_clips_that_the_official_corpus_has_or_has_not(tmp_path):
    actor = sorted(corpora.official_clips("crema-d")["1019"])
    small(tmp_path, *actor[1:], "1019_ABC_ANG_XX", "1020_DFA_ANG_XX")
    assert names(tmp_path) == {"missing-clips": {actor[0]}, "not-official": {"1019_ABC_ANG_XX"}}


def test_copies_in_a_zip_and_in_a_folder_are_one_line(tmp_path):
    clips = sorted(corpora.official_clips("crema-d")["1001"])[:20]
    small(tmp_path / "a" / "b", *clips)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as z:
        for file in (tmp_path / "a").rglob("*.wav"):
            z.write(file, f"a/b/AudioWAV/{file.name}")
    assert names(tmp_path) == {"nested-copy": {"all.zip = ."}}
    assert doctor.examine_corpus(tmp_path).counts["clips"] == 20


def test_a_folder_is_met_under_its_own_name(tmp_path):
    small(tmp_path / "there", "1001_DFA_ANG_XX")
    (tmp_path / "a link").symlink_to(tmp_path / "there")
    (tmp_path / "z link").symlink_to(tmp_path / "there")
    found = {"link-loop": {}}
    assert [f.name for f in inventory.list_media_files(tmp_path, found)] == [
        "there/AudioWAV/1001_DFA_ANG_XX.wav"
    ]
    assert found["link-loop"].keys() == {"a link", "z link"}


def test_own_data(tmp_path):
    small(tmp_path, "1001_DFA_ANG_XX", "1001_DFA_SAD_XX")
    (tmp_path / "AudioWAV/1001_DFA_SAD_XX.wav").write_bytes(b"RIFF")
    table = tmp_path / "mine.csv"
    rows = [
        f"AudioWAV/1001_DFA_{code}_XX.wav,me,{label},{code}"
        for code, label in (("ANG", "angry"), ("SAD", "sad"))
    ]
    table.write_text("\n".join(["path,subject,label,clip", *rows]))
    report = doctor.examine_corpus(table)
    assert (report.corpus, report.counts["subjects"], report.names()) == (
        "own",
        1,
        {"unreadable": {"AudioWAV/1001_DFA_SAD_XX.wav"}},
    )
    folder = tmp_path / "own"
    for path in ("faces/happy/a.png", "audio/happy/a.wav"):
        (folder / path).parent.mkdir(parents=True)
    Image.new("L", (64, 64), 90).save(folder / "faces/happy/a.png")
    (folder / "audio/happy/a.wav").write_bytes(
        corpus_trees.encode_wav(corpus_trees.NoiseSource()(1.1, 8_000), 8_000)
    )
    report = doctor.examine_corpus(folder)
    assert (report.corpus, report.names()) == (
        "own",
        {"no-face": {"faces/happy/a.png"}, "odd-rate": {"audio/happy/a.wav"}},
    )
    Image.fromarray(corpus_trees.face_frames(None)[0][:, 12:84]).save(folder / "faces/happy/a.png")
    (folder / "audio/happy/a.wav").write_bytes(
        corpus_trees.encode_wav(corpus_trees.NoiseSource()(1.1))
    )
    report = doctor.examine_corpus(folder)
    assert report.names() == {}
    assert faults.to_text(report).endswith("No fault was found.")


def test_nothing_there(tmp_path):
    with pytest.raises(CorpusError, match="does not exist"):
        doctor.examine_corpus(tmp_path / "no")
    for name in (None, "crema-d"):
        with pytest.raises(CorpusError, match="no corpus is recognised|holds no media"):
            doctor.examine_corpus(tmp_path, name)


# ------------------------------------------------------------------ a mess


def test_a_mess_is_reported_and_not_raised(tmp_path, monkeypatch):
    small(
        tmp_path, "1001_DFA_ANG_XX", "1001_DFA_SAD_XX", "1001_DFA_ünï·笑 '\n!_XX", "1001_DFA_HAP_XX"
    )
    wav = tmp_path / "AudioWAV"
    Path(os.fsdecode(os.fsencode(wav) + b"/no\xfftext.wav")).write_bytes(
        corpus_trees.encode_wav(corpus_trees.NoiseSource(2)())
    )
    (tmp_path / "round").symlink_to(tmp_path)
    (wav / "self.wav").symlink_to("self.wav")
    (wav / "1001_DFA_NEU_XX.wav").symlink_to("nowhere.wav")
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4 and no more")
    (tmp_path / "pointer.zip").write_bytes(corpus_trees.lfs_pointer("z"))
    with zipfile.ZipFile(tmp_path / "part.zip", "w", zipfile.ZIP_STORED) as z:
        z.writestr("1002_DFA_ANG_XX.wav", corpus_trees.encode_wav(corpus_trees.NoiseSource(3)()))
        z.writestr("1002_DFA_SAD_XX.wav", corpus_trees.encode_wav(corpus_trees.NoiseSource(4)()))
    content = bytearray((tmp_path / "part.zip").read_bytes())
    content[2000] ^= 1
    (tmp_path / "part.zip").write_bytes(content)  # the sum of its first member is wrong
    opened = Path.open

    def guarded(self, *args, **options):
        if self.name == "1001_DFA_HAP_XX.wav":
            raise PermissionError(13, "Permission denied")
        return opened(self, *args, **options)

    monkeypatch.setattr(Path, "open", guarded)
    before = state(tmp_path)
    report = doctor.examine_corpus(tmp_path)
    assert {
        k: v for k, v in report.names().items() if k not in ("count", "actors-without-video")
    } == {
        "unreachable": {"AudioWAV/1001_DFA_HAP_XX.wav"},
        "passed-over": {"AudioWAV/self.wav", "AudioWAV/1001_DFA_NEU_XX.wav"},  # links to nothing
        "broken-archive": {"broken.zip"},
        "pointer": {"pointer.zip"},
        "unreadable": {"part.zip!1002_DFA_ANG_XX.wav"},
        "link-loop": {"round"},
        "wrong-name": {"AudioWAV/1001_DFA_ünï·笑 '\\n!_XX.wav", "AudioWAV/no\\udcfftext.wav"},
    }
    assert state(tmp_path) == before
    assert json.loads(json.dumps(faults.to_dict(report), ensure_ascii=False).encode())["faults"][0][
        "names"
    ]


HEADS = [
    (b"RIFF\x24\0\0\0WAVEfmt ", "wav"),
    (b"FLV\1\5\0\0\0\t\0\0\0\0", "flv"),
    (b"\0\0\0\x20ftypisom", "mp4"),
]


@given(st.sampled_from(HEADS), st.binary(max_size=300))
@settings(max_examples=60)
def test_no_bytes_raise_but_media_errors(tmp_path_factory, start, rest):
    (head, kind), path = start, tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(head + rest)
    for read in (probe.audio_info,) if kind == "wav" else (probe.video_info, probe.audio_info):
        try:
            read(path, kind)
        except MediaError:
            continue


# ------------------------------------------------------------------ the budget, and what is told


def test_names_are_looked_at_whatever_the_budget(tmp_path):
    small(tmp_path, "1001_DFA_ANG_XX", "1001_DFA_SAD_XX")
    (tmp_path / "AudioWAV/1001_DFA_HAP_XX.wav").write_bytes(corpus_trees.lfs_pointer("a"))
    (tmp_path / "1001_DFA_ANG_XX.mp4").write_bytes(
        corpus_trees.encode_film("mp4", corpus_trees.face_frames(None))
    )
    report = doctor.examine_corpus(tmp_path, seconds=0)
    assert report.names().keys() == {"pointer", "no-video", "count"}
    assert report.looked_at == {
        "names": (4, 4),
        "contents": (1, 3),
        "videos": (0, 1),
        "sounds": (0, 2),
        "faces": (0, 1),
    }
    assert "faces looked for in 0 of 1 clips" in faults.to_text(report)


def test_suspects_are_looked_at_first_and_the_rest_is_spread(tmp_path):
    frames = corpus_trees.face_frames(None)
    film = corpus_trees.encode_film("mp4", frames)
    for n, clip in enumerate(sorted(corpora.official_clips("ravdess")["01"])):
        (tmp_path / f"01-{clip}.mp4").write_bytes(corpus_trees.replace_title(film, str(n)))
    black = tmp_path / "01-01-05-01-02-01-01.mp4"
    black.write_bytes(
        corpus_trees.replace_title(corpus_trees.encode_film("mp4", np.zeros_like(frames)), "black")
    )
    ticks = []
    tick = lambda done, total, phase: ticks.append((phase, done, total, threading.get_ident()))  # noqa: E731
    report = doctor.examine_corpus(tmp_path, face_clips=4, tick=tick)
    assert report.names()["no-face"] == {black.name}
    assert (report.suspects, report.looked_at["faces"]) == (1, (4, 60))
    assert (
        "faces looked for in 4 of 60 clips (1 that looked odd first, the rest evenly spread)"
        in faults.to_text(report)
    )
    assert {t[3] for t in ticks} == {threading.get_ident()}
    assert [t[1:3] for t in ticks if t[0] == "faces"] == [(n, 4) for n in range(1, 5)]


@given(st.integers(1, 3000), st.integers(1, 300))
def test_every_beginning_is_spread(n, k):
    order = doctor.spread_evenly(range(n))
    assert sorted(order) == list(range(n))
    chosen = sorted(order[:k])
    gaps = np.diff([-1, *chosen, n])
    assert gaps.max() <= 3 * n / min(k, n) + 1


def test_the_report(tmp_path, monkeypatch):
    small(tmp_path, *sorted(corpora.official_clips("crema-d")["1001"])[:7])
    for file in (tmp_path / "AudioWAV").iterdir():
        file.write_bytes(b"")
    (tmp_path / "1001_DFA_ANG_XX.mp4").write_bytes(
        corpus_trees.encode_film("mp4", corpus_trees.face_frames(None))
    )

    def missing():
        raise landmarker.ModelMissing("put it there")

    monkeypatch.setattr(landmarker, "model_path", missing)
    report = doctor.examine_corpus(tmp_path, "crema-d")
    data = json.loads(json.dumps(faults.to_dict(report)))
    assert data.keys() == {
        "version",
        "corpus",
        "root",
        "counts",
        "faults",
        "looked_at",
        "suspects",
        "seconds",
        "budget",
    }
    empty, model = data["faults"][0], data["faults"][-1]
    assert (empty["kind"], empty["severity"], empty["count"], len(empty["names"])) == (
        "empty",
        "error",
        7,
        7,
    )
    assert (model["kind"], model["details"], data["looked_at"]["faces"]) == (
        "no-model",
        {landmarker.MODEL_FILE: "put it there"},
        [0, 1],
    )
    assert (
        "and 2 more\n    -> in the corpus' folder: git checkout -- . && git lfs pull"
        in faults.to_text(report)
    )
    assert [f.severity for f in report.faults] == sorted(
        (f.severity for f in report.faults), key=list(faults.SEVERITY_TITLES).index
    )


def test_a_budget_that_ends_on_the_way(tmp_path, monkeypatch):
    small(tmp_path, *sorted(corpora.official_clips("crema-d")["1001"]))
    monkeypatch.setattr(
        probe,
        "audio_info",
        lambda path, kind: time.sleep(0.05) or probe.AudioInfo(2.0, None, -20.0, 16_000, 1),
    )
    report = doctor.examine_corpus(tmp_path, seconds=0.8, workers=1)
    done, total = report.looked_at["sounds"]
    assert 0 < done < total == 82
    assert report.seconds < 2
    assert f"sounds heard: {done} of 82, evenly spread" in faults.to_text(report)
