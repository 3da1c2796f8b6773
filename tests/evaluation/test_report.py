"""§4.5-4.6: grids of samples, confusion, raters, TensorBoard export, commands of each figure."""

import json
import os
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from core.config.settings import LogMel, replace
from core.data import prepared_corpora, splits
from core.evaluation import protocol
from core.evaluation.protocol import REVERSE_CASE, Cell
from core.evaluation.reporting import figures, report, tables
from core.evaluation.reporting.figures import SampleRow
from core.experiments import pipeline
from core.inference import export
from core.runs import store
from tests.support import noise_corpora, trained_runs

SMALL = replace(
    trained_runs.TINY_CONFIG,
    name="small",
    f_t={"channels": (4, 8), "batch": 16},
    gan={"generator": "encdec", "width": "compact", "steps": 2, "batch": 16, "z": 8},
    evaluate={"every": 2, "rows": ("S1", "S1 + generated")},
)
CASES = {c.name: c for c in protocol.cases(SMALL)}
NAMES = (
    "EncDec · CP",
    "EncDec · label",
    "28×28 · CP",
    "20% of the target data · CP",
    "100% of the target data · CP",
    REVERSE_CASE,
)
CELLS = [CASES[n] for n in NAMES]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Finished runs of some cases on a corpus of noise, in a home of this module's own."""
    root = tmp_path_factory.mktemp("world")
    with mock.patch.dict(os.environ, trained_runs.home_environment(root)):
        trained_runs.prepare_noise_demo()
        for cell in CELLS:
            pipeline.run(cell.config, device="cpu")
        yield root


@pytest.fixture(scope="module")
def found(world):
    return report.finished_runs(CELLS)[0]


def test_runs_are_reported_where_their_corpus_is_absent(world, found, tmp_path, monkeypatch):
    """As for runs that were trained on another machine and copied here without the corpus."""
    monkeypatch.setenv("DACSSGAN_DATA", str(tmp_path / "empty"))
    again, missing = report.finished_runs(CELLS)
    assert missing == []
    assert {k: [r.id for _, r in m] for k, m in again.items()} == {
        k: [r.id for _, r in m] for k, m in found.items()
    }
    other = replace(CELLS[0].config, seed=5)
    assert report.finished_runs([Cell("other", "–", other)])[0] == {}


def test_a_sheet_shows_the_same_faces_in_every_row(found):
    members = {k: found[k][0] for k in ("EncDec · label", "EncDec · CP")}
    rows = figures.sample_rows(members)
    assert [r.title for r in rows] == [
        "real face",
        "real voice",
        "EncDec · label:\ngenerated voice",
        "EncDec · CP:\ngenerated voice",
    ]
    S4 = splits.build_sets(CASES["EncDec · CP"].config)["S4"]
    kept = found["EncDec · CP"][0][1].arrays("generated")
    for k in range(6):
        place = int(np.nonzero((S4.x == rows[0].pictures[k]).all(axis=(1, 2)))[0][0])
        assert S4.x_label[place] == k
        assert np.array_equal(rows[1].pictures[k], S4.y[place])  # the voice of the same clip
        i = kept["row"].tolist().index(place)
        assert np.array_equal(rows[3].pictures[k], kept["y"][i].astype(np.float32))
    assert {r.ref_db for r in rows} == {
        found["EncDec · CP"][0][1].json("corpus")["voices"]["ref_db"]
    }


def test_the_reverse_sheet_and_one_without_the_corpus(found, monkeypatch):
    members = {REVERSE_CASE: found[REVERSE_CASE][0]}
    rows = figures.sample_rows(members)
    assert [r.title for r in rows] == [
        "real voice",
        "real face",
        f"{REVERSE_CASE}:\ngenerated face",
    ]
    assert {p.shape for p in rows[0].pictures} == {(112, 28)}
    assert {p.shape for r in rows[1:] for p in r.pictures} == {(28, 28)}
    monkeypatch.setattr(prepared_corpora, "corpus_digest", lambda data: "another")
    assert [r.face for r in figures.sample_rows(members)] == [True]


def test_shorter_spectrograms_are_narrower_on_one_axis():
    long, short = (np.zeros((n, 28), np.float32) for n in (112, 28))
    rows = [
        SampleRow("a:\ngenerated voice", [long, None], LogMel()),
        SampleRow("b:\ngenerated voice", [short, short], LogMel(columns=28)),
    ]
    axes = [
        ax
        for ax in figures.figure_samples(rows, ("sad", "angry")).axes
        if ax.get_xlim()[1] > 0.5 and ax.get_title() != "level, dB"
    ]
    spans = [ax.images[0].get_extent()[:2] for ax in axes[:4] if ax.images]
    assert np.allclose(
        spans, [(0, 1.008), (0.378, 0.63), (0.378, 0.63)]
    )  # the middle quarter of the second
    assert {ax.get_xlim() for ax in axes[:4]} == {(0.0, 112 * 144 / 16000)}
    assert [t.get_text() for t in axes[1].texts] == ["none stored"]
    assert axes[2].get_xlabel() == "time, s"
    assert "mel band" in axes[0].get_ylabel()


def test_confusions_stand_on_one_scale_and_differences_on_another(found):
    shown = {k: found[k] for k in ("EncDec · label", "EncDec · CP")}
    axes = figures.figure_8(shown).axes
    titles = [ax.get_title() for ax in axes]
    assert titles[:3] == [
        "baseline: S1",
        "EncDec · label: S1 + generated",
        "EncDec · CP: S1 + generated",
    ]
    assert {ax.images[0].get_clim() for ax in axes[:3]} == {(0.0, 100.0)}
    gaps = [ax for ax in axes if ax.get_title() == "minus the baseline"]
    assert {ax.images[0].get_clim() for ax in gaps} == {(-50.0, 50.0)}
    whole = [np.asarray(ax.images[0].get_array()) for ax in axes[:3]]
    for ax, m in zip(gaps, whole[1:], strict=True):
        assert np.allclose(np.asarray(ax.images[0].get_array()), m - whole[0])
        assert np.allclose(np.asarray(ax.images[0].get_array()).sum(axis=1), 0)


def test_people_are_asked_where_they_voted(world, found):
    cell = found["EncDec · CP"][0][0]
    assert figures.rater_shares(cell) is None
    assert tables.raters_text(cell) == ""
    noise_corpora.write_noise_corpus("rated", votes="sad")
    rated = Cell("rated", "–", replace(cell.config, data={"faces": "rated", "voices": "rated"}))
    m = figures.rater_shares(rated)
    assert m[:, cell.config.data.classes.index("sad")].tolist() == [1] * 6
    text = tables.raters_text(rated)
    assert text.count("| 16.7 |") == 3
    assert "| voice | 16.7 | 40.9 |" in text


def test_the_page_holds_every_figure_with_its_commands(found, tmp_path):
    path = report.write([*CELLS, CASES["no condition"]], tmp_path, "the sweep", "the report")
    text = path.read_text()
    assert f"Left out: {protocol.F_S_CORPUS_HINT}" in text
    assert "1 are not: no condition" in text
    heads = [line for line in text.splitlines() if line.startswith("## Figure")]
    assert [h.split(":")[0].removeprefix("## Figure ") for h in heads] == [
        "6",
        "6",
        "6",
        "7b",
        "8",
        "9",
        "10",
        "11",
        "11",
    ]
    assert text.count("Figure: `the report`. Runs: `python -m core train --config-file ") == len(
        heads
    )
    for name in (
        "fig6",
        "fig6-networks",
        "fig6-sizes",
        "fig7b",
        "fig8",
        "fig9",
        "fig10",
        "fig11",
        "fig11-sparsity",
    ):
        for kind in ("png", "pdf"):
            assert (tmp_path / f"{name}.{kind}").stat().st_size > 2000
            assert f"]({name}.png)" in text
    table = text.split("## Every case")[1].split("##")[0]
    turned = next(line for line in table.splitlines() if REVERSE_CASE in line)
    assert "(voices)" in turned
    assert "faces; 1 run" in turned
    assert "| baseline: S1 | " in text.split("## Table 1")[1]
    assert (
        REVERSE_CASE not in text.split("## Table 2")[1].split("## Figure")[0]
    )  # accuracies of faces stand in no table of voices


def test_only_the_reverse_case_is_a_report_too(found, tmp_path):
    text = report.write([CASES[REVERSE_CASE]], tmp_path, "the sweep", "the report").read_text()
    assert "## Figure 7b" in text
    assert "## Table 2" not in text
    assert {p.suffix for p in tmp_path.iterdir()} == {".md", ".png", ".pdf"}


def test_curves_and_samples_go_out_as_event_files(found, tmp_path):
    pytest.importorskip(
        "tensorboard",
        reason="TensorBoard is not installed: .venv/bin/python -m pip install tensorboard",
    )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = found["EncDec · CP"][0][1]
    for _ in range(2):  # a second export replaces the first
        folder = export.export_events(run, tmp_path / "events")
    assert len(list(folder.iterdir())) == 1
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()
    curves = store.load_curves(run.id)
    assert set(events.Tags()["scalars"]) == set(curves)
    for name, (steps, values) in curves.items():
        got = events.Scalars(name)
        assert [e.step for e in got] == steps
        assert [e.value for e in got] == pytest.approx(values, rel=1e-6)
    kept = sorted((run.directory / "samples").glob("step-*.npz"))
    assert [e.step for e in events.Images("samples")] == [int(p.stem.split("-")[1]) for p in kept]


def test_without_tensorboard_it_says_so(found, tmp_path, monkeypatch):
    run = found["EncDec · CP"][0][1]
    for name in [
        n for n in sys.modules if n.startswith(("tensorboard", "torch.utils.tensorboard"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(
        ValueError,
        match=r"TensorBoard, which is not installed.*pip install tensorboard.*--format csv",
    ):
        export.export_events(run, tmp_path / "events")
    assert not (tmp_path / "events").exists()


def test_the_command_line_takes_the_format_and_the_corpus(found, monkeypatch, capsys, tmp_path):
    from core.__main__ import main

    run = found["EncDec · CP"][0][1]
    assert main(["runs", "export", run.id, "--out", str(tmp_path / "c.csv")]) == 0
    assert (tmp_path / "c.csv").read_text().startswith("step,")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    assert (
        main(["runs", "export", run.id, "--format", "tensorboard", "--out", str(tmp_path / "t")])
        == 1
    )
    assert "pip install tensorboard" in capsys.readouterr().err
    assert json.loads((Path(run.directory) / "results.json").read_text())
