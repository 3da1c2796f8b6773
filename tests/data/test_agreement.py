"""Doctor and `prepare` agree on every clip of the corpora that are named by their files."""

import itertools

import numpy as np
import pytest

from core.data import preparation, prepared_corpora
from core.data.checks import doctor
from tests.support import corpus_trees
from tests.support.trained_runs import install_landmark_model

NAMES = {  # corpus -> names of a clip's film and sound, and the kind of film
    "ravdess": ("01-{}-01.mp4", "03-{}-01.wav", "mp4"),
    "crema-d": ("VideoFlash/{}.flv", "AudioWAV/{}.wav", "flv"),
    "demo-clips": ("{}.mp4", "{}.wav", "mp4"),
}


def code(corpus: str, i: int) -> str:
    """What the names of a clip's files share."""
    emotion = ("ANG", "DIS", "FEA", "HAP", "SAD")[i % 5]
    if corpus == "ravdess":
        return f"01-0{i // 4 + 2}-0{i // 2 % 2 + 1}-0{i % 2 + 1}-01"
    if corpus == "crema-d":
        return f"1001_{('DFA', 'IWL', 'TAI')[i // 5]}_{emotion}_XX"
    return f"demo_01_{emotion}_0{i // 5}"


def contents(kind: str, frames: np.ndarray) -> list[tuple[bytes | None, bytes | None, bool]]:
    """(film, sound, whether the clip can be used) of each way in which a clip can be at fault."""
    voice = corpus_trees.encode_wav(corpus_trees.NoiseSource()(1.2))
    silence = corpus_trees.encode_wav(np.zeros(19_200, np.int16))
    film = corpus_trees.encode_film(kind, frames, 1)
    mute = corpus_trees.encode_film(kind, frames, 1, sound=False)
    black = corpus_trees.encode_film(kind, np.zeros_like(frames), 1)
    pointer, text = corpus_trees.lfs_pointer("a"), b"hello\n"
    usable = [(film, voice), (film, None), (mute, voice), (None, voice)]
    faulty = [(film, sound) for sound in (b"", silence, pointer, text)]
    faulty += [(other, voice) for other in (b"", black, pointer, text, film[:500])]
    faulty += [(mute, None), (None, b"")]
    return [(*pair, True) for pair in usable] + [(*pair, False) for pair in faulty]


@pytest.fixture(scope="module")
def frames():
    return corpus_trees.face_frames(None, 2)


@pytest.mark.parametrize("corpus", NAMES)
def test_doctor_and_prepare_agree_on_every_clip(tmp_path, monkeypatch, frames, corpus):
    monkeypatch.setenv("DACSSGAN_DATA", str(tmp_path / "data"))
    install_landmark_model(tmp_path)
    root, (film_name, sound_name, kind) = tmp_path / "source", NAMES[corpus]
    usable = set()
    for i, (film, sound, is_usable) in enumerate(contents(kind, frames)):
        usable |= {code(corpus, i)} if is_usable else set()
        for name, content in ((film_name, film), (sound_name, sound)):
            path = root / name.format(code(corpus, i))
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is not None:
                path.write_bytes(content)
    path = preparation.prepare_corpus(corpus, root, workers=1)
    prepared = prepared_corpora.load_corpus_file(path)
    codes = [code(corpus, i) for i in range(15)]
    clip_code = lambda text: next(c for c in codes if c in text)  # noqa: E731
    assert {clip_code(clip) for clip in prepared.clip} == usable
    assert {clip_code(clip) for clip in prepared.meta["left_out"]} == set(codes) - usable
    report = doctor.examine_corpus(root, corpus, workers=1)
    errors = itertools.chain(*(f.names for f in report.faults if f.severity == "error"))
    assert {clip_code(name) for name in errors} == set(codes) - usable
    assert report.counts["clips"] == len(codes)
