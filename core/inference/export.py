"""Copies of a run to share: a small run with its model card, curves as CSV, TensorBoard events.

Scores, p-values, labels, weights and generated samples are in them. A few real voices join them
where their corpus allows that; a real picture never does.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np

from core import files
from core.config.serialisation import to_dict
from core.config.settings import Config
from core.conformal import credibility, predictor
from core.conformal.predictor import KIND_NAMES
from core.data import corpora, prepared_corpora
from core.evaluation import results, significance
from core.inference.gallery import real_items
from core.runs import store
from core.runs.directory import Run

COPIED_FILES = (
    *("config.json", "provenance.json", "corpus.json", "sets.json", "results.json"),
    *("outputs.npz", "metrics.jsonl"),
)
OPTIONAL_FILES = ("table.json", "table.npz", "ears.json")  # where the run has them
SAMPLES_PER_CLASS = 8  # generated samples of each emotion in the copy
COPIED_MODELS = ("G", "f_S", "Q", "scorer")
REVERSE_NOTE = (
    "\nIt goes the paper's other way (§4.5, Fig. 7b): its f_S knows voices, its Q and its scorer "
    "know faces."
)
LISTENING_NOTE = """

A listening run: its generator learnt from all people but S4's, so it is to be heard, and takes no
part in the experiments, whose generators learn from S3 alone. It augments no training set."""
FLOW_NOTE = """

It is trained by conditional flow matching, which is ours and not the paper's: no discriminator and
no class term took part. It samples in {0.heun_steps} Heun steps with guidance {0.guidance:g}, from
{0.noise_scale:g} times the noise of its training."""


def ship_run(run: Run, folder: Path) -> Path:
    """Copy what a visitor needs of a finished run to `folder`/RUN and write its CARD.md there.

    Weights without D and optimisers, results and some samples. Returns that directory. Raises
    UserError if the run is not finished.
    """
    if not run.json("results"):
        raise files.UserError(f"{run.id} is not finished; train it to the end first")
    target = folder / run.id
    (target / "models").mkdir(parents=True, exist_ok=True)
    (target / "samples").mkdir(exist_ok=True)
    if target.resolve() != run.directory.resolve():
        more = [n for n in OPTIONAL_FILES if (run.directory / n).exists()]
        for name in (*COPIED_FILES, *more):
            files.copy_atomic(run.directory / name, target / name)
        for name in COPIED_MODELS:
            files.copy_atomic(run.model_path(name), target / "models" / f"{name}.safetensors")
        grids = sorted((run.directory / "samples").glob("step-*.npz"))
        for path in dict.fromkeys(grids[:: max(1, len(grids) // 4)] + grids[-1:]):
            files.copy_atomic(path, target / "samples" / path.name)
        generated = run.arrays("generated")
        label = generated["label"]
        first = [np.nonzero(label == k)[0][:SAMPLES_PER_CLASS] for k in np.unique(label)]
        few = np.sort(np.concatenate(first))
        files.write_arrays(target / "generated.npz", **{k: v[few] for k, v in generated.items()})
    keep_real_voices(run, target)
    files.write_atomic(target / "CARD.md", model_card(Run(target)))
    store.register(Run(target))
    return target


def keep_real_voices(run: Run, folder: Path) -> None:
    """Put a few real voices of S4 into a run's copy, where the corpus is here and its terms allow.

    They stand beside generated ones on a machine without the corpus.
    """
    corpus = corpora.KNOWN_CORPORA.get(run.config.data.voices)
    if corpus is None or not corpus.is_shareable or run.config.gan.direction != "face-voice":
        return
    found = real_items.load_real_voices(run)
    if len(found.y):
        path = folder / f"{real_items.KEPT_FILE}.npz"
        files.write_arrays(path, **real_items.few_voices(found))


def model_card(run: Run) -> str:
    """The model card of a finished run: data and terms, figures, what it must not be used for."""
    c, r, digest = run.config, run.json("results"), run.json("provenance")["corpus"]
    turned = c.gan.direction == "voice-face"
    given, made = ("voice", "face") if turned else ("face", "voice")
    flow = FLOW_NOTE.format(c.gan) if c.gan.generator == "flow" else ""
    flow += LISTENING_NOTE if c.data.listening else ""
    title = f"""# {run.id}

A dacssGAN generator ({c.gan.generator}, {c.gan.width}, {r["parameters"]["G"]:,} parameters)
that makes {_purpose(c, given)}.{REVERSE_NOTE if turned else ""}{flow}
"""
    limit = (
        "the face is nobody's: it follows the emotion that the generator is told, and shows nothing"
        " of how a speaker looks"
        if turned
        else "it is not that person's voice: it was taught acted (or invented) emotions, and says"
        " at most scraps of the sentences of its corpus"
    )
    return f"""{title}
## Data and terms

{_data_and_terms(c, r, run, digest)}
## Figures

{_figures(c, r, run.json("table"), given, made)}
{_augmentation_item(run)}{_hearing_text(run)}
## What it must not be used for

It does not tell what a person feels, and {limit}.
Do not use it to judge, select, monitor or imitate people. Credibility and confidence \
hold for {given}s like those it
was calibrated on; an uploaded {given} is not one of them. {_credibility_text(run, given)}
"""


def _credibility_text(run: Run, given: str) -> str:
    """The possible credibilities of the predictor, and its promise where that is a weaker one."""
    f = predictor.of_run(run)
    s = credibility.scale(f, run.arrays().get("p_S4"))
    words = f"A credibility lies between {s.low:.2f} and {s.high:.0f} here"
    if len(s.usual):
        words += f" (median of the test {given}s {np.median(s.usual):.2f})"
    words += f": it measures indecision, not strangeness, by {f.name}."
    return f"{words} {predictor.CROSS_PROMISE}" if f.kind == "cross" else words


def _purpose(c: Config, given: str) -> str:
    """Output, input, noise and condition of the generator in words."""
    condition = {
        "label": "the emotion's label",
        "classifier": f"the {given} classifier's softmax",
        "cp": f"the p-values of {KIND_NAMES[c.conformal.kind]}",
        "none": "nothing",
    }[c.gan.condition]
    size = f"{c.logmel.columns}×{c.logmel.bands} log-mel spectrogram"
    output = (
        f"an aligned 28×28 face from the {size} of a voice"
        if c.gan.direction == "voice-face"
        else f"a {size} from an aligned 28×28 face"
    )
    return f"{output}, noise, and {condition}"


def _data_and_terms(c: Config, r: dict, run: Run, digest: str) -> str:
    """Sources and licences of the corpora, and the licence of the weights."""
    invented = prepared_corpora.is_demo(c.data.voices)
    terms = "\n".join(
        f"- {role}: {d['title']}; {d['clips']} clips; {d['licence']}; {d['source']}"
        for role, d in run.json("corpus").items()
    )
    kept = real_items.kept_voices(run)
    real = "no real picture or sound."
    if len(kept.y):
        d = run.json("corpus")["voices"]
        real = (
            f"{len(kept.y)} real spectrograms of S4's people "
            f"({', '.join(sorted(set(kept.subject.tolist())))}) from {d['title']} ({d['source']}), "
            f"unchanged but for scale and precision, under {d['licence']}; no real picture."
        )
    about = (
        "The faces are drawn and the voices synthesised by this project. No person is in the data."
        if invented
        else "Acted emotions of professional actors in a studio, and web pictures labelled by "
        "people with many mistakes."
    )
    pairing = (
        "Faces and voices are of the same clip."
        if c.data.pairing == "clip"
        else "Faces and voices are of different people and meet by their emotion's label, so every "
        "figure is label-supervised."
    )
    weights = (
        "MIT, as this project."
        if invented
        else "CC BY-NC-SA 4.0, as the voices they were trained on, and for research only, as the "
        "terms of the faces say."
    )
    actors = ", ".join(sorted({s for subjects in r["subjects"].values() for s in subjects}))
    return f"""{terms}

{about} {pairing} Subjects of the voices: {actors}. Corpus digest {digest}.

Licence of these weights: {weights} The folder holds weights, scores, p-values, \
labels and generated samples; {real}
"""


def _figures(c: Config, r: dict, table: dict, given: str, made: str) -> str:
    """Results of the run: accuracies of its rows, quality of the samples."""

    def q(name: str, digits: int = 2, scale: float = 1.0) -> str:
        return results.quality_text(r, name, digits, scale)

    accuracy = {row: results.row_accuracy(r, table, row) for row in results.row_names(r, table)}
    rows = "\n".join(
        f"| {row} | {results.row_size(r, table, row)} | {a.text} |" for row, a in accuracy.items()
    )
    note = results.withdrawal_note(r)
    return f"""Classes: {", ".join(r["classes"])} (chance {100 * r["chance"]:.1f} %). \
Labels: {r["labels"]}.
Seed {c.seed}, fold {c.data.fold}, {r["steps"]} steps: one generator; see LOG.md for folds.

| {made} classifier trained on | N | accuracy on S4's real {made}s at equal steps |
|---|---|---|
{rows}

Tested on {results.s4_text(r, table)}; ± is the sd over trainings of the classifier.

- {given} classifier on S4: {100 * r[given]["accuracy"]:.1f} % (N = {r[f"N test {given}s"]})
- FID {q("FID")} (two real sets: {q("FID real")}), \
KID {q("KID", 3)} (real {q("KID real", 3)}),
  IS {q("IS")} (real {q("IS real")}), N = {r["quality"]["N"]}, \
{r["quality"]["features"]} features, scorer {r["quality"]["scorer"]}.
  The two real sets are the {made}s of S3 and of S4, people whom the scorer has not met.
  Another scorer gives other figures: not comparable with the paper's.
- coverage {q("coverage")} (real {q("coverage real")}), density {q("density")}; \
the noise decides {q("diversity")} of how
  much real {made}s differ (0: one {made} for a {given})
- the scorer recognises {q("recognised", 1, 100)} % of the generated and \
{q("recognised real", 1, 100)} % of the real samples{note and f"{chr(10)}- {note}"}"""


def _hearing_text(run: Run) -> str:
    """The card's section on how the voices sound; "" where nobody has judged them."""
    ears, chance = run.json("ears"), 1 / len(run.config.data.classes)
    if not ears:
        return ""
    first, generated = list(ears.values())[0], list(ears.values())[-1]
    names, rows = list(first["scores"]), []
    for line, of in ears.items():
        cells = [" ± ".join(f"{v:.2f}" for v in of["scores"][k]) for k in names]
        rows.append(f"| {line} | {of['N']} | {' | '.join(cells)} |")
    moves = ", ".join(f"{k} {r:.2f}" for k, r in generated["correlation with the first"].items())
    counts = " and ".join(str(of.get("N acoustics", of["N"])) for of in (generated, first))
    table, acoustics = "\n".join(rows), ""
    if len(ears) > 1:  # without recordings the generated voices are the first line too
        acoustics = f"""
How each emotion differs from the mean over emotions, generated against real voices (N = {counts}),
correlation: {moves}.
"""
    return f"""
## How it sounds

Judged by networks that no one here trained (DNSMOS P.835 and P.808, Silero VAD) on seconds of
sound, and by two listeners that know S1's and S2's voices (share of emotions named right, chance
{chance:.2f}); mean ± standard error.

| sound | N | {" | ".join(names)} |
|{"---|" * (2 + len(names))}
{table}
{acoustics}"""


def _augmentation_item(run: Run) -> str:
    """The card's item on the augmentation table; "" if the run has none."""
    table = run.json("table")
    if not table:
        return ""
    words = {
        "a": "S1 + generated over the best row of S1",
        "b": "S1 + S3 + generated over the same with plain augmentation",
    }
    rules = {"equal": "at equal steps", "best": "each row at its own best steps"}
    lines = [
        f"- the whole augmentation table, {len(table['rows'])} rows with "
        f"{table['plan']['seeds']} trainings of each, is in table.json:"
    ]
    for g in significance.gains([run.arrays("table")]):
        if g.name in words:
            gain = significance.format_gain(g)
            lines.append(f"  - {words[g.name]}, {rules[g.rule]}: {gain}, p = {g.p:.2f}")
    return "\n".join(lines) + "\n"


def export_csv(run: Run, path: Path) -> Path:
    """Write a run's curves as CSV: a row per step, a column per curve, empty without a point.

    Raises UserError if the run has no curves yet.
    """
    curves = {name: dict(zip(*c, strict=True)) for name, c in _load_curves(run).items()}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["step", *curves])
    for step in sorted({s for c in curves.values() for s in c}):
        table.writerow([step, *(c.get(step, "") for c in curves.values())])
    files.write_atomic(path, text.getvalue())
    return path


def export_events(run: Run, folder: Path) -> Path:
    """Write a run's curves as scalars and its samples as images into a TensorBoard event file.

    Event files of an earlier export to the folder are replaced. View it with
    `tensorboard --logdir folder`. Raises UserError without curves or without TensorBoard.
    """
    curves = _load_curves(run)
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as e:
        raise files.UserError(
            f"event files need TensorBoard, which is not installed here ({e}): "
            ".venv/bin/python -m pip install tensorboard, or export the curves with --format csv"
        ) from e
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(folder)) as writer:
        for name, (steps, values) in curves.items():
            for step, v in zip(steps, values, strict=True):
                writer.add_scalar(name, v, step)
        for path in sorted((run.directory / "samples").glob("step-*.npz")):
            y = files.read_arrays(path)["y"].astype(np.float32)
            if run.config.gan.direction != "voice-face":  # time to the right, low bands below
                y = y.swapaxes(1, 2)[:, ::-1]
            picture = np.concatenate(list((y.clip(-1, 1) + 1) / 2), axis=1)
            writer.add_image("samples", picture, int(path.stem.split("-")[1]), dataformats="HW")
        config = json.dumps(to_dict(run.config), indent=1)
        writer.add_text("config", "    " + config.replace("\n", "\n    "))  # a Markdown code block
    return folder


def _load_curves(run: Run) -> dict[str, tuple[list[int], list[float]]]:
    store.index_existing(run.directory.parent)
    curves = store.load_curves(run.id, run.directory.parent)
    if not curves:
        raise files.UserError(
            f"{run.id} has no curves yet; wait until its training has begun, "
            "or rebuild the index: python -m core runs reindex"
        )
    return curves
