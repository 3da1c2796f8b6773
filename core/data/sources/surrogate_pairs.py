"""Surrogate pairs: real faces and voices of no common person, joined once by a hidden label.

The prepared corpora FER2013 and RAVDESS give a corpus of clips with a face and a voice, whose
subject is the actor of the voice, and one of the faces that are in no pair, from which f_S learns.
The joining reads labels; a training that uses the clips need read none of S3.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from core import files
from core.config.settings import SHARED_EMOTIONS
from core.data import prepared_corpora
from core.data.corpora import CorpusError
from core.data.prepared_corpora import PreparedCorpus

FACES, VOICES = "fer2013", "ravdess"
PAIRS, OTHER_FACES = "surrogate-pairs", "surrogate-faces"
CODE_VERSION, SEED = 1, 0


def is_surrogate(name: str) -> bool:
    """Whether a corpus is made here, and needs no source but two prepared corpora."""
    return name in (PAIRS, OTHER_FACES)


def prepare() -> None:
    """Join the two prepared corpora, unless it is done; writes both files or none.

    Raises CorpusError where one of the two is not prepared, or has too few faces of an emotion.
    """
    faces, voices = (prepared_corpora.load_corpus(name) for name in (FACES, VOICES))
    key = files.cache_key(CODE_VERSION, SEED, faces.digest, voices.digest, SHARED_EMOTIONS)
    if _key_of(PAIRS) == _key_of(OTHER_FACES) == key:
        return
    with files.file_lock(
        prepared_corpora.corpus_path(PAIRS).with_suffix(".lock"), "joining pairs", wait=True
    ):
        if _key_of(PAIRS) == _key_of(OTHER_FACES) == key:
            return
        for name, arrays in join(faces, voices).items():
            arrays["meta"]["key"] = key
            meta = np.array(json.dumps(arrays["meta"]))
            files.write_arrays(prepared_corpora.corpus_path(name), **arrays | {"meta": meta})


def _key_of(name: str) -> str:
    """Key of the file that is there; "" for another or none."""
    try:
        return str(prepared_corpora.load_corpus(name).meta.get("key", ""))
    except CorpusError:
        return ""


def join(
    faces: PreparedCorpus, voices: PreparedCorpus, seed: int = SEED
) -> dict[str, dict[str, Any]]:
    """Arrays of both corpora: each voice of a shared emotion with a face of that emotion.

    Faces are drawn by `seed`, each at most once; a near duplicate of a paired face is in neither
    corpus. Raises CorpusError where an emotion has more voices than faces.
    """
    rng = np.random.default_rng(seed)
    y = np.flatnonzero((voices.voice_of >= 0) & np.isin(voices.emotion, SHARED_EMOTIONS))
    x = np.full(len(y), -1)
    for emotion in SHARED_EMOTIONS:
        have = np.flatnonzero((faces.face_of >= 0) & (faces.emotion == emotion))
        wanted = np.flatnonzero(voices.emotion[y] == emotion)
        # enough must be left for f_S
        if len(have) < 2 * len(wanted):
            what = f"{len(wanted)} voices are {emotion}, and {faces.name} has {len(have)} faces"
            raise CorpusError(f"{what}; twice as many are needed: prepare all of {faces.name}")
        x[wanted] = rng.permutation(have)[: len(wanted)]
    is_near = np.isin(faces.subject, faces.subject[x]) & (faces.subject != "")
    is_near[x] = True
    rest = np.flatnonzero(~is_near & (faces.face_of >= 0))
    pairs = {
        "clip": np.char.add(np.char.add(voices.clip[y], " + "), faces.clip[x]),
        "subject": voices.subject[y],
        "sex": voices.sex[y],
        "emotion": voices.emotion[y],
        "face_of": np.arange(len(y)),
        "voice_of": np.arange(len(y)),
        "faces": faces.faces[faces.face_of[x]],
        "voices": voices.voices[voices.voice_of[y]],
        "votes": np.full((len(y), 3), ""),
        "meta": _meta(PAIRS, faces, voices, y, x) | {"ref_db": voices.meta["ref_db"]},
    }
    others = {
        "clip": faces.clip[rest],
        "subject": faces.subject[rest],
        "sex": faces.sex[rest],
        "emotion": faces.emotion[rest],
        "face_of": np.arange(len(rest)),
        "voice_of": np.full(len(rest), -1),
        "faces": faces.faces[faces.face_of[rest]],
        "voices": np.zeros((0, *voices.voices.shape[1:]), np.float32),
        "votes": np.full((len(rest), 3), ""),
        "meta": _meta(OTHER_FACES, faces, voices, rest, rest) | {"ref_db": 0.0},
    }
    return {PAIRS: pairs, OTHER_FACES: others}


def _meta(
    name: str, faces: PreparedCorpus, voices: PreparedCorpus, *rows: np.ndarray
) -> dict[str, Any]:
    parts = [faces.digest, voices.digest, name, *(files.digest(r.tobytes()) for r in rows)]
    title = "Surrogate pairs: faces of FER2013, voices of RAVDESS, of no common person"
    if name == OTHER_FACES:
        title = "Faces of FER2013 that are in no surrogate pair"
    return {
        "name": name,
        "title": title,
        "digest": files.cache_key(*parts)[:16],
        "licence": f"{faces.meta['licence']}; {voices.meta['licence']}",
        "source": f"{faces.meta['source']}; {voices.meta['source']}",
        "level": voices.meta["level"] if name == PAIRS else 0.0,
        "left_out": {},
        "frames": 1,
        "crops": 1,
        "repeated": {"frames": 0, "crops": 0},
    }
