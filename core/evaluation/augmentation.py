"""§4.2's first metric: a table of training sets of a finished run, under both step rules.

Only the classifiers of the rows are trained. S2's voices select a row's best step; S4's voices are
scored once per row and rule. A `TableKind` names the rows: here §4.2's, and in `few_labels` those
of the experiment with few labels.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from core import files
from core.config.settings import PROTOCOL_VERSION, Config
from core.config.settings import ClassifierSettings as Settings
from core.data import splits
from core.evaluation import metrics, protocol, results, significance
from core.evaluation.evaluator import Parts, augmentation_parts, join_parts, target_settings
from core.evaluation.quality import image_tensor, load_sets, seed_of
from core.models import classifiers, networks
from core.runs.directory import Run

MAX_SHIFT_AND_MASK = 1 / 8  # largest shift, and mask, as a share of the columns (bands)
NOISE_SD = 0.05  # of plain augmentation's Gaussian noise, in units of scaled spectrograms
LEFT_OUT_REASONS = {  # by TableRow.plain
    False: "pseudo-labels need clips that hold a face and a voice",
    True: "plain augmentation is made for voices",
}


@dataclass(frozen=True)
class TableSettings:
    """Number and length of the trainings of each row."""

    seeds: int = 3  # trainings of each row; each draws its own generated samples
    stretch: int = 3  # longest training in multiples of f_t.steps, the rule of equal steps
    looks: int = 4  # validations on S2's voices per f_t.steps
    stem: ClassVar[str] = "table"  # of the table's files in a run


@dataclass(frozen=True)
class Material:
    """What a finished run's rows are made of, on the device."""

    config: Config
    sets: dict[str, splits.SampleSet]
    c: dict[str, np.ndarray]  # conditions of S3 and S4
    arrays: Mapping[str, np.ndarray]  # outputs.npz
    networks: Mapping[str, Any]  # f_S, Q, G, scorer
    device: torch.device


@dataclass(frozen=True)
class TableKind:
    """Which rows a table has, of which parts, and which of them its tests compare."""

    stem: str  # of its two files in a run, <stem>.json and <stem>.npz
    title: str
    rows: tuple[protocol.TableRow, ...]
    parts: Callable[[Material, int, Any], Parts]  # (material, draw, plan)
    comparisons: significance.Comparisons
    reason: Callable[[protocol.TableRow], str]  # why a row is left out
    # (material, plan, parts of draw 0) -> further content of <stem>.json
    facts: Callable[[Material, Any, Parts], dict] = lambda *a: {}


def _augmentation_parts(m: Material, draw: int, plan: Any) -> Parts:
    n = m.networks
    return augmentation_parts(m.config, m.sets, m.c, n["f_S"], n["Q"], n["G"], m.device, draw)


AUGMENTATION = TableKind(
    "table",
    "augmentation table",
    protocol.TABLE_ROWS,
    _augmentation_parts,
    significance.AUGMENTATION,
    lambda row: LEFT_OUT_REASONS[row.plain],
)


def plain_augmentation(y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Plain augmentation of voices (B, 1, columns, bands), drawn for each (Park et al. 2019).

    A circular time shift of up to an eighth, Gaussian noise of sd 0.05, and silence (-1) over up to
    an eighth of the columns and of the bands.
    """
    n, _, columns, bands = y.shape
    unit = torch.rand((5, n, 1), generator=generator, device=y.device)
    time, band = torch.arange(columns, device=y.device), torch.arange(bands, device=y.device)
    shift = ((2 * unit[0] - 1) * MAX_SHIFT_AND_MASK * columns).round().long()
    rows = (time + shift) % columns  # (B, columns)
    y = y.gather(2, rows[:, None, :, None].expand_as(y))
    y = y + NOISE_SD * torch.randn(y.shape, generator=generator, device=y.device)
    quiet_time = (time - unit[1] * columns) % columns < unit[2] * columns * MAX_SHIFT_AND_MASK
    quiet_band = (band - unit[3] * bands) % bands < unit[4] * bands * MAX_SHIFT_AND_MASK
    return y.masked_fill((quiet_time[:, :, None] | quiet_band[:, None, :])[:, None], -1.0)


def predict_classes(network: networks.Classifier, y: torch.Tensor) -> np.ndarray:
    """Classes (n,) int8 of voices, predicted in evaluation mode; training mode is restored."""
    network.eval()
    guesses = classifiers.softmax(network, y).argmax(axis=1).astype(np.int8)
    network.train()
    return guesses


def validation_steps(settings: Settings, plan: TableSettings) -> list[int]:
    """Steps at which S2's voices are scored, `settings.steps` among them; the last is the end."""
    looks = range(1, plan.stretch * plan.looks + 1)
    return sorted({max(1, round(k * settings.steps / plan.looks)) for k in looks})


def compute_table(
    run: Run,
    plan: Any = None,
    device: str = "cpu",
    tick: Callable[[str, int, int, str], None] = lambda *a: None,
    should_stop: Callable[[], bool] = lambda: False,
    kind: TableKind = AUGMENTATION,
) -> dict:
    """Compute a finished run's table of a kind; write its json and its npz.

    `plan` are the kind's settings, TableSettings by default.

    Returns the json's content; a table of the same plan is returned as it is, its tests computed
    again if they follow an earlier rule. Each trained row is cached beside the runs: a stopped
    table continues, and the runs of a fold share the rows without generated samples. Raises
    UserError for an unfinished run or a changed corpus, and files.StopRequested when `should_stop`
    returns true.
    """
    plan = plan or TableSettings()
    found = run.json(kind.stem)
    if found.get("plan") == asdict(plan) and (run.directory / f"{kind.stem}.npz").exists():
        return found if results.is_current(found) else _test_again(run, found, kind)
    config, where = run.config, torch.device(device)
    if config.data.listening:
        raise files.UserError(
            f"{run.id} is a listening run, with which no augmentation is measured"
        )
    sets, c = load_sets(run, config)
    loaded = {n: networks.load(run.model_path(n), where) for n in ("f_S", "Q", "G", "scorer")}
    material = Material(config, sets, c, run.arrays(), loaded, where)

    # S2's balanced voices validate, all of S4's are predicted
    marks, S2 = validation_steps(target_settings(config)[0], plan), sets["S2"]
    rows2 = splits.balanced_rows(S2.y_label, seed_of(config, "balance"))
    voices2 = image_tensor(S2.y[rows2], where), S2.y_label[rows2]
    voices4 = image_tensor(sets["S4"].y, where)

    scored = (*voices2, voices4)
    first = kind.parts(material, 0, plan)  # once: a flow takes minutes for them
    trained, sizes = _train_rows(run, kind, plan, marks, scored, material, first, tick, should_stop)
    facts = kind.facts(material, plan, first)
    return _write_table(run, kind, plan, marks, trained, sizes, material, facts)


def _train_rows(
    run: Run,
    kind: TableKind,
    plan: Any,
    marks: list[int],
    scored: tuple,
    material: Material,
    first: Parts,
    tick: Callable[[str, int, int, str], None],
    should_stop: Callable[[], bool],
) -> tuple[dict[str, list[dict[str, np.ndarray]]], dict[str, int]]:
    """Each row trained once per seed, side by side, and the rows' sizes without repetitions of S1.

    `scored`: voices and labels of S2, voices of S4; `first`: the parts of draw 0.
    """
    config, (settings, role) = material.config, target_settings(material.config)
    cache, K = run.directory.parent / ".cache", len(config.data.classes)
    trained: dict[str, list[dict[str, np.ndarray]]] = {}  # row -> a training per seed
    sizes: dict[str, int] = {}
    total, done, guard = plan.seeds * len(kind.rows), list[str](), threading.Lock()

    def train(row: protocol.TableRow, arrays: tuple, seed: int) -> dict[str, np.ndarray]:
        with guard:
            tick(kind.title, len(done), total, row.name)
        job = settings, role, K, seed, marks, row.plain
        out = _train_cached(cache, arrays, job, should_stop)
        with guard:
            done.append(row.name)
        return out

    for k in range(plan.seeds):
        parts = kind.parts(material, k, plan) if k else first
        seed = seed_of(config, "rows") + 10 * k
        data = join_parts(parts, kind.rows, getattr(plan, "own_share", 0.0))
        sizes = {name: len(row[1]) for name, row in join_parts(parts, kind.rows).items()}
        rows = [r for r in kind.rows if r.name in data and not (r.plain and role == "face")]
        done += [r.name for r in kind.rows if r not in rows]
        tasks = [functools.partial(train, r, (*data[r.name], *scored), seed) for r in rows]
        for row, out in zip(rows, classifiers.side_by_side(tasks, material.device), strict=True):
            trained.setdefault(row.name, []).append(out)
    tick(kind.title, total, total, "")
    return trained, sizes


Job = tuple[Settings, str, int, int, list[int], bool]  # settings, modality, K, seed, marks, plain


def _train_cached(
    cache: Path, arrays: tuple, job: Job, should_stop: Callable[[], bool]
) -> dict[str, np.ndarray]:
    """`_train_row`, or its result in `cache`, in a file named by the hash of its inputs."""
    device = arrays[0].device.type
    key = [asdict(job[0]), *job[1:], device, torch.__version__, PROTOCOL_VERSION]
    digest = hashlib.sha256(json.dumps(key).encode())
    for a in arrays:
        digest.update(np.ascontiguousarray(a.cpu().numpy() if torch.is_tensor(a) else a).data)
    file = cache / f"row-{digest.hexdigest()[:24]}.npz"
    with contextlib.suppress(OSError, ValueError, EOFError, zipfile.BadZipFile):
        return files.read_arrays(file)
    found = _train_row(arrays, *job, should_stop)
    cache.mkdir(exist_ok=True)
    files.write_arrays(file, **found)
    return found


def _train_row(
    arrays: tuple,
    settings: Settings,
    role: str,
    K: int,
    seed: int,
    marks: list[int],
    plain: bool,
    should_stop: Callable[[], bool],
) -> dict[str, np.ndarray]:
    """One training of a row, a function of its arguments alone.

    `arrays`: voices and labels of the row, voices and labels of S2, voices of S4. Returns S2
    (marks,), the accuracy on S2's voices at the marks; equal and best (n,) int8, the classes of
    S4's voices after `settings.steps` steps and at the best mark (the earliest of equals).
    """
    y, labels, y2, l2, y4 = arrays
    random = torch.Generator(y.device).manual_seed(seed + 2)
    change = functools.partial(plain_augmentation, generator=random) if plain else None
    curve, best, equal = list[float](), dict[str, torch.Tensor](), None
    for step, network, _ in classifiers.training_steps(
        y, labels, settings, K, seed, role, marks[-1], change
    ):
        if should_stop():
            raise files.StopRequested(
                "the table was stopped; the same command continues with the next row"
            )
        if step in marks:
            curve.append(float((predict_classes(network, y2) == l2).mean()))
            if curve[-1] > max(curve[:-1], default=-1.0):
                best = copy.deepcopy(network.state_dict())
        if step == settings.steps:
            equal = predict_classes(network, y4)
    network.load_state_dict(best)
    assert equal is not None
    return {"S2": np.array(curve), "equal": equal, "best": predict_classes(network, y4)}


def _test_again(run: Run, found: dict, kind: TableKind) -> dict:
    """Write a table with its gains tested under the present rules; no row is trained."""
    gains = _tests(run.arrays(kind.stem), kind)
    found |= {"evaluation": results.EVALUATION_VERSION, "gains": gains}
    files.write_json(run.directory / f"{kind.stem}.json", found)
    return found


def _tests(arrays: dict[str, np.ndarray], kind: TableKind) -> list[dict]:
    return [asdict(g) for g in significance.gains([arrays], kind.comparisons)]


def _write_table(
    run: Run,
    kind: TableKind,
    plan: Any,
    marks: list[int],
    trained: dict[str, list[dict[str, np.ndarray]]],
    sizes: dict[str, int],
    material: Material,
    facts: dict,
) -> dict:
    """Write the table's npz and json; return the latter's content: accuracies, steps and tests.

    The npz: rows (r,), names; predicted (r, 2 rules, seeds, n) int8, classes of S4's n voices;
    S2 (r, seeds, marks), accuracy on S2's voices at the steps `marks` (marks,), of which `equal` is
    the common one; label, subject, row (n,), the voice's place in S4; counted (n,) bool, the
    class-balanced subsample on which every accuracy is computed.
    """
    config, S4 = material.config, material.sets["S4"]
    counted = np.zeros(len(S4.y), bool)
    counted[splits.balanced_rows(S4.y_label, seed_of(config, "balance"))] = True
    rules = significance.STEP_RULES
    predicted = [[[one[rule] for one in t] for rule in rules] for t in trained.values()]
    arrays = {
        "rows": np.array(list(trained)),
        "predicted": np.array(predicted, np.int8),
        "S2": np.array([[one["S2"] for one in t] for t in trained.values()]),
        "marks": np.array(marks),
        "equal": np.array(target_settings(config)[0].steps),
        "label": S4.y_label,
        "subject": S4.y_subject,
        "row": np.arange(len(S4.y)),
        "counted": counted,
    }
    K = len(config.data.classes)
    rows = {
        name: {"N train": sizes[name]} | _row_results(arrays, i, K)
        for i, name in enumerate(trained)
    }
    missing = [row for row in kind.rows if row.name not in rows]
    result = facts | {
        "evaluation": results.EVALUATION_VERSION,
        "plan": asdict(plan),
        "labels": protocol.labels_mode(config),
        "classes": list(config.data.classes),
        "chance": 1 / K,
        "N test voices": int(counted.sum()),
        "test subjects": sorted(set(map(str, S4.y_subject[counted]))),
        "rows": rows,
        "left out": {row.name: kind.reason(row) for row in missing},
        "gains": _tests(arrays, kind),
    }
    files.write_arrays(run.directory / f"{kind.stem}.npz", **arrays)
    files.write_json(run.directory / f"{kind.stem}.json", result)
    return result


def _row_results(arrays: dict[str, np.ndarray], i: int, K: int) -> dict[str, dict]:
    """Row i by step rule: accuracies, steps and S2's accuracies per seed, summed confusion."""
    counted, marks, curves = arrays["counted"], arrays["marks"].tolist(), arrays["S2"][i]
    equal = np.full(len(curves), marks.index(arrays["equal"]))
    out = {}
    for r, (rule, at) in enumerate((("equal", equal), ("best", curves.argmax(axis=1)))):
        classes = arrays["predicted"][i, r][:, counted]
        matrices = [metrics.confusion(arrays["label"][counted], p, K) for p in classes]
        out[rule] = {
            "accuracy": [metrics.accuracy(m) for m in matrices],
            "steps": [marks[k] for k in at],
            "S2": [float(curve[k]) for curve, k in zip(curves, at, strict=True)],
            "confusion": np.sum(matrices, axis=0).tolist(),
        }
    return out
