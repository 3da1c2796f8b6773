"""Corpora as people bring them: kinds of files, zips, misspelt folders, silence, tables."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import core.__main__ as cli
from core.data import preparation, prepared_corpora
from core.data.checks import doctor
from core.data.corpora import CorpusError
from core.media import spectrograms
from tests.support import corpus_trees
from tests.support.trained_runs import install_landmark_model

RATE = 16_000


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DACSSGAN_DATA", str(tmp_path / "data"))
    install_landmark_model(tmp_path)
    return tmp_path / "data" / "processed"


def noise(seconds=1.2, level=0.05, seed=0):
    return np.random.default_rng(seed).normal(0, level, round(seconds * RATE))


def put(path: Path, content) -> Path:
    """Write bytes, a waveform (T,) or (T, channels), or a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
        return path
    file = io.BytesIO()
    if isinstance(content, Image.Image):
        content.save(file, "PNG")
    else:
        soundfile.write(file, content, RATE, format="WAV")
    path.write_bytes(file.getvalue())
    return path


@pytest.fixture(scope="module")
def drawn():
    """A drawn face, (72, 72) grey."""
    frame = corpus_trees.face_frames(None)[0][:, 12:84]
    return Image.fromarray(frame).convert("L")


@pytest.fixture(scope="module")
def film():
    return corpus_trees.encode_film("mp4", corpus_trees.face_frames(None))


def prepared(root, name="mine"):
    path = preparation.prepare_corpus(name, root, workers=1)
    return prepared_corpora.load_corpus_file(path)


def errors(report):
    return {n for f in report.faults if f.severity == "error" for n in f.names}


# ------------------------------------------------------------------ silence


def test_a_voice_is_judged_where_it_is_taken_and_after_mixing(tmp_path, home):
    root, hush, beep = tmp_path / "own", np.zeros(2 * RATE), noise()
    put(root / "audio/happy/plain.wav", beep)
    put(root / "audio/sad/antiphase.wav", np.stack([beep, -beep], 1))
    put(root / "audio/fear/zero.wav", np.zeros(2 * RATE))
    put(root / "audio/fear/offset.wav", np.full(2 * RATE, 0.3))
    put(root / "audio/angry/ends.wav", np.concatenate([hush, hush, hush, 2 * beep]))
    put(root / "audio/angry/both.wav", np.concatenate([beep, hush, hush, hush, 2 * beep]))
    put(root / "audio/calm/click.wav", np.concatenate([hush, [0.9, -0.9], hush]))
    corpus = prepared(root)
    lost = {k.rsplit("/", 1)[1] for k in corpus.meta["left_out"]}
    assert lost == {"antiphase.wav", "zero.wav", "offset.wav", "click.wav"}
    assert all("holds no voice" in reason for reason in corpus.meta["left_out"].values())
    assert (spectrograms.level_db(corpus.voices) > -60).all()
    notes = {k.rsplit("/", 1)[1]: v for k, v in corpus.meta["notes"].items()}
    assert set(notes) == {"ends.wav", "both.wav"}
    assert "the second from 6." in notes["ends.wav"]
    assert "the second from 7." in notes["both.wav"]  # the louder of two
    report = doctor.examine_corpus(root, workers=1)
    names = {k: {n.rsplit("/", 1)[1] for n in v} for k, v in report.names().items()}
    assert (names["silent"], names["silent-middle"]) == (lost, set(notes))


def test_a_voice_after_the_first_minute_is_not_denied(tmp_path, home):
    root = tmp_path / "own"
    put(root / "audio/happy/a.wav", noise())
    put(root / "audio/sad/late.wav", np.concatenate([np.zeros(62 * RATE), noise()]))
    (reason,) = prepared(root).meta["left_out"].values()
    assert "late.wav holds no voice in its first 60 s" in reason
    assert "cut it to its voice" in reason
    assert errors(doctor.examine_corpus(root, workers=1)) == {"audio/sad/late.wav"}


def test_a_long_strip_is_no_cropped_face(tmp_path, home, drawn):
    root = tmp_path / "own"
    put(root / "faces/happy/face.png", drawn)
    put(root / "faces/sad/strip.png", drawn.resize((900, 60)))
    reasons = prepared(root).meta["left_out"]
    assert "no face in the picture" in reasons["faces/sad/strip.png"]
    assert errors(doctor.examine_corpus(root, workers=1)) == {"faces/sad/strip.png"}


def test_further_windows_hold_a_voice_too(tmp_path, home):
    root = tmp_path / "own"
    wave = np.concatenate([np.zeros(2 * RATE), noise(2.0), np.zeros(2 * RATE)])
    put(root / "audio/happy/middle.wav", wave)
    path = preparation.prepare_corpus("mine", root, preparation.PreparationSettings(crops=4))
    corpus = prepared_corpora.load_corpus_file(path)
    assert (spectrograms.level_db(corpus.voices_more[0]) > -60).all()
    assert corpus.meta["repeated"]["crops"] == 1


def test_a_face_is_that_of_the_moved_voice(tmp_path, home):
    """The film shows a face in its last seconds alone, where the voice is."""
    frames = corpus_trees.face_frames(None)
    film = np.concatenate(
        [np.full((60, 72, 96, 3), 90, np.uint8), np.tile(frames[:1], (12, 1, 1, 1))]
    )
    root = tmp_path / "t"
    put(root / "a.mp4", corpus_trees.encode_film("mp4", film, sound=False))
    put(root / "a.wav", np.concatenate([np.zeros(6 * RATE), noise(1.2)]))
    table = "path,audio,subject,label,clip\na.mp4,a.wav,ann,sad,one\n"
    put(root / "t.csv", table.encode())
    corpus = prepared(root / "t.csv")
    assert (corpus.face_of[0], corpus.voice_of[0]) == (0, 0)


def test_a_film_that_is_cut_is_taken_with_a_remark(tmp_path, home):
    frames = np.tile(corpus_trees.face_frames(None), (4, 1, 1, 1))
    whole = corpus_trees.encode_film("flv", frames)
    root = tmp_path / "own"
    put(root / "faces/happy/whole.flv", whole)
    put(root / "faces/happy/cut.flv", whole[: len(whole) * 6 // 10])
    (note,) = prepared(root).meta["notes"].items()
    assert note[0] == "faces/happy/cut.flv"
    assert "cut short: only the first" in note[1]
    report = doctor.examine_corpus(root, workers=1)
    assert report.names()["cut-short"] == {"faces/happy/cut.flv"}
    assert "odd-face" not in report.names()


# ------------------------------------------------------------------ kinds and names of files


def test_media_of_any_ending_are_read_by_their_content(tmp_path, home, drawn):
    root = tmp_path / "own"
    for ending, kind in (("jfif", "JPEG"), ("gif", "GIF"), ("pgm", "PPM"), ("avif", "AVIF")):
        file = io.BytesIO()
        drawn.save(file, kind)
        put(root / f"faces/happy/{ending}.{ending}", file.getvalue())
        put(root / f"faces/sad/{ending}", file.getvalue())  # no ending at all
    for ending, form, subtype in (
        ("opus", "OGG", "OPUS"),
        ("oga", "OGG", "VORBIS"),
        ("aiff", "AIFF", "PCM_16"),
        ("au", "AU", "PCM_16"),
        ("caf", "CAF", "PCM_16"),
        ("unknown", "FLAC", "PCM_16"),
    ):
        file = io.BytesIO()
        soundfile.write(file, noise(), RATE, subtype, format=form)
        put(root / f"audio/happy/{ending}.{ending}", file.getvalue())
    corpus = prepared(root)
    assert (len(corpus.faces), len(corpus.voices)) == (8, 6)
    report = doctor.examine_corpus(root, workers=1)
    assert (report.counts["clips"], errors(report)) == (14, set())


def test_crops_of_16_bits_or_turned_by_exif_are_the_same_faces(tmp_path, home, drawn):
    grey, exif = np.asarray(drawn.resize((64, 64))), Image.Exif()
    exif[0x0112] = 6  # to be shown turned to the right by a quarter
    forms = {
        "plain": Image.fromarray(grey),
        "bits16": Image.fromarray(grey.astype(np.uint16) * 257),
        "turned": Image.fromarray(np.ascontiguousarray(np.rot90(grey))),
    }
    faces = {}
    for name, image in forms.items():
        file = io.BytesIO()
        image.save(file, "PNG", **({"exif": exif} if name == "turned" else {}))
        put(tmp_path / name / "faces/happy/1.png", file.getvalue())
        faces[name] = prepared(tmp_path / name, name).faces
    assert faces["plain"].std() > 10
    assert np.array_equal(faces["plain"], faces["bits16"])
    assert np.array_equal(faces["plain"], faces["turned"])


def test_what_is_passed_over_is_counted_and_named(tmp_path, home, drawn, capsys):
    root = tmp_path / "own"
    for emotion in ("happy", "hapy", "contempt"):
        for i in range(2):
            put(root / emotion / f"{i}.png", drawn)
    put(root / "happy/clip.wav", noise())
    put(root / "happy/photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    put(root / "notes.txt", b"words\n")
    assert cli.main(["data", "prepare", "mine", "--source", str(root)]) == 1  # 1 of 3 is lost
    out = capsys.readouterr().out
    assert (
        "passed over, 2 of .png: its folder hapy names no emotion; rename it if it means happy"
        in out
    )
    assert "passed over, 2 of .png: its folder contempt names no emotion: contempt/0.png" in out
    assert "passed over, 1 of .wav: a sound; own sounds lie in audio/<emotion>/: happy/clip" in out
    assert (
        "passed over, 1 of .txt: no picture, video or sound of a form that is read here: notes.txt"
        in out
    )
    assert "photo.heic is a damaged picture. Save it again as jpg or png" in out
    path = prepared_corpora.corpus_path("mine")
    assert len(prepared_corpora.read_source_record(path)["passed_over"]) == 6
    report = doctor.examine_corpus(root, "fer2013", workers=1)
    assert "hapy/0.png" in report.names()["wrong-name"]


@pytest.mark.parametrize("backslashes", [False, True])
@pytest.mark.parametrize("what", ["fer", "own", "sounds", "films", "ravdess"])
def test_doctor_recognises_what_prepare_reads(tmp_path, home, drawn, film, what, backslashes):
    face, sound = io.BytesIO(), io.BytesIO()
    drawn.save(face, "PNG")
    soundfile.write(sound, noise(), RATE, format="WAV")
    contents = {
        "fer": {f"train/{e}/{i}.png": face for e in ("happy", "sad") for i in range(2)},
        "own": {"mine/faces/happy/anna/1.png": face, "mine/audio/sad/anna/1.wav": sound},
        "sounds": {"audio/happy/1.wav": sound, "audio/sad/1.wav": sound},
        "films": {"faces/happy/anna/1.mp4": io.BytesIO(film)},
        "ravdess": {"Actor_01/03-01-05-01-02-01-01.wav": sound},
    }[what]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as z:
        for path, content in contents.items():
            info = zipfile.ZipInfo(path)
            info.filename = path.replace("/", "\\") if backslashes else path
            z.writestr(info, content.getvalue())
    name = {"fer": "fer2013", "ravdess": "ravdess"}.get(what, "own")
    report = doctor.examine_corpus(tmp_path / "x.zip", workers=1)
    assert (report.corpus, errors(report)) == (name, set())
    corpus = prepared(tmp_path / "x.zip", "mine" if name == "own" else name)
    assert len(corpus.clip) == report.counts["clips"] == len(contents)


# ------------------------------------------------------------------ sets, paths


def test_why_no_clip_can_be_used_is_told_truly(tmp_path, home, drawn):
    from core.config.presets import DEMO
    from core.config.settings import replace
    from core.data import splits

    for emotion in ("happy", "sad"):
        put(tmp_path / f"own/faces/{emotion}/1.png", drawn)
        put(tmp_path / f"own/audio/{emotion}/1.wav", noise())
        put(tmp_path / f"sounds/audio/{emotion}/1.wav", noise())
    prepared(tmp_path / "own")
    prepared(tmp_path / "sounds", "sounds")

    def fails(words, faces="mine", **changes):
        settings = {"faces": faces, "voices": faces} | changes
        with pytest.raises(CorpusError, match=words) as caught:
            splits.build_sets(replace(DEMO, data=settings))
        assert "too few subjects" not in str(caught.value)

    few = {"classes": ("happy", "sad")}
    fails("has a face and a voice: 2 have a face alone and 2 .*--data.pairing emotion", **few)
    fails("no clip of sounds has a face", "sounds", **few)
    fails("no face of mine is angry or fear; its are happy, sad", classes=("angry", "fear"))


ODD_NAMES = ["it's [one] #1 %20 é&", 'a "b" {c} $d', "Zoë über", "-n --help", "a;b|c"]


@pytest.mark.parametrize("name", [*ODD_NAMES, b"M\xfcller \xff".decode(errors="surrogateescape")])
def test_paths_of_any_letters_work(tmp_path, home, drawn, name):
    root = tmp_path / name
    put(root / f"audio/happy/{name}/{name}.wav", noise())
    put(root / f"faces/happy/{name}/0.png", drawn)
    assert cli.main(["data", "prepare", "mine", "--source", str(root)]) == 0
    corpus = prepared_corpora.load_corpus("mine")
    assert (len(corpus.faces), len(corpus.voices)) == (1, 1)
    report = doctor.examine_corpus(root, workers=1)
    assert errors(report) == set()
    json.dumps(report.names(), default=list).encode()


def test_the_handed_cases(tmp_path, home):
    cases = Path(__file__).resolve().parents[3] / "shared" / "cases"
    if not cases.is_dir():
        pytest.skip("no handed cases here: ../shared/cases is absent")
    faces = [prepared(cases / "crops-16bit-and-exif" / k, k).faces for k in ("plain", "bits16")]
    assert np.array_equal(*faces)
    for folder in ("doctor-own-without-pictures/sounds", "doctor-own-without-pictures/videos"):
        report = doctor.examine_corpus(cases / folder, workers=1)
        assert (report.corpus, errors(report)) == ("own", set())
    assert len(prepared(cases / "endings" / "own", "endings").clip) == 10
    silent = prepared(cases / "silent-voices" / "own", "silent").meta["left_out"]
    report = doctor.examine_corpus(cases / "silent-voices" / "own", workers=1)
    assert errors(report) == set(silent) == {"audio/fear/zero.wav", "audio/sad/antiphase.wav"}
    with pytest.raises(CorpusError, match="read from files like train/"):
        prepared(cases / "not-a-zip" / "fer2013.csv", "fer2013")
    for name, corpus in (("fer", "fer2013"), ("own", "own")):
        path = cases / "zip-with-backslashes" / f"{name}.zip"
        assert doctor.examine_corpus(path, workers=1).corpus == corpus
