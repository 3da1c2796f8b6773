"""§4.2's first metric in full: the augmentation table of a finished run, from its saved networks, under both step rules.

Nothing is trained again but the classifiers of the rows. S2's voices choose a row's best step; S4's are scored once for each row and rule.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from core import files
from core.config import PROTOCOL_VERSION, Config
from core.config import ClassifierSettings as Settings
from core.data import splits
from core.evaluation import metrics, protocol, significance
from core.evaluation.evaluator import (
    augmentation_parts,
    image_tensor,
    join_parts,
    seed_of,
    target_settings,
)
from core.models import classifiers, gan, networks
from core.runs import Run

MAX_SHIFT_AND_MASK = (
    1 / 8
)  # plain augmentation shifts and masks up to this share of the columns (and masks that of the bands)
LEFT_OUT_REASONS = {
    False: "pseudo-labels need clips that hold a face and a voice",
    True: "plain augmentation is made for voices",
}  # by Row.plain


@dataclass(frozen=True)
class TableSettings:
    """How often and how long each row is trained."""

    seeds: int = 3  # trainings of each row; each draws its own generated samples
    stretch: int = (
        3  # the longest training, in multiples of f_t.steps (which is the rule of equal steps)
    )
    looks: int = 4  # looks at S2's voices per f_t.steps


def plain_augmentation(y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Plain augmentation of voices (B, 1, columns, bands), drawn for each: a shift around the circle of time by up to an eighth, Gaussian
    noise of sd 0.05, and silence over up to an eighth of the columns and of the bands (Park et al. 2019)."""
    n, _, columns, bands = y.shape
    unit = torch.rand((5, n, 1), generator=generator, device=y.device)
    time, band = torch.arange(columns, device=y.device), torch.arange(bands, device=y.device)
    rows = (
        time + ((2 * unit[0] - 1) * MAX_SHIFT_AND_MASK * columns).round().long()
    ) % columns  # (B, columns)
    y = y.gather(2, rows[:, None, :, None].expand_as(y))
    y = y + 0.05 * torch.randn(y.shape, generator=generator, device=y.device)
    quiet_time = (time - unit[1] * columns) % columns < unit[2] * columns * MAX_SHIFT_AND_MASK
    quiet_band = (band - unit[3] * bands) % bands < unit[4] * bands * MAX_SHIFT_AND_MASK
    return y.masked_fill((quiet_time[:, :, None] | quiet_band[:, None, :])[:, None], -1.0)


def predict_classes(network: networks.Classifier, y: torch.Tensor) -> np.ndarray:
    """Classes (n,) that a network in training gives voices in evaluation mode; its mode is put back."""
    network.eval()
    guesses = classifiers.softmax(network, y).argmax(axis=1)
    network.train()
    return guesses


def validation_steps(settings: Settings, plan: TableSettings) -> list[int]:
    """The steps at which S2's voices are looked at, among them `settings.steps`; the last is the longest training."""
    return sorted(
        {
            max(1, round(k * settings.steps / plan.looks))
            for k in range(1, plan.stretch * plan.looks + 1)
        }
    )


def compute_table(
    run: Run,
    plan: TableSettings | None = None,
    device: str = "cpu",
    tick: Callable[[str, int, int, str], None] = lambda *a: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict:
    """Compute the augmentation table of a run that has its networks, write table.json and table.npz, return table.json's content.

    A table that is there and was made by the same plan is returned as it is. Each row is kept beside the runs as soon as it is trained: a
    table that was stopped goes on where it was, and rows without generated samples are shared by all runs of the fold. Raises ValueError
    where the run is not finished or its corpus is no longer the one at hand, runs.Stopped when `should_stop` answered true.
    """
    plan = plan or TableSettings()
    found = run.json("table")
    if found.get("plan") == asdict(plan) and (run.directory / "table.npz").exists():
        return found
    config = run.config
    sets, c = load_sets(run, config)
    where = torch.device(device)
    f_S, Q, G = (networks.load(run.model_path(n), where) for n in ("f_S", "Q", "G"))
    s, role = target_settings(config)
    K, marks = len(config.data.classes), validation_steps(s, plan)
    S2, S4 = sets["S2"], sets["S4"]
    rows2 = splits.balanced_rows(S2.y_label, seed_of(config, "balance"))
    y2, l2, y4 = image_tensor(S2.y[rows2], where), S2.y_label[rows2], image_tensor(S4.y, where)
    guesses: dict[
        str, list[tuple[np.ndarray, np.ndarray]]
    ] = {}  # row -> for each seed, S4's classes under both rules
    curves: dict[str, list[list[float]]] = {}
    sizes: dict[str, int] = {}
    total, done = plan.seeds * len(protocol.TABLE_ROWS), 0
    for k in range(plan.seeds):
        rows = join_parts(augmentation_parts(config, sets, c, f_S, Q, G, where, draw=k))
        for row in protocol.TABLE_ROWS:
            tick("augmentation table", done, total, row.name)
            done += 1
            if row.name not in rows or (row.plain and role == "face"):
                continue
            y, labels = rows[row.name]
            seed = seed_of(config, "rows") + 10 * k
            one = _train_row(
                run.directory.parent / ".cache",
                (y, labels, y2, l2, y4),
                s,
                role,
                K,
                seed,
                marks,
                row.plain,
                should_stop,
            )
            guesses.setdefault(row.name, []).append((one["equal"], one["best"]))
            curves.setdefault(row.name, []).append(one["S2"].tolist())
            sizes[row.name] = len(labels)
    tick("augmentation table", total, total, "")
    return _write_table(run, config, plan, marks, guesses, curves, sizes, S4)


def _train_row(
    cache: Path,
    arrays: tuple,
    s: Settings,
    role: str,
    K: int,
    seed: int,
    marks: list[int],
    change: bool,
    should_stop: Callable[[], bool],
) -> dict[str, np.ndarray]:
    """One training of a row: S2 (marks,), its accuracy on S2's voices; equal, best (n,) int8, what it takes S4's voices for at `s.steps`
    steps and at its best mark. `arrays`: the row's voices and labels, S2's voices and labels, S4's voices.

    It is a function of what it is given, so a file of `cache` named by the hash of all that holds the answer of an earlier call.
    """
    y, labels, y2, l2, y4 = arrays
    told = json.dumps(
        [
            asdict(s),
            role,
            K,
            seed,
            marks,
            change,
            y.device.type,
            torch.__version__,
            PROTOCOL_VERSION,
        ]
    )
    digest = hashlib.sha256(told.encode())
    for a in arrays:
        digest.update(np.ascontiguousarray(a.cpu().numpy() if torch.is_tensor(a) else a).data)
    file = cache / f"row-{digest.hexdigest()[:24]}.npz"
    with contextlib.suppress(OSError, ValueError, EOFError, zipfile.BadZipFile):
        return files.read_arrays(file)
    extra = torch.Generator(y.device).manual_seed(seed + 2)
    altered = functools.partial(plain_augmentation, generator=extra) if change else None
    curve, best, equal = list[float](), dict[str, torch.Tensor](), None
    for step, network, _ in classifiers.training_steps(
        y, labels, s, K, seed, role, marks[-1], altered
    ):
        if should_stop():
            raise files.StopRequested(
                "the augmentation table was stopped; the same command goes on with the next row"
            )
        if step in marks:
            curve.append(float((predict_classes(network, y2) == l2).mean()))
            if curve[-1] > max(curve[:-1], default=-1.0):  # of equals the earliest
                best = copy.deepcopy(network.state_dict())
        if step == s.steps:
            equal = predict_classes(network, y4).astype(np.int8)
    network.load_state_dict(best)
    assert equal is not None
    found = {
        "S2": np.array(curve),
        "equal": equal,
        "best": predict_classes(network, y4).astype(np.int8),
    }
    cache.mkdir(exist_ok=True)
    files.write_arrays(file, **found)
    return found


def load_sets(
    run: Run, config: Config
) -> tuple[dict[str, splits.SampleSet], dict[str, np.ndarray]]:
    """The sets of a run and the condition of S3's faces as the run stored it."""
    if not run.model_path("G").exists():
        command = f"python -m core train --config-file {run.directory}/config.json"
        raise ValueError(f"{run.id} has no generator yet; let its training finish: {command}")
    sets, out = splits.build_sets(config), run.arrays()
    digest, here = run.json("provenance").get("corpus"), splits.corpus_digest(config.data)
    if digest != here and not has_same_sets(run, config, sets, out):
        raise ValueError(
            f"{run.id} was trained on the corpus {digest} and {here} is prepared here; prepare that corpus again"
        )
    S3, g = sets["S3"], config.gan
    if len(out.get("o_S3", ())) != len(S3.x):
        raise ValueError(
            f"{run.directory / 'outputs.npz'} does not fit S3's {len(S3.x)} faces; train the run again"
        )
    labels = S3.x_label if g.condition == "label" else None
    return sets, {
        "S3": gan.condition(
            g.condition, labels, out["o_S3"], out["p_S3"], len(config.data.classes), g.soft
        )
    }


def has_same_sets(
    run: Run, config: Config, sets: dict[str, splits.SampleSet], out: dict[str, np.ndarray]
) -> bool:
    """Whether the sets here are those of a run whose corpora have another digest: prepared on another machine, the last bits differ.

    The same number of clips, dB reference and people in the same order, and the run's own networks say of them what they said then: f_S of
    S3's faces within 1e-3 of a probability, the scorer of S4's voices within a thousandth of what their IS is above 1.
    """
    now, then = splits.describe_corpora(config.data), run.json("corpus")
    if not all(splits.is_same_corpus(now[role], then[role]) for role in ("faces", "voices")):
        return False
    if not all(np.array_equal(sets[k].x_subject, out[f"subject_{k}"]) for k in ("S2", "S3", "S4")):
        return False

    def said(name: str, images: np.ndarray) -> np.ndarray:
        network = networks.load(run.model_path(name))
        assert isinstance(network, networks.Classifier)
        return classifiers.softmax(network, image_tensor(images, torch.device("cpu")))

    rows = splits.balanced_rows(sets["S4"].y_label, seed_of(config, "balance"))
    score, was = (
        metrics.inception_score(said("scorer", sets["S4"].y[rows])),
        run.json("results")["quality"]["IS real"],
    )
    return bool(
        np.abs(said("f_S", sets["S3"].x) - out["o_S3"]).max() < 1e-3
        and abs(score - was) < 1e-3 * (was - 1)
    )


def _write_table(
    run: Run,
    config: Config,
    plan: TableSettings,
    marks: list[int],
    guesses: dict,
    curves: dict,
    sizes: dict,
    S4: splits.SampleSet,
) -> dict:
    """What a table is on disk.

    table.npz: rows (r,) names; predicted (r, 2 rules, seeds, n) int8, classes of S4's n voices; S2 (r, seeds, marks), the accuracy
    on S2's voices at the steps `marks` (marks,), of which `equal` is the common one; label, subject, row (n,), the voice's place in S4;
    counted (n,) bool, the class-balanced subsample of which every accuracy speaks. table.json: the same as accuracies and tests.
    """
    counted = np.zeros(len(S4.y), bool)
    counted[splits.balanced_rows(S4.y_label, seed_of(config, "balance"))] = True
    equal = target_settings(config)[0].steps
    names, at = list(guesses), marks.index(equal)
    arrays = {
        "rows": np.array(names),
        "predicted": np.stack(
            [np.stack([np.stack(s) for s in guesses[n]], axis=1) for n in names]
        ).astype(np.int8),
        "S2": np.array([curves[n] for n in names]),
        "marks": np.array(marks),
        "equal": np.array(equal),
        "label": S4.y_label,
        "subject": S4.y_subject,
        "row": np.arange(len(S4.y)),
        "counted": counted,
    }
    K, out = len(config.data.classes), {}
    for i, name in enumerate(names):
        best = arrays["S2"][i].argmax(axis=1)
        out[name] = {"N train": sizes[name]}
        for r, (rule, where) in enumerate((("equal", np.full(plan.seeds, at)), ("best", best))):
            matrices = [
                metrics.confusion(S4.y_label[counted], g[counted], K)
                for g in arrays["predicted"][i, r]
            ]
            out[name][rule] = {
                "accuracy": [metrics.accuracy(m) for m in matrices],
                "steps": [marks[w] for w in where],
                "S2": [float(arrays["S2"][i, k, w]) for k, w in enumerate(where)],
                "confusion": np.sum(matrices, axis=0).tolist(),
            }
    result = {
        "plan": asdict(plan),
        "labels": protocol.labels_mode(config),
        "classes": list(config.data.classes),
        "chance": 1 / K,
        "N test voices": int(counted.sum()),
        "test subjects": sorted(set(map(str, S4.y_subject[counted]))),
        "rows": out,
        "left out": {
            r.name: LEFT_OUT_REASONS[r.plain] for r in protocol.TABLE_ROWS if r.name not in out
        },
        "gains": [asdict(g) for g in significance.gains([arrays])],
    }
    files.write_arrays(run.directory / "table.npz", **arrays)
    files.write_json(run.directory / "table.json", result)
    return result
