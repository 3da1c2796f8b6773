"""Corpora and tasks made up for the page Data, and what a browser would make of that page."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np

from core import files
from core.config.presets import SMOKE
from core.config.settings import CREMA_EMOTIONS
from core.data import preparation, prepared_corpora
from core.data.demo import expressions, voices
from core.experiments import tasks
from core.experiments.tasks import Task
from core.media.faces import alignment

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

HOSTILE_TEXTS = [
    "<script>alert(1)</script>",
    "**bold** [x](http://evil.example)",
    "`c` $x$ :red[r]",
    "../../etc/x",
    "<img src=x onerror=a()>",
]
SUBJECTS = tuple(f"p{i}" for i in range(10))


def write_noise_corpus(
    name: str,
    faces: bool = True,
    voices: bool = True,
    subjects=SUBJECTS,
    votes: str = "",
    takes: int = 1,
    **meta,
) -> Path:
    """A prepared corpus of noise: a clip (or as many as `takes`) of each subject and emotion."""
    rng = np.random.default_rng(0)
    clips = [(s, e, k) for s in subjects for e in CREMA_EMOTIONS for k in range(takes)]
    n, same = len(clips), len(clips) // takes
    none, all_ = np.full(n, -1), np.arange(n)
    x, y = (
        rng.integers(0, 256, (same, 28, 28), np.uint8),
        rng.uniform(-80, 0, (same, 112, 28)).astype(np.float32),
    )
    known = {
        "name": name,
        "digest": "0123456789abcdef",
        "ref_db": 0.0,
        "title": name,
        "licence": "mine",
        "source": "own",
        "left_out": {},
    }
    path = prepared_corpora.corpus_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_arrays(
        path,
        clip=np.array([f"{s}_{e}" + f"_{k}" * (takes > 1) for s, e, k in clips]),
        subject=np.array([s for s, *_ in clips]),
        sex=np.array(["female" if i // 6 % 2 else "male" for i in range(n)]),
        emotion=np.array([e for _, e, _ in clips]),
        face_of=all_ if faces else none,
        voice_of=all_ if voices else none,
        faces=np.concatenate([x, np.zeros((n - same, 28, 28), np.uint8)]) if faces else x[:0],
        voices=np.concatenate([y, np.zeros((n - same, 112, 28), np.float32)]) if voices else y[:0],
        meta=np.array(json.dumps(known | meta)),
        **({"votes": np.array([[votes] * 3] * n)} if votes else {}),
    )
    return path


def prepare_noise_demo(
    name: str = "demo", takes: int = SMOKE.data.demo_takes, crops: int = 1
) -> None:
    """The demo corpus, its pictures and voices replaced by noise that is made at once."""
    rng = np.random.default_rng(0)

    def face(take, *_, **__):
        return rng.integers(0, 256, (64, 64, 3), np.uint8), alignment.CANONICAL_POINTS * 64

    def voice(take, *_, **__):
        return (0.1 * rng.standard_normal(26_000)).astype(np.float32)

    with (
        mock.patch.object(expressions, "render_face", face),
        mock.patch.object(voices, "synthesise_voice", voice),
    ):
        settings = preparation.PreparationSettings(takes=takes, crops=crops)
        preparation.prepare_corpus(name, None, settings)


def write_task(name: str, state: str, arguments: list[str], out: str = "", **fields) -> Task:
    """A task in any state, of no process."""
    e = Task(name, arguments, state=state, started=time.time(), beat=time.time(), **fields)
    tasks.folder().mkdir(parents=True, exist_ok=True)
    files.write_json(tasks.folder() / f"{name}.json", asdict(e))
    (tasks.folder() / f"{name}.out").write_text(out)
    return e


def page_markup(app: AppTest) -> str:
    """What a browser would take for Markdown or HTML."""
    kinds = ("markdown", "caption", "info", "warning", "error", "success", "html")
    return "\n".join(
        str(getattr(e, "value", "") or e.proto.body) for kind in kinds for e in app.get(kind)
    )


def progress_texts(app: AppTest) -> list[str]:
    return [e.proto.text for e in app.get("progress")]
