"""One run's voices for the faces of the gallery, with verdicts and distances, cached on disk."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from scipy.spatial.distance import cdist

from core import files
from core.evaluation import evaluator
from core.files import UserError
from core.inference.gallery.real_items import (
    ProgressCallback,
    RealItems,
    nearest_voices,
    no_progress,
)
from core.inference.generation import LoadedRun
from core.media.faces import alignment
from core.models import classifiers, gan, networks
from core.runs.directory import Run

CACHE_VERSION = 1  # part of a cache key; raised whenever the same run would give other arrays


@dataclass(frozen=True)
class GeneratedVoices:
    """One run's voices for the faces of `RealItems`, with verdicts and distances."""

    condition: str
    c: np.ndarray  # (n, K) condition of G, or (n, 0)
    y: np.ndarray  # (n, columns, bands) float16 in [-1, 1]
    Q: np.ndarray  # (n, K) Q's softmax
    scorer: np.ndarray  # (n, K) scorer's softmax
    near: np.ndarray  # (n,) row of `RealItems.trained`, the most similar voice; -1: none here
    near_db: np.ndarray  # (n,) dB to it; NaN: none here
    far: np.ndarray  # (n,) distance to the nearest real voice of the set in FID's features,


def load_generated_voices(
    opened: LoadedRun, r: RealItems, report: ProgressCallback = no_progress
) -> GeneratedVoices:
    """G's voices for the faces of `r`, as `evaluator.evaluate` samples them.

    Without faces the samples that come with the run are taken. The result is cached in
    `checkpoints/.cache/` where that is writable. Raises UserError if samples are missing.
    """
    path = opened.run.directory.parent / ".cache" / "gallery" / f"{opened.run.id}-{r.name}.npz"
    key = _cache_key(opened, r)
    try:
        stored = files.read_arrays(path)
        if str(stored.pop("key", "")) == key:
            return GeneratedVoices(opened.config.gan.condition, **stored)
    except Exception:  # missing or damaged: zip, zlib and NumPy's header raise many types
        pass
    found = compute_generated_voices(opened, r, report)
    arrays = {k: v for k, v in vars(found).items() if k != "condition"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_arrays(path, key=np.array(key), **arrays)
    except OSError:
        pass  # a read-only folder: the next visit computes again
    return found


def _cache_key(opened: LoadedRun, r: RealItems) -> str:
    """Digest of everything that decides the arrays."""
    seed = evaluator.seed_of(opened.config, "samples")
    found = hashlib.sha256(f"{CACHE_VERSION} {opened.run.id} {r.name} {seed}".encode())
    for name in ("G", "Q", "scorer"):
        found.update(opened.run.model_path(name).read_bytes())
    for a in (r.row, r.face, r.o, r.p, r.label, r.trained.y, r.voices.y):
        found.update(np.ascontiguousarray(a).tobytes())
    return found.hexdigest()[:16]


@torch.no_grad()
def compute_generated_voices(
    opened: LoadedRun, r: RealItems, report: ProgressCallback
) -> GeneratedVoices:
    # Voices: sampled for the faces, or those that came with the run
    c, y = _sample_voices(opened, r, report) if len(r.face) else _kept_voices(opened.run, r)
    # Verdicts of Q and the scorer
    report(0.3, "Asking Q and the scorer")
    Q, S = (cast(networks.Classifier, network) for network in (opened.Q, opened.scorer))
    images = torch.from_numpy(y.astype(np.float32))[:, None]
    scorer, features = classifiers.outputs(S, images)
    # Distances to the training voices, and to the set's real voices in FID's features
    near, near_db, far = np.full(len(r), -1), np.full(len(r), np.nan), np.full(len(r), np.nan)
    if len(r.trained.y):
        later = lambda share, words: report(0.4 + 0.6 * share, words)  # noqa: E731
        range_db = opened.config.logmel.range_db
        near, near_db = nearest_voices(y.astype(np.float32), r.trained.y, range_db, later)
    if len(r.voices.y) > 1:
        own = classifiers.outputs(S, torch.from_numpy(r.voices.y)[:, None])[1]
        among = np.sort(cdist(own, own), axis=1)[:, 1]
        far = cdist(features, own).min(axis=1) / max(float(np.median(among)), 1e-9)
    heard = classifiers.softmax(Q, images).astype(np.float32)
    condition = opened.config.gan.condition
    return GeneratedVoices(condition, c, y, heard, scorer.astype(np.float32), near, near_db, far)


def _kept_voices(run: Run, r: RealItems) -> tuple[np.ndarray, np.ndarray]:
    """Conditions and voices of `r` among the samples that come with the run."""
    stored = run.arrays("generated")
    at = {int(row): i for i, row in enumerate(stored.get("row", []))}
    if set(r.row.tolist()) - set(at):
        raise UserError(
            f"{run.id}: generated.npz lacks samples that its sibling runs have; restore the run"
        )
    pick = [at[row] for row in r.row.tolist()]
    return stored["c"][pick], stored["y"][pick]


def _sample_voices(
    opened: LoadedRun, r: RealItems, report: ProgressCallback
) -> tuple[np.ndarray, np.ndarray]:
    """Conditions (n, K), and `gan.sample` for them: (n, columns, bands) float16.

    It samples from a copy of G, whose forward hook reports the progress.
    """
    G, g, done = copy.deepcopy(opened.G), opened.config.gan, 0
    labels = r.label if g.condition == "label" else None
    c = gan.condition(g.condition, labels, r.o, r.p, len(opened.classes), g.soft)

    def count(_, inputs, __) -> None:
        nonlocal done
        done += len(inputs[0])
        words = f"Drawing voices, condition {g.condition}: {done} of {len(r)}"
        report(0.3 * (done / len(r)), words)

    G.register_forward_hook(count)
    x = torch.from_numpy(alignment.to_unit(r.face))[:, None]
    rows, seed = torch.from_numpy(c.astype(np.float32)), evaluator.seed_of(opened.config, "samples")
    y = gan.sample(G, x, rows, g.z, seed, batch=32)[:, 0].numpy().astype(np.float16)
    return c, y
