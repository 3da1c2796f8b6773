"""One report over the paper's two corpora: both halves of Table 2, all of Table 1, all figures."""

import os
from unittest import mock

import pytest

from core import __main__ as command_line
from core.cli import grids
from core.config.presets import DEMO, PAPER, RAVDESS, STUDIO, with_method
from core.evaluation import comparison, protocol
from core.evaluation.reporting import report, tables
from core.experiments import pipeline
from core.paper import published
from tests.support import noise_corpora, trained_runs

pytestmark = pytest.mark.timeout(900)
WORDS = ("report", "--grid", "paper", "--preset", "paper", "ravdess", "--folds", "1")
SIZES = (  # of the smallest runs that go the whole way
    *("--gan.width", "compact", "--gan.steps", "2", "--gan.batch", "8", "--gan.z", "4"),
    *("--f-s.width", "compact", "--f-s.channels", "4", "4", "--f-s.steps", "2", "--f-s.batch", "8"),
    *("--f-t.width", "compact", "--f-t.channels", "4", "4", "--f-t.steps", "2", "--f-t.batch", "8"),
    *("--evaluate.every", "2", "--evaluate.rows", "S1", "S1 + generated"),
)
TABLE_1 = [f"{kind} · {c}" for kind in published.PUBLISHED_TABLE_1 for c in published.CONDITIONS]
BOTH = ("50% of the target data · CP", "100% of the target data · CP", "full CP", "inductive CP")
CREMA_ONLY = ("U-Net", "without", "28×28", "→")  # RAVDESS has no such cell in the paper
NAMES = (*TABLE_1, "28×28 · CP", *BOTH, protocol.REVERSE_CASE)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """report.md of quick runs on noise under the names of the two corpora, and its folder."""
    root = tmp_path_factory.mktemp("corpora")
    with mock.patch.dict(os.environ, trained_runs.home_environment(root)):
        for name in ("crema-d", "ravdess"):
            subjects = [f"{name} {k}" for k in range(10)]
            noise_corpora.write_noise_corpus(name, subjects=subjects, digest=f"{name} of noise")
        words = (*WORDS, *SIZES, "--out", str(root / "out"), "--cells", *NAMES)
        for cell in grids.grid_cells(command_line._parse(words)):
            if cell.config.data.voices == "crema-d" or not any(s in cell.name for s in CREMA_ONLY):
                pipeline.run(cell.config, device="cpu")
        assert command_line.main(words) == 0
        yield (root / "out" / "report.md").read_text(), root / "out"


def section(text, head):
    return text.split(f"## {head}")[1].split("\n## ")[0]


@pytest.mark.slow
def test_table_2_has_both_halves_beside_the_papers(text):
    head, _, *rows = [line for line in section(text[0], "Table 2").splitlines() if "|" in line]
    columns = [c.strip() for c in head.split("|")][1:-1]
    for corpus, source in ((c, s) for c in published.PUBLISHED_TABLE_2 for s in ("ours", "paper")):
        assert [c for c in columns if c.startswith(f"{corpus}, {source}")] == [
            f"{corpus}, {source}: {metric}" for metric in comparison.METRIC_LABELS.values()
        ]
    cells = {}
    for row in rows:
        name, *values = [c.strip() for c in row.split("|")][1:-1]
        cells |= {(name, c): v for c, v in zip(columns[1:], values, strict=True)}
    for corpus, table in published.PUBLISHED_TABLE_2.items():
        for name, printed in table.items():
            for metric, number in zip(comparison.METRIC_LABELS.values(), printed, strict=False):
                assert cells[name, f"{corpus}, paper: {metric}"] == f"{number:.2f}"
                assert float(cells[name, f"{corpus}, ours: {metric}"].split()[0]) >= 0


@pytest.mark.slow
def test_table_1_has_every_cell_and_unfinished_ones_are_named(text):
    for row in section(text[0], "Table 1, CREMA-D").split("| label |")[1].splitlines()[:3]:
        assert "–" not in row
    assert "RAVDESS, U-Net · label · fold 0 · seed 0" in text[0].split("##")[0]


@pytest.mark.slow
def test_every_figure_is_there_for_both_corpora(text):
    of = {"CREMA-D": "crema-d", "RAVDESS": "ravdess"}
    for corpus, end in of.items():
        for figure in ("fig6", "fig8", "fig9", "fig10", "fig11", "fig11-sparsity"):
            assert f"]({figure}-{end}.png)" in text[0]
            assert (text[1] / f"{figure}-{end}.pdf").stat().st_size > 2000
        for number in ("6", "8", "9", "10", "11"):
            assert f"## Figure {number}: " in text[0]
        assert f"## Figure 10: losses, {corpus}" in text[0]
        assert f"## Conformal prediction in classification, {corpus}" in text[0]
    assert "](fig7b-crema-d.png)" in text[0]
    assert "## Figure 9: spread over folds, CREMA-D and RAVDESS" in text[0]
    assert "](fig9.png)" in text[0]
    assert "Q is frozen" not in text[0]  # Fig. 10 is of a run that trains Q


@pytest.mark.slow
def test_the_report_says_whose_method_its_columns_are(text):
    rate = f"Adagrad at {published.GAN_RATE:g} for G"
    assert text[0].count(f"Method: the paper's method: {rate}") == 2
    assert "Q trained on S3 beside D, its target the true labels" in text[0]
    words = {
        "the paper's method: ": (PAPER, RAVDESS, with_method("paper", DEMO)),
        "the paper's method, S3's labels unread": (with_method("strict", PAPER),),
        "our method": (DEMO, STUDIO),
    }
    for named, configs in words.items():
        for config in configs:
            assert tables.describe_game(config).startswith(named)


def test_two_presets_of_one_corpus_share_no_column():
    cells = protocol.cells("paper", PAPER, 1) + protocol.cells("paper", STUDIO, 1)
    with pytest.raises(ValueError, match="two of the presets are of CREMA-D"):
        report.cells_by_corpus(cells)
