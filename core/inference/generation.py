"""A loaded run: analyse a clip, explain a face, generate, classify, make audible.

The page and `python -m core generate` call the same functions with the same seed, so they give the
same spectrogram. An example with a shipped run and a face of the demo corpus:

    >>> from core import files
    >>> from core.data.demo import actors, expressions
    >>> opened = load_run(Run(files.ROOT / "checkpoints" / "demo-cp-87b4dc5a"))
    >>> picture, points = expressions.render_face(actors.list_takes(1)[0])
    >>> face = alignment.align(picture, points)
    >>> explanation = explain_face(opened, face)
    >>> c, words = condition_of(opened, explanation)
    >>> opened.classes[explanation.prediction], words
    ('neutral', 'the conformal p-values')
    >>> y = generate_voices(opened, face, c, seed=0)
    >>> y.shape, classify_samples(opened, y)["scorer"].shape
    ((1, 112, 28), (1, 6))
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from core.config.serialisation import family_hash
from core.config.settings import Config
from core.conformal import credibility, prediction, predictor
from core.conformal.credibility import CredibilityScale
from core.conformal.predictor import Predictor
from core.files import UserError
from core.media import clips, spectrograms, vocoder, waveforms
from core.media.faces import alignment, appearance, detection, tracking
from core.models import classifiers, gan, networks
from core.runs import store
from core.runs.directory import Run


@dataclass(frozen=True)
class LoadedRun:
    """A trained run in memory, on the CPU. Networks are read only, so visitors may share them."""

    run: Run
    config: Config
    G: torch.nn.Module
    f_S: torch.nn.Module
    Q: torch.nn.Module
    scorer: torch.nn.Module
    predictor: Predictor  # the run's own: its p-values are shown, and fed to G where c is p
    credibility: CredibilityScale  # the possible credibilities, and those of the test points
    ref_db: float  # dB that is scaled to 1
    level: float  # dB, median level of the corpus' voices, for uploads

    @property
    def classes(self) -> tuple[str, ...]:
        return self.config.data.classes


MOST_JUDGED = 25  # frames of a film; more do not change their mean


@dataclass(frozen=True)
class AnalysedClip:
    """A clip and one person's face in each frame; without a face, found = False and aligned = 0."""

    name: str
    times: np.ndarray  # (F,) seconds
    frames: np.ndarray  # (F, H, W, 3) uint8
    boxes: np.ndarray  # (F, 4) pixels, x0 y0 x1 y1; NaN where no face was found
    aligned: np.ndarray  # (F, 28, 28) uint8
    found: np.ndarray  # (F,) bool
    people: int  # number of people found
    waveform: np.ndarray | None  # (T,) float32 at 16 kHz
    notes: tuple[str, ...]
    middle: int  # index of the frame with a face nearest the middle of the sound, or of the clip


@dataclass(frozen=True)
class Explanation:
    """Output of f_S and of the conformal predictor for one face (reverse runs: voice), §3.1."""

    softmax: np.ndarray  # (K,) probabilities
    alpha: np.ndarray  # (K,) nonconformity of each label, Eq. (8)
    p: np.ndarray  # (K,) p-values, Eq. (9)
    prediction: int  # class with the highest p-value
    credibility: float  # highest p
    confidence: float  # 1 - second highest p
    features: np.ndarray  # (F,) whitened features of f_S, which the light head reads


@dataclass(frozen=True)
class Audio:
    """A spectrogram made audible."""

    wave: np.ndarray  # (samples,) float32
    gain_db: float  # that made it loud enough to play
    limit_db: float  # <= 0: the reduction in it that avoids clipping
    wav: bytes  # 16-bit file
    correlation: float  # between the spectrogram and the sound analysed again
    error_db: float  # mean absolute error between the same, dB


def load_run(run: Run) -> LoadedRun:
    """Load a finished run. Raises UserError that names what is missing, and what to do."""
    config = run.config
    corpus, outputs = run.json("corpus"), run.arrays()
    if not corpus or "o_S2" not in outputs or not run.model_path("G").exists():
        raise UserError(
            f"{run.id} has no trained generator yet; let its training finish, or choose another run"
        )
    fitted = predictor.of_run(run)
    return LoadedRun(
        run=run,
        config=config,
        **{name: networks.load(run.model_path(name)) for name in ("G", "f_S", "Q", "scorer")},
        predictor=fitted,
        credibility=credibility.scale(fitted, outputs.get("p_S4")),
        ref_db=corpus["voices"]["ref_db"],
        level=corpus["voices"]["level"],
    )


def siblings(run: Run) -> dict[str, Run]:
    """Finished runs that differ in the condition alone: condition -> run, this one included."""
    folder, own = run.directory.parent, family_hash(run.config)
    found: dict[str, Run] = {}
    for row in store.list_runs(folder):
        if row["state"] == "done" and row["name"] == run.config.name:
            other = Run(folder / row["run"])
            if family_hash(other.config) == own:
                found.setdefault(row["condition"], other)
    return found | {run.config.gan.condition: run}


def analyse_file(path: Path, person: int = 0, name: str | None = None) -> AnalysedClip:
    """Decode a clip or still, and align the face of one person in each frame.

    `person` counts from the largest face. Decoding happens in a child process with limits, as for
    every upload. Raises MediaError or NoFaceError.
    """
    last = tracking.track_file(path, name)
    return analyse_clip(last.clip, person, last.tracks)


def analyse_clip(
    clip: clips.Clip, person: int = 0, tracks: list[tracking.Track] | None = None
) -> AnalysedClip:
    """`analyse_file` for a decoded clip; `tracks` if its people are already known."""
    tracks = tracking.track_faces(clip.frames, clip.times) if tracks is None else tracks
    if not tracks:
        n = len(clip.frames)
        where = "it" if clip.is_still else f"{n} frame{'s' * (n != 1)}"
        what = "picture" if clip.is_still else "clip"
        raise detection.NoFaceError(
            f"{clip.name}: no face was found in {where}. Use a {what} where one "
            "face is seen from the front, well lit, at least a tenth of the picture high."
        )
    if not 0 <= person < len(tracks):
        several = f"{len(tracks)} people are" if len(tracks) > 1 else "one person is"
        what = f"{clip.name}: {several} seen, and none is number {person}"
        raise detection.NoFaceError(f"{what}; people are counted from 0, the largest face")
    track = tracks[person]
    # Bounding boxes of the landmarks
    boxes = np.full((len(clip.frames), 4), np.nan)
    points = track.points[track.found]
    boxes[track.found] = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    # The frame with a face nearest the middle
    seconds = len(clip.waveform) / clip.rate if clip.waveform is not None else float(clip.times[-1])
    distance = np.where(track.found, np.abs(clip.times - spectrograms.centre_time(seconds)), np.inf)
    notes, found = list(clip.notes), int(track.found.sum())
    if len(tracks) > 1:
        notes.append(
            f"{len(tracks)} faces were found; this is number {person + 1}, counted from the largest"
        )
    if not track.found.all():
        notes.append(f"a face was found in {found} of {len(track.found)} frames")
    middle = int(distance.argmin())
    face = detection.Face(track.points[middle], float(track.scores[middle]))
    notes += filter(None, appearance.describe(clip.frames[middle], [face]).split("; "))
    return AnalysedClip(
        name=clip.name,
        times=clip.times,
        frames=clip.frames,
        boxes=boxes,
        aligned=tracking.aligned_faces(clip.frames, track),
        found=track.found,
        people=len(tracks),
        waveform=clip.waveform,
        notes=tuple(notes),
        middle=middle,
    )


def judged_faces(seen: AnalysedClip, frame: int | None = None) -> np.ndarray:
    """The faces (m, 28, 28) uint8 whose mean says how a film looks, evenly from all its frames.

    With a frame, that one alone.
    """
    if frame is not None:
        return seen.aligned[[frame]]
    usable = np.nonzero(seen.found)[0]
    evenly = np.linspace(0, len(usable) - 1, min(len(usable), MOST_JUDGED)).round().astype(int)
    return seen.aligned[usable[evenly]]


def explain_film(opened: LoadedRun, faces: np.ndarray) -> Explanation:
    """`explain_face` of the mean over faces (m, 28, 28) uint8 of one person: softmax and features.

    The mean is ranked like one face. It is calmer than the single faces of calibration, so no error
    rate is promised for it, as for no upload.
    """
    _require_direction(opened, "face-voice")
    return _explanations(opened, faces_tensor(faces), is_one=True)[0]


def explain_face(opened: LoadedRun, face: np.ndarray) -> Explanation:
    """Softmax, nonconformity, p-values, credibility, confidence of a face (28, 28) uint8 (§3.1).

    Raises UserError for a run of the reverse direction, whose f_S classifies voices.
    """
    return explain_faces(opened, face[None])[0]


def explain_faces(opened: LoadedRun, aligned: np.ndarray) -> list[Explanation]:
    """`explain_face` for faces (n, 28, 28) uint8, in one call of f_S."""
    _require_direction(opened, "face-voice")
    return _explanations(opened, faces_tensor(aligned))


def explain_voice(opened: LoadedRun, y: np.ndarray) -> Explanation:
    """`explain_face` for the reverse direction (§4.5): of a spectrogram from `voice_spectrogram`.

    Raises UserError for a run that makes voices, or a spectrogram of another size than the run's.
    """
    return _explanations(opened, _voice_tensor(opened, y))[0]


def _explanations(opened: LoadedRun, x: torch.Tensor, is_one: bool = False) -> list[Explanation]:
    """By the run's own predictor, whatever its kind; `is_one`: of the mean over all x."""
    assert isinstance(opened.f_S, networks.AnyClassifier)
    f, (o, raw) = opened.predictor, classifiers.outputs(opened.f_S, x)
    if is_one and len(x) > 1:
        o, raw = o.mean(axis=0, keepdims=True), raw.mean(axis=0, keepdims=True)
    features = predictor.whiten(f.centre, f.scale, raw)
    p, alpha = predictor.rank(f, o, features)
    best = prediction.forced_prediction(p)
    sure = zip(prediction.credibility(p).tolist(), prediction.confidence(p).tolist())
    return [
        Explanation(o[i], alpha[i], p[i], int(best[i]), *numbers, features[i])
        for i, numbers in enumerate(sure)
    ]


def _require_direction(opened: LoadedRun, direction: str) -> None:
    """Raises UserError for a run of the other direction."""
    own = opened.config.gan.direction
    if own != direction:
        makes = {"face-voice": "voices from faces", "voice-face": "faces from voices"}
        raise UserError(
            f"{opened.run.id} makes {makes[own]}; this needs a run that makes {makes[direction]}: "
            f"python -m core train --preset demo --gan.direction {direction}"
        )


def _voice_tensor(opened: LoadedRun, y: np.ndarray) -> torch.Tensor:
    """(columns, bands) -> (1, 1, columns, bands) float32, the input of a reverse run.

    Raises UserError for another direction or size.
    """
    _require_direction(opened, "voice-face")
    size = (opened.config.logmel.columns, opened.config.logmel.bands)
    if np.shape(y) != size:
        found = "×".join(map(str, np.shape(y)))
        raise UserError(f"{opened.run.id} reads spectrograms of {size[0]}×{size[1]}, not {found}")
    return torch.from_numpy(np.ascontiguousarray(y, np.float32))[None, None]


def faces_tensor(aligned: np.ndarray) -> torch.Tensor:
    """(n, 28, 28) uint8 -> (n, 1, 28, 28) float32 in [-1, 1]."""
    return torch.from_numpy(alignment.to_unit(aligned))[:, None]


def condition_of(
    opened: LoadedRun, seen: Explanation, emotion: str | None = None
) -> tuple[np.ndarray, str]:
    """The condition c (K,) of this run's generator for a face, and its origin in words.

    The label condition without an emotion takes argmax f_S. Raises UserError for an emotion that
    the run does not know.
    """
    g, classes = opened.config.gan, opened.classes
    given = g.direction.split("-")[0]
    if emotion is not None and emotion not in classes:
        raise UserError(f"{emotion!r} is not an emotion of this run; it knows {', '.join(classes)}")
    k = classes.index(emotion) if emotion else int(seen.softmax.argmax())
    label, o, p = np.array([k]), seen.softmax[None], seen.p[None]
    c = gan.condition(g.condition, label, o, p, len(classes), g.soft)[0]
    if g.condition == "label":
        choice = f", the {given} classifier's first choice, since no emotion was named"
        return c, f"label: {classes[k]}{'' if emotion else choice}"
    names = {"classifier": f"the {given} classifier's softmax", "cp": "the conformal p-values"}
    return c, names.get(g.condition, f"no condition: {given} and noise alone")


def generate_voices(
    opened: LoadedRun, face: np.ndarray, c: np.ndarray, seed: int = 0, n: int = 1
) -> np.ndarray:
    """G(x|c, z) for n draws of z: (28, 28) uint8, (K,) -> (n, columns, bands) in [-1, 1].

    Raises UserError for a run of the reverse direction; `generate_face` is for those.
    """
    _require_direction(opened, "face-voice")
    return _sample(opened, faces_tensor(face[None]), c, seed, n)


def generate_face(
    opened: LoadedRun, y: np.ndarray, emotion: str | None = None, seed: int = 0
) -> np.ndarray:
    """The face (28, 28) uint8 for a spectrogram (columns, bands) in [-1, 1] (§4.5, Fig. 7b).

    `emotion` is for the label condition; without it the voice classifier's first choice is taken.
    Raises UserError for a run that makes voices, an unknown emotion, or another size.
    """
    c, _ = condition_of(opened, explain_voice(opened, y), emotion)
    return generate_faces(opened, y, c, seed)[0]


def generate_faces(
    opened: LoadedRun, y: np.ndarray, c: np.ndarray, seed: int = 0, n: int = 1
) -> np.ndarray:
    """`generate_face` for a condition c (K,) and n draws of z -> (n, 28, 28) uint8."""
    return alignment.to_uint8(_sample(opened, _voice_tensor(opened, y), c, seed, n))


@torch.no_grad()
def _sample(opened: LoadedRun, x: torch.Tensor, c: np.ndarray, seed: int, n: int) -> np.ndarray:
    """n samples of G for one source x (1, 1, …), z from `seed`."""
    rows = torch.from_numpy(np.asarray(c, np.float32)).expand(n, -1)
    z = opened.config.gan.z
    return gan.sample(opened.G, x.expand(n, -1, -1, -1), rows, z, seed)[:, 0].numpy()


@torch.no_grad()
def classify_samples(opened: LoadedRun, y: np.ndarray) -> dict[str, np.ndarray]:
    """Softmax (n, K) of Q and of the scorer, both trained on real voices, under their names.

    y are spectrograms (n, columns, bands); in a reverse run faces (n, 28, 28) in [-1, 1].
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
    """Wav of a spectrogram (columns, bands) of any length, with how well it carries y.

    Inverted by the vocoder with a seed, or by `plain` Griffin-Lim. The file's comment holds `what`
    it is, run, seed and settings; "" leaves it out.
    """
    s = opened.config.logmel
    wave, gain = vocoder.to_waveform(y, opened.ref_db, s, seed, plain)
    correlation, error = spectrograms.resynthesis_agreement(y, wave, opened.ref_db, s, float(gain))
    comment, way = "", vocoder.inversion_name(s, plain)
    if what:
        comment = waveforms.wav_comment(what, s, opened.run.id, seed, way)
    wav = waveforms.wav_bytes(wave, s.rate, comment)
    limit = gain - waveforms.play_gain_db(opened.ref_db)
    return Audio(wave, float(gain), float(limit), wav, correlation, error)


def voice_spectrogram(opened: LoadedRun, waveform: np.ndarray) -> tuple[np.ndarray, float]:
    """Middle of a clip's own voice as this run's networks would get it, and the gain in dB.

    Waveform (T,) -> (columns, bands) in [-1, 1]. Uploads are amplified until the window's level
    (99th percentile) is the corpus' median, by ±30 dB at most.
    """
    s = opened.config.logmel
    db = spectrograms.centre_crop(spectrograms.log_mel(waveform, s), s.columns)
    gain = spectrograms.upload_gain_db(db, opened.level)
    return spectrograms.scale(db + gain, opened.ref_db, s), gain
