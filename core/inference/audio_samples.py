"""Examples to listen to: for each emotion of the runs that came with the project a voice by each condition, and a real one beside them.

Each by the vocoder and by plain Griffin-Lim, with how well the sound carries its spectrogram and what the scorer hears in both. The wavs
and their index lie in `checkpoints/examples/`. Nothing is picked: a run's first kept sample of each emotion (`examples.load_face_example`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from core import files, runs
from core.config import CONDITIONS, family_hash
from core.inference import examples, gallery, generation
from core.inference.generation import LoadedRun
from core.media import spectrograms, vocoder
from core.runs import Run

FOLDER, INDEX = "examples", "index.json"
NOISE_SEED = 0  # of the sounds' noise
INVERSIONS = {"vocoder": False, "griffin-lim": True}  # name -> whether it is the plain way
ProgressCallback = Callable[[int, int], None]  # done, of how many


@dataclass(frozen=True)
class AudioSample:
    """One wav of the collection."""

    run: str  # id
    name: str  # of the run's family
    condition: str  # "" for a real voice
    emotion: str  # of the face, and of the real voice
    what: Literal["real", "generated"]
    way: str  # one of WAYS
    seed: int
    file: str  # in the folder
    gain_db: float  # <= 0: what it was turned down by
    correlation: float  # of the spectrogram with the sound analysed again
    error_db: float  # mean absolute error of the same
    heard: dict[str, float]  # the scorer's softmax of the spectrogram
    heard_again: dict[str, float]  # and of the sound analysed again


def folder() -> Path:
    return files.checkpoints_folder() / FOLDER


def resolve_runs(names: Sequence[str] = ()) -> list[Run]:
    """The runs that names mean, with their siblings of other conditions; without a name the finished ones from faces to voices that came
    with the project. Raises KeyError for a name that no run has, and ValueError where no run came."""
    if names:
        return list(
            {
                r.id: r for name in names for r in generation.siblings(runs.resolve(name)).values()
            }.values()
        )
    runs.index_existing()
    found = [
        Run(files.checkpoints_folder() / r["run"])
        for r in runs.list_runs()
        if r["state"] == "done" and r["shipped"]
    ]
    found = [r for r in found if r.config.gan.direction == "face-voice"]
    if not found:
        where = files.checkpoints_folder()
        raise files.UserError(
            f"no shipped run is in {where}; restore checkpoints/, or name a run: python -m core examples --run NAME"
        )
    return sorted(found, key=lambda r: (r.config.name, CONDITIONS.index(r.config.gan.condition)))


def write_samples(
    of_runs: Sequence[Run], into: Path | None = None, tick: ProgressCallback | None = None
) -> list[AudioSample]:
    """Makes the wavs of these runs and writes them into the index, last of all; what it says of other runs stays.

    A real voice stands beside the voices of a family once for each emotion: the same clip's where a clip holds both, else the first of
    that emotion in S4; none where its corpus is not on this machine. Raises ValueError where a run has kept no sample.
    """
    into = into or folder()
    into.mkdir(parents=True, exist_ok=True)
    pieces: list[AudioSample] = []
    done, of, families = 0, sum(len(r.config.data.classes) for r in of_runs), set()
    for run in of_runs:
        opened, first = generation.load_run(run), family_hash(run.config) not in families
        families.add(family_hash(run.config))
        ways = [
            way
            for way, plain in INVERSIONS.items()
            if plain or vocoder.has_network(run.config.logmel)
        ]
        voices = gallery.load_real_voices(run) if first else gallery.RealVoices()
        for emotion in opened.classes:
            one = examples.load_face_example(run, emotion)
            same = np.nonzero(voices.label == opened.classes.index(emotion))[0]
            real = (
                one.real
                if first and one.real is not None
                else voices.y[same[0]]
                if len(same)
                else None
            )
            for what, y in (("real", real), ("generated", one.y)):
                if y is not None:
                    pieces += [_write_sample(opened, emotion, what, way, y, into) for way in ways]  # type: ignore[arg-type]
            done += 1
            if tick:
                tick(done, of)
    before, made = read(into), {r.id for r in of_runs}
    index = [p for p in before if p.run not in made] + pieces
    files.write_json(into / INDEX, [asdict(p) for p in index])
    for old in {p.file for p in before} - {p.file for p in index}:
        (into / old).unlink(missing_ok=True)
    return pieces


def _write_sample(
    opened: LoadedRun,
    emotion: str,
    what: Literal["real", "generated"],
    way: str,
    y: np.ndarray,
    into: Path,
) -> AudioSample:
    s, run, condition = (
        opened.config.logmel,
        opened.run,
        opened.config.gan.condition if what == "generated" else "",
    )
    words = (
        spectrograms.GENERATED_COMMENT if what == "generated" else spectrograms.RESYNTHESIS_COMMENT
    )
    sound = generation.to_audio(opened, y, NOISE_SEED, f"{emotion}: {words}", INVERSIONS[way])
    again = spectrograms.scale(
        spectrograms.log_mel(sound.wave, s) - sound.gain_db, opened.ref_db, s
    )
    o = generation.classify_samples(opened, np.stack([y, again]))["scorer"]
    file = f"{run.id}-{emotion}-{what}-{way}.wav"
    (into / file).write_bytes(sound.wav)
    heard, heard_again = (
        {k: round(float(v), 4) for k, v in zip(opened.classes, row, strict=True)} for row in o
    )
    figures = {
        "gain_db": round(sound.gain_db, 3),
        "correlation": round(sound.correlation, 5),
        "error_db": round(sound.error_db, 4),
    }
    return AudioSample(
        run.id,
        opened.config.name,
        condition,
        emotion,
        what,
        way,
        NOISE_SEED,
        file,
        **figures,
        heard=heard,
        heard_again=heard_again,
    )


def read(where: Path | None = None) -> list[AudioSample]:
    """The collection that is here; [] where none was made, or its index is not whole. Only wavs of its own folder are in it."""
    where = where or folder()
    try:
        pieces = [AudioSample(**p) for p in json.loads((where / INDEX).read_text())]
        return [
            p
            for p in pieces
            if Path(p.file).name == p.file
            and (where / p.file).suffix == ".wav"
            and (where / p.file).is_file()
        ]
    except (OSError, ValueError, TypeError):
        return []


def table(pieces: Sequence[AudioSample]) -> str:
    """How well the sounds carry their spectrograms, by family, kind and way, as Markdown."""
    lines = [
        "| runs | what | way | N | analysed again, dB | scorer: the emotion, in the spectrogram | in the sound |",
        "|" + "---|" * 7,
    ]
    for name, what, way in dict.fromkeys((p.name, p.what, p.way) for p in pieces):
        some = [p for p in pieces if (p.name, p.what, p.way) == (name, what, way)]
        error, right = (
            np.mean([p.error_db for p in some]),
            [np.mean([_best(h) == p.emotion for h, p in zip(hs, some)]) for hs in _heard(some)],
        )
        lines.append(
            f"| {name} | {what} | {way} | {len(some)} | {error:.2f} | {right[0]:.0%} | {right[1]:.0%} |"
        )
    return "\n".join(lines)


def _heard(some: Sequence[AudioSample]) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    return [p.heard for p in some], [p.heard_again for p in some]


def _best(heard: dict[str, float]) -> str:
    return max(heard, key=heard.__getitem__)
