"""What pages and the command line may ask of a trained run: look at a clip, explain a face, generate, judge, sound.

The page and `python -m core generate` call the same functions with the same seed, so they give the same spectrogram.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from core import runs
from core.config import Config, family_hash
from core.conformal import prediction
from core.media import clips, spectrograms, vocoder, waveforms
from core.media.faces import detection, tracking
from core.models import gan, networks
from core.runs import Run


@dataclass(frozen=True)
class LoadedRun:
    """A trained run in memory, on the CPU. Networks are only read, so that visitors may share them."""

    run: Run
    config: Config
    G: torch.nn.Module
    f_S: torch.nn.Module
    Q: torch.nn.Module
    scorer: torch.nn.Module
    o_cal: np.ndarray  # (n, K) softmax of the calibration faces
    label_cal: np.ndarray  # (n,)
    ref_db: float
    level: float

    @property
    def classes(self) -> tuple[str, ...]:
        return self.config.data.classes


@dataclass(frozen=True)
class AnalysedClip:
    """A clip as the machine sees it. Frames without a face have found = False and an empty (zero) aligned face."""

    name: str
    times: np.ndarray  # (F,) seconds
    frames: np.ndarray  # (F, H, W, 3) uint8
    boxes: np.ndarray  # (F, 4) pixels, x0 y0 x1 y1; NaN where no face was found
    aligned: np.ndarray  # (F, 28, 28) uint8
    found: np.ndarray  # (F,) bool
    people: int
    waveform: np.ndarray | None  # (T,) float32 at 16 kHz
    notes: tuple[str, ...]
    middle: int  # index of the frame with a face that is nearest the middle of the sound (or of the clip)


@dataclass(frozen=True)
class Explanation:
    """What f_S and the conformal predictor say of one face (or, in a run of the reverse direction, of one voice), §3.1."""

    softmax: np.ndarray  # (K,) probabilities
    alpha: np.ndarray  # (K,) nonconformity of each label, Eq. (8)
    p: np.ndarray  # (K,) p-values, Eq. (9)
    prediction: int  # argmax of the p-values
    credibility: float  # highest p
    confidence: float  # 1 - second highest p


@dataclass(frozen=True)
class Audio:
    """A spectrogram made audible."""

    wave: np.ndarray  # (samples,) float32
    gain_db: float  # <= 0: what it was turned down by so that nothing clips
    wav: bytes  # 16-bit file
    correlation: float  # of the spectrogram with the sound analysed again
    error_db: float  # mean absolute error of the same, dB


def load_run(run: Run) -> LoadedRun:
    """Load a finished run. Raises ValueError naming the file that is missing or damaged, and what to do."""
    config = run.config
    corpus, outputs = run.json("corpus"), run.arrays()
    if not corpus or "o_S2" not in outputs or not run.model_path("G").exists():
        raise ValueError(
            f"{run.id} has no trained generator yet; let its training finish, or choose another run"
        )
    rows = outputs["calibration"]
    return LoadedRun(
        run=run,
        config=config,
        G=networks.load(run.model_path("G")),
        f_S=networks.load(run.model_path("f_S")),
        Q=networks.load(run.model_path("Q")),
        scorer=networks.load(run.model_path("scorer")),
        o_cal=outputs["o_S2"][rows],
        label_cal=outputs["label_S2"][rows],
        ref_db=corpus["voices"]["ref_db"],
        level=corpus["voices"]["level"],
    )


def siblings(run: Run) -> dict[str, Run]:
    """The finished runs that differ from this one in the condition alone: condition -> run, itself included."""
    folder, own = run.directory.parent, family_hash(run.config)
    found: dict[str, Run] = {}
    for row in runs.list_runs(folder):
        if row["state"] == "done" and row["name"] == run.config.name:
            other = Run(folder / row["run"])
            if family_hash(other.config) == own:
                found.setdefault(row["condition"], other)
    return found | {run.config.gan.condition: run}


def analyse_file(path: Path, person: int = 0, name: str | None = None) -> AnalysedClip:
    """Decode a clip or still and align the face of one person in each frame (the largest by default).

    It is decoded in a child process with limits, as every upload is. Raises MediaError or NoFaceError in words for the visitor.
    """
    *_, last = tracking.track_stream(path, name=name or path.name)
    assert isinstance(last, tracking.TrackedClip)
    return analyse_clip(last.clip, person, last.tracks)


def analyse_clip(
    clip: clips.Clip, person: int = 0, tracks: list[tracking.Track] | None = None
) -> AnalysedClip:
    """`analyse_file` for a clip that is already decoded; `tracks` where its people are already known."""
    tracks = tracking.track_faces(clip.frames, clip.times) if tracks is None else tracks
    if not tracks:
        raise detection.NoFaceError(
            f"{clip.name}: no face was found in {len(clip.frames)} frame(s). Use a clip where one face is seen from the front, well lit, "
            "at least a tenth of the picture high."
        )
    track = tracks[min(person, len(tracks) - 1)]
    aligned = tracking.aligned_faces(clip.frames, track)
    boxes = np.full((len(clip.frames), 4), np.nan)
    points = track.points[track.found]
    boxes[track.found] = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    seconds = len(clip.waveform) / clip.rate if clip.waveform is not None else float(clip.times[-1])
    distance = np.where(track.found, np.abs(clip.times - spectrograms.centre_time(seconds)), np.inf)
    notes = list(clip.notes)
    if len(tracks) > 1:
        notes.append(
            f"{len(tracks)} faces were found; this is number {min(person, len(tracks) - 1) + 1}, counted from the largest"
        )
    if not track.found.all():
        notes.append(f"a face was found in {int(track.found.sum())} of {len(track.found)} frames")
    return AnalysedClip(
        clip.name,
        clip.times,
        clip.frames,
        boxes,
        aligned,
        track.found,
        len(tracks),
        clip.waveform,
        tuple(notes),
        int(distance.argmin()),
    )


def explain_face(opened: LoadedRun, face: np.ndarray) -> Explanation:
    """f_S's softmax, nonconformity, p-values, credibility and confidence of one aligned face (28, 28) uint8 (§3.1).

    Raises ValueError for a run of the reverse direction, whose f_S knows voices.
    """
    _require_direction(opened, "face-voice")
    return _explanations(opened, face_tensor(face))[0]


def explain_faces(opened: LoadedRun, aligned: np.ndarray) -> list[Explanation]:
    """`explain_face` for faces (n, 28, 28) uint8, in one call of f_S."""
    _require_direction(opened, "face-voice")
    return _explanations(opened, torch.from_numpy(aligned.astype(np.float32) / 127.5 - 1)[:, None])


def explain_voice(opened: LoadedRun, y: np.ndarray) -> Explanation:
    """`explain_face` for a run of the reverse direction (§4.5): of one spectrogram (columns, bands) in [-1, 1], as `voice_spectrogram` makes them.

    Raises ValueError for a run that makes voices, and for a spectrogram of another size than the run's.
    """
    return _explanations(opened, _voice_tensor(opened, y))[0]


@torch.no_grad()
def _explanations(opened: LoadedRun, x: torch.Tensor) -> list[Explanation]:
    o = opened.f_S(x).double().softmax(dim=1).numpy()
    settings = opened.config.conformal
    p = prediction.inductive_p_values(
        opened.o_cal, opened.label_cal, o, settings.measure, settings.groups
    )
    alpha = prediction.nonconformity(o, settings.measure)
    best, credible, sure = (
        prediction.forced_prediction(p),
        prediction.credibility(p),
        prediction.confidence(p),
    )
    return [
        Explanation(o[i], alpha[i], p[i], int(best[i]), float(credible[i]), float(sure[i]))
        for i in range(len(o))
    ]


def _require_direction(opened: LoadedRun, direction: str) -> None:
    """Raises ValueError where a run goes the other way."""
    if opened.config.gan.direction != direction:
        makes = {"face-voice": "voices from faces", "voice-face": "faces from voices"}
        command = f"python -m core train --preset demo --gan.direction {direction}"
        raise ValueError(
            f"{opened.run.id} makes {makes[opened.config.gan.direction]}; this needs a run that makes {makes[direction]}: {command}"
        )


def _voice_tensor(opened: LoadedRun, y: np.ndarray) -> torch.Tensor:
    """(columns, bands) -> (1, 1, columns, bands) float32, of the size that a run of the reverse direction reads; ValueError otherwise."""
    _require_direction(opened, "voice-face")
    size = (opened.config.logmel.columns, opened.config.logmel.bands)
    if np.shape(y) != size:
        raise ValueError(
            f"{opened.run.id} reads spectrograms of {size[0]}×{size[1]}, not {'×'.join(map(str, np.shape(y)))}"
        )
    return torch.from_numpy(np.ascontiguousarray(y, np.float32))[None, None]


def face_tensor(face: np.ndarray) -> torch.Tensor:
    """(28, 28) uint8 -> (1, 1, 28, 28) float32 in [-1, 1]."""
    return torch.from_numpy(face.astype(np.float32) / 127.5 - 1)[None, None]


def condition_of(
    opened: LoadedRun, seen: Explanation, emotion: str | None = None
) -> tuple[np.ndarray, str]:
    """The condition c (K,) that this run's generator is given for a face, and a sentence that says where it came from.

    The label condition without an emotion takes argmax f_S. Raises ValueError for an emotion that the run does not know.
    """
    kind, classes = opened.config.gan.condition, opened.classes
    given = opened.config.gan.direction.split("-")[0]
    if emotion is not None and emotion not in classes:
        raise ValueError(
            f"{emotion!r} is not an emotion of this run; it knows {', '.join(classes)}"
        )
    k = classes.index(emotion) if emotion else int(seen.softmax.argmax())
    c = gan.condition(
        kind, np.array([k]), seen.softmax[None], seen.p[None], len(classes), opened.config.gan.soft
    )[0]
    if kind == "label":
        return c, f"label: {classes[k]}" + (
            ""
            if emotion
            else f", the {given} classifier's first choice, since no emotion was named"
        )
    names = {"classifier": f"the {given} classifier's softmax", "cp": "the conformal p-values"}
    return c, names.get(kind, f"no condition: {given} and noise alone")


@torch.no_grad()
def generate_voices(
    opened: LoadedRun, face: np.ndarray, c: np.ndarray, seed: int = 0, n: int = 1
) -> np.ndarray:
    """G(x|c, z) for n draws of z from `seed`: (28, 28) uint8, (K,) -> (n, columns, bands) float32 in [-1, 1].

    Raises ValueError for a run of the reverse direction; `generate_face` is for those.
    """
    _require_direction(opened, "face-voice")
    x = face_tensor(face).expand(n, -1, -1, -1)
    rows = torch.from_numpy(np.asarray(c, np.float32)).expand(n, -1)
    return gan.sample(opened.G, x, rows, opened.config.gan.z, seed)[:, 0].numpy()


def generate_face(
    opened: LoadedRun, y: np.ndarray, emotion: str | None = None, seed: int = 0
) -> np.ndarray:
    """The face that goes with a voice (§4.5, Fig. 7b): a spectrogram (columns, bands) in [-1, 1] and z from `seed` -> (28, 28) uint8.

    `emotion` is for the label condition; without it the voice classifier's first choice is taken. Raises ValueError for a run that makes
    voices, for an emotion that it does not know, and for a spectrogram of another size.
    """
    return generate_faces(
        opened, y, condition_of(opened, explain_voice(opened, y), emotion)[0], seed
    )[0]


@torch.no_grad()
def generate_faces(
    opened: LoadedRun, y: np.ndarray, c: np.ndarray, seed: int = 0, n: int = 1
) -> np.ndarray:
    """`generate_face` for a condition c (K,) and n draws of z from `seed`: (columns, bands) -> (n, 28, 28) uint8."""
    x = _voice_tensor(opened, y).expand(n, -1, -1, -1)
    rows = torch.from_numpy(np.asarray(c, np.float32)).expand(n, -1)
    made = gan.sample(opened.G, x, rows, opened.config.gan.z, seed)[:, 0]
    return ((made.clamp(-1, 1) + 1) * 127.5).round().numpy().astype(np.uint8)


@torch.no_grad()
def classify_samples(opened: LoadedRun, y: np.ndarray) -> dict[str, np.ndarray]:
    """What Q and the scorer, both trained on real voices, hear in spectrograms (n, columns, bands): name -> (n, K) softmax.

    In a run of the reverse direction they know faces, and are given (n, 28, 28) in [-1, 1].
    """
    images = torch.from_numpy(np.asarray(y, np.float32))[:, None]
    return {k: getattr(opened, k)(images).double().softmax(dim=1).numpy() for k in ("Q", "scorer")}


def by_class(opened: LoadedRun, values: np.ndarray) -> dict[str, float]:
    """Values (K,) under the names of their emotions, rounded to 6 digits, ready for json."""
    return {k: round(float(v), 6) for k, v in zip(opened.classes, values, strict=True)}


def to_audio(
    opened: LoadedRun,
    y: np.ndarray,
    seed: int = 0,
    what: str = spectrograms.GENERATED_COMMENT,
    plain: bool = False,
) -> Audio:
    """One spectrogram (columns, bands) of any length as a wav, by the vocoder (seeded) or plain Griffin-Lim, with how well it carries y.

    The file says `what` it is, and the run, seed and settings it comes from; with "" it says nothing.
    """
    s = opened.config.logmel
    wave, gain = vocoder.to_waveform(y, opened.ref_db, s, seed, plain)
    correlation, error = spectrograms.resynthesis_agreement(y, wave, opened.ref_db, s, float(gain))
    comment = (
        waveforms.wav_comment(what, s, opened.run.id, seed, vocoder.inversion_name(s, plain))
        if what
        else ""
    )
    return Audio(wave, float(gain), waveforms.wav_bytes(wave, s.rate, comment), correlation, error)


def voice_spectrogram(opened: LoadedRun, waveform: np.ndarray) -> tuple[np.ndarray, float]:
    """A clip's own voice as this run would see it: spectrogram (columns, bands) in [-1, 1], and the gain in dB that was applied.

    The rule for uploads: gain that lifts the window's level (99th percentile) to the corpus' median, within ±30 dB.
    """
    s = opened.config.logmel
    db = spectrograms.centre_crop(spectrograms.log_mel(waveform, s), s.columns)
    gain = spectrograms.upload_gain_db(db, opened.level)
    return spectrograms.scale(db + gain, opened.ref_db, s), gain
