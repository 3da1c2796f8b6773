"""Wavs to listen to: for each emotion a voice by each condition, and a real one beside them.

Each spectrogram is inverted by the vocoder and by plain Griffin-Lim; a sample records how well the
sound carries its spectrogram and what the scorer hears in both. No cherry-picking: the first kept
sample of each emotion is taken (`examples.load_face_example`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from core import files
from core.config.serialisation import family_hash
from core.config.settings import CONDITIONS
from core.inference import examples, generation
from core.inference.gallery import real_items
from core.inference.generation import LoadedRun
from core.media import spectrograms, vocoder
from core.runs import store
from core.runs.directory import Run

NOISE_SEED = 0  # random seed of the vocoder's noise
INVERSIONS = {"vocoder": False, "griffin-lim": True}  # name -> whether it is plain Griffin-Lim
Kind = Literal["real", "generated"]
ProgressCallback = Callable[[int, int], None]  # (samples done, samples in all)


@dataclass(frozen=True)
class AudioSample:
    """One wav and how good it is."""

    run: str  # run id
    name: str  # name of the run's family
    condition: str  # "" for a real voice
    emotion: str  # class of the face, and of the real voice
    what: Kind
    way: str  # a key of INVERSIONS
    file: str  # file name in the folder
    gain_db: float  # that made it loud enough to play
    error_db: float  # mean absolute error between the spectrogram and the sound analysed again
    heard: dict[str, float]  # scorer's softmax of the spectrogram
    heard_again: dict[str, float]  # scorer's softmax of the sound analysed again


def folder() -> Path:
    """Default folder of the wavs."""
    return files.checkpoints_folder() / "examples"


def resolve_runs(names: Sequence[str] = ()) -> list[Run]:
    """Runs that are named, with their siblings; without a name the shipped face-to-voice runs.

    Raises UserError for a name that no run has, or if the project ships no run.
    """
    if names:
        found = [r for name in names for r in generation.siblings(store.resolve(name)).values()]
        return list({r.id: r for r in found}.values())
    where = files.checkpoints_folder()
    store.index_existing()
    rows = [r for r in store.list_runs() if r["state"] == "done" and r["shipped"]]
    found = [Run(where / r["run"]) for r in rows]
    found = [r for r in found if r.config.gan.direction == "face-voice"]
    if not found:
        raise files.UserError(
            f"no shipped run is in {where}; restore checkpoints/, or name a run: "
            "python -m core examples --run NAME"
        )
    return sorted(found, key=lambda r: (r.config.name, CONDITIONS.index(r.config.gan.condition)))


def write_samples(
    of_runs: Sequence[Run], into: Path | None = None, tick: ProgressCallback | None = None
) -> list[AudioSample]:
    """Write the wavs of these runs into a folder, and return what they hold.

    A family of runs has one real voice for each emotion: the same clip's where a clip holds face
    and voice, else the first of that emotion in S4; none where its corpus is not on this machine.
    Raises UserError if a run has kept no sample.
    """
    into = into or folder()
    into.mkdir(parents=True, exist_ok=True)
    samples: list[AudioSample] = []
    done, total = 0, sum(len(r.config.data.classes) for r in of_runs)
    families: set[str] = set()
    for run in of_runs:
        opened, is_first = generation.load_run(run), family_hash(run.config) not in families
        families.add(family_hash(run.config))
        ways = [w for w, p in INVERSIONS.items() if p or vocoder.has_network(run.config.logmel)]
        voices = real_items.load_real_voices(run) if is_first else real_items.NO_VOICES
        for emotion in opened.classes:
            example = examples.load_face_example(run, emotion)
            same = np.nonzero(voices.label == opened.classes.index(emotion))[0]
            real = example.real if is_first else None
            if real is None and len(same):
                real = voices.y[same[0]]
            spectra: list[tuple[Kind, np.ndarray]] = [("generated", example.y)]
            if real is not None:
                spectra.insert(0, ("real", real))
            samples += [
                _write_sample(opened, emotion, what, way, y, into)
                for what, y in spectra
                for way in ways
            ]
            done += 1
            if tick:
                tick(done, total)
    return samples


def _write_sample(
    opened: LoadedRun, emotion: str, what: Kind, way: str, y: np.ndarray, into: Path
) -> AudioSample:
    """Invert one spectrogram (columns, bands), write its wav, and measure it."""
    s, run = opened.config.logmel, opened.run
    generated = what == "generated"
    words = spectrograms.GENERATED_COMMENT if generated else spectrograms.RESYNTHESIS_COMMENT
    sound = generation.to_audio(opened, y, NOISE_SEED, f"{emotion}: {words}", INVERSIONS[way])
    again = spectrograms.log_mel(sound.wave, s) - sound.gain_db
    both = np.stack([y, spectrograms.scale(again, opened.ref_db, s)])
    heard, heard_again = generation.classify_samples(opened, both)["scorer"]
    file = f"{run.id}-{emotion}-{what}-{way}.wav"
    (into / file).write_bytes(sound.wav)
    return AudioSample(
        run.id,
        opened.config.name,
        opened.config.gan.condition if generated else "",
        emotion,
        what,
        way,
        file,
        gain_db=sound.gain_db,
        error_db=round(sound.error_db, 4),
        heard=generation.by_class(opened, heard),
        heard_again=generation.by_class(opened, heard_again),
    )


def table(samples: Sequence[AudioSample]) -> str:
    """Markdown table of how well sounds match their spectrograms, by family, kind, inversion."""
    lines = [
        "| runs | what | way | N | analysed again, dB | "
        "scorer: the emotion, in the spectrogram | in the sound |",
        "|" + "---|" * 7,
    ]
    for key in dict.fromkeys((s.name, s.what, s.way) for s in samples):
        group = [s for s in samples if (s.name, s.what, s.way) == key]
        error = np.mean([s.error_db for s in group])
        right, right_again = (
            np.mean([max(heard, key=heard.__getitem__) == s.emotion for s, heard in pairs])
            for pairs in ([(s, s.heard) for s in group], [(s, s.heard_again) for s in group])
        )
        cells = " | ".join(key)
        lines.append(f"| {cells} | {len(group)} | {error:.2f} | {right:.0%} | {right_again:.0%} |")
    return "\n".join(lines)
