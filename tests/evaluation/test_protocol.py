"""The protocol: tests over subjects, the paper's cases, choice of rows, raters' confusion."""

import csv
import itertools
from dataclasses import replace as changed

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config.presets import DEMO, FER_RAVDESS, PAPER, RAVDESS
from core.config.serialisation import run_name
from core.config.settings import CREMA_EMOTIONS, Config, replace
from core.data import labels
from core.evaluation import metrics, protocol, significance
from core.paper import published
from tests.support import table_arrays

few = st.lists(st.integers(-4, 4), min_size=1, max_size=7).map(lambda d: np.array(d) / 8)


@given(few)
def test_the_sign_flip_test_is_brute_force(d):
    sums = [abs(np.dot(s, d)) for s in itertools.product((-1, 1), repeat=len(d))]
    p = np.mean([s >= abs(d.sum()) for s in sums])  # eighths are exact in binary
    assert significance.sign_flip_p_value(d) == p
    assert significance.sign_flip_p_value(-d) == p


def test_the_sign_flip_test_at_its_ends():
    assert significance.sign_flip_p_value(np.full(6, 0.1)) == 2 / 2**6
    assert significance.sign_flip_p_value(np.zeros(5)) == 1
    assert (
        significance.sign_flip_p_value(np.array([0.1, 0.2, -0.3])) == 1
    )  # a sum of 0 up to rounding
    for wrong in ([], [np.nan, 1.0], [[1.0]]):
        with pytest.raises(ValueError, match="differences"):
            significance.sign_flip_p_value(np.array(wrong))


def test_beyond_the_exact_count_the_draws_agree_and_never_say_zero():
    rng = np.random.default_rng(0)
    d = rng.normal(0.1, 1, 14)
    exact = significance.sign_flip_p_value(d)
    spread = (exact * (1 - exact) / 20_000) ** 0.5
    both = np.concatenate(
        [d, np.zeros(3)]
    )  # subjects without a difference change no sum, but make it a matter of draws
    assert significance.sign_flip_p_value(both, draws=20_000) == pytest.approx(
        exact, abs=5 * spread
    )
    assert significance.sign_flip_p_value(np.ones(20), draws=999) == 1 / 1000
    assert significance.sign_flip_p_value(both, seed=3) == significance.sign_flip_p_value(
        both, seed=3
    )


@pytest.mark.parametrize(("subjects", "draws"), [(7, 0), (18, 199)])
def test_under_the_null_p_is_super_uniform(subjects, draws):
    rng, n = np.random.default_rng(1), 1500
    p = np.array(
        [
            significance.sign_flip_p_value(rng.normal(size=subjects), draws or 1, seed=k)
            for k in range(n)
        ]
    )
    for level in (0.01, 0.05, 0.1, 0.3, 0.5):
        assert (p <= level).mean() <= level + 4 * (level * (1 - level) / n) ** 0.5
    assert (p <= 0.5).mean() > 0.4  # and it is no test that never rejects


def test_the_bootstrap_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    inside = []
    for k in range(300):
        low, high = significance.bootstrap_interval(rng.normal(0.3, 1, 25), draws=500, seed=k)
        inside.append(low <= 0.3 <= high)
    assert 0.88 <= np.mean(inside) <= 0.98
    assert significance.bootstrap_interval(np.full(4, 0.2)) == pytest.approx((0.2, 0.2))


def test_holm_by_hand():
    # sorted .01 .02 .03 .04 times 4 3 2 1 are .04 .06 .06 .04; none may fall below its predecessor
    assert significance.holm_p_values(np.array([0.03, 0.01, 0.04, 0.02])) == pytest.approx(
        [0.06, 0.04, 0.06, 0.06]
    )
    assert significance.holm_p_values(np.array([0.9, 0.8])) == pytest.approx([1, 1])
    assert len(significance.holm_p_values(np.array([]))) == 0


def test_subjects_weigh_the_same_however_many_clips_they_have():
    label, subject = np.array([0, 0, 0, 1]), np.array(["a", "a", "a", "b"])
    a, b = np.array([[0, 0, 0, 0], [0, 0, 0, 1]]), np.array([[1, 0, 0, 1]])
    names, d = significance.subject_differences(label, a, b, subject)
    assert names.tolist() == ["a", "b"]
    assert d == pytest.approx([1 / 3, -1 / 2])
    with pytest.raises(ValueError, match="one length"):
        significance.subject_differences(label[:3], a, b, subject)


def test_confusion_matrices_of_any_size_stand_on_one_scale():
    m = metrics.normalise_rows(np.array([[2, 2, 0], [0, 10, 0], [0, 0, 0]]))
    assert m.tolist() == [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 0]]


# ------------------------------------------------------------------ cases


@pytest.mark.parametrize("base", [DEMO, FER_RAVDESS, PAPER], ids=lambda b: b.name)
def test_the_papers_cases_are_differences_of_settings(base):
    cases = {c.name: c for c in protocol.cases(base)}
    assert len(cases) == len(protocol.cases(base))
    for kind, condition in itertools.product(
        published.PUBLISHED_TABLE_1, ("label", "classifier", "CP")
    ):
        assert f"{kind} · {condition}" in cases
    plain, bare = cases["EncDec · CP"].config, cases["EncDec without L1 · CP"].config
    assert replace(bare, gan={"l1": base.gan.l1}) == plain
    assert cases["20% of the target data · CP"].config.data.g_fraction == 0.2
    assert cases["20% of the classifier's voices · CP"].config.data.clf_fraction == 0.2
    assert cases["full CP"].config.conformal.kind == "full"
    assert [cases[f"{n}×28 · CP"].config.logmel.columns for n in (28, 56, 112)] == [28, 56, 112]
    assert {c.config.data.voices for c in cases.values()} == {base.data.voices}


def test_folds_and_seeds_multiply_and_every_run_is_another():
    cells = protocol.cells("studio", DEMO)
    assert len(cells) == 15
    assert len({run_name(c.config, "x") for c in cells}) == len({c.title for c in cells}) == 15
    assert len(protocol.cells("studio", DEMO, 2, 1)) == 2
    assert len(protocol.cells("paper", DEMO, 1)) == len(protocol.cases(DEMO))
    for folds, seeds in ((6, 1), (0, 1), (1, 0)):
        with pytest.raises(ValueError, match="folds must be 1 to 5"):
            protocol.cells("paper", DEMO, folds, seeds)
    quick = {c.name for c in protocol.cells("quick", DEMO)}
    assert {"EncDec · CP", "full CP"} <= quick
    assert max(c.config.gan.steps for c in protocol.cells("quick", PAPER)) < 10


def test_every_cell_that_the_paper_reports_is_a_cell_of_the_grid():
    bases = {"CREMA-D": PAPER, "RAVDESS": RAVDESS}
    grids = {corpus: protocol.cells("paper", base, 1) for corpus, base in bases.items()}
    for cell in published.PAPER_CELLS:
        assert cell.case in {c.name for c in grids[cell.corpus]}, cell
    # and of the corpora and modes that the paper has
    for corpus, cells in grids.items():
        assert {c.config.data.voices for c in cells} == {bases[corpus].data.voices}
        modes = {c.name: protocol.labels_mode(c.config) for c in cells}
        assert modes["EncDec · CP"] == modes["EncDec · classifier"] == "paper"
        assert modes["S3's labels unread · CP"] == "strict"
    tables = {c.where for c in published.PAPER_CELLS}
    assert {"Table 1", "Table 2", "Fig. 7b", "Fig. 9", "Fig. 10", "§4.6, Fig. 11"} <= tables
    assert {f"§4.{n}" for n in (3, 4, 6, 7)} <= {t.split(",")[0] for t in tables}


def test_conformal_kinds_directions_and_corpora_of_f_s_are_cells():
    cells = {c.name: c.config for c in protocol.cases(PAPER, "fer2013")}
    kinds = {c.conformal.kind for c in cells.values()}
    assert kinds == {"inductive", "head", "cross", "full"}
    assert cells["cross-conformal CP"].conformal.kind == "cross"
    for named, condition in (("label", "label"), ("classifier", "classifier"), ("CP", "cp")):
        turned = cells[f"voice → face · {named}"].gan
        assert (turned.direction, turned.condition) == ("voice-face", condition)
    assert cells["f_S of ravdess · CP"].data.f_s_corpus == "ravdess"
    assert cells["f_S of fer2013 · CP"].data.f_s_corpus == "fer2013"
    assert not any(c.config.data.f_s_corpus for c in protocol.cases(DEMO))


def test_cells_are_chosen_by_name_whatever_their_signs():
    chosen = protocol.cells("paper", DEMO, 2, names=["encdec cp", "U-Net · Label", "28x28 - cp"])
    assert [c.name for c in chosen[::2]] == ["EncDec · CP", "U-Net · label", "28×28 · CP"]
    assert len(chosen) == 6
    known = protocol.grid_cases("paper", DEMO)
    protocol.check_case_names(["EncDec · CP", "full cp"], known)
    with pytest.raises(ValueError, match=r"called EncDec, U-Net CP 2; it has: EncDec · label; "):
        protocol.check_case_names(["EncDec", "U-Net CP 2", "EncDec CP"], known)
    # a quick grid has every case, but trains few if none is named
    assert protocol.cells("quick", DEMO, names=["U-Net without source · label"])


def test_who_saw_the_labels_is_said():
    assert protocol.labels_mode(Config()) == "strict"
    assert protocol.labels_mode(replace(Config(), gan={"q_labels": "true"})) == "paper"
    assert "the label is the condition" in protocol.labels_mode(
        replace(Config(), gan={"condition": "label"})
    )
    assert "paired by emotion" in protocol.labels_mode(FER_RAVDESS)


# ------------------------------------------------------------------ gains


def test_rows_are_chosen_on_s2_and_never_on_s4():
    found = {
        (g.name, g.rule): g
        for g in significance.gains([table_arrays.a_table(table_arrays.RIGHT, table_arrays.ON_S2)])
    }
    for rule in significance.STEP_RULES:
        a = found["a", rule]
        assert a.rows == ("S1 + generated", "S1 + plain augmentation")
        assert a.difference == pytest.approx(0.1)
        assert a.interval == pytest.approx((0.1, 0.1))
        assert a.recovered == pytest.approx(0.1 / 0.4)
        assert a.p == a.adjusted == 2 / 2**8
        assert found["b", rule].difference == pytest.approx(0.1)
        later = [found[name, rule] for name in significance.SECONDARY_COMPARISONS]
        assert [g.p for g in later].count(1) == 1  # S1 + S3 + generated is as good as S1 + S3
        assert {g.adjusted for g in later} == {7 * 2 / 2**8, 1}
    assert significance.is_significant(list(found.values()), "a")
    assert not significance.is_significant(
        [g if g.rule == "best" else changed(g, adjusted=0.2) for g in found.values()], "a"
    )


def test_what_costs_recovers_nothing_of_the_way_to_the_ceiling():
    worse = dict(table_arrays.RIGHT) | {"S1 + generated": 0.2}
    a = next(
        g
        for g in significance.gains(
            [table_arrays.a_table(worse, dict(worse) | {"S1 oversampled": 0.1})]
        )
        if g.name == "a"
    )
    assert a.difference == pytest.approx(-0.2)
    assert a.recovered is None


def test_folds_bring_their_subjects_together_and_seeds_are_averaged():
    low = dict(table_arrays.RIGHT) | {"S1 + generated": 0.3}
    tables = [
        table_arrays.a_table(table_arrays.RIGHT, table_arrays.ON_S2, 4),
        table_arrays.a_table(low, table_arrays.ON_S2, 4),
        table_arrays.a_table(table_arrays.RIGHT, table_arrays.ON_S2, 4, first=4),
    ]
    of, rows = significance.comparison_differences(tables, ("S1 + generated",), ("S1",), "equal")
    assert list(of.values()) == pytest.approx(
        [0.1] * 4 + [0.2] * 4
    )  # the first four were tested by two runs
    assert rows == ("S1 + generated", "S1")
    gone = table_arrays.a_table(
        {k: v for k, v in table_arrays.RIGHT.items() if "pseudo" not in k}, table_arrays.ON_S2
    )
    assert "pseudo-labels" not in {g.name for g in significance.gains([gone])}


def test_two_methods_meet_on_the_same_voices_alone():
    """One method is better by 0.2 in one row; a fold that only one method has is left out."""
    worse = dict(table_arrays.RIGHT) | {"S1 + generated": 0.3}
    ours = [
        table_arrays.a_table(table_arrays.RIGHT, table_arrays.ON_S2, 4),
        table_arrays.a_table(table_arrays.RIGHT, table_arrays.ON_S2, 4, first=4),
        table_arrays.a_table(table_arrays.RIGHT, table_arrays.ON_S2, 4, first=8),
    ]
    theirs = [
        table_arrays.a_table(worse, table_arrays.ON_S2, 4, first=4),
        table_arrays.a_table(worse, table_arrays.ON_S2, 4),
    ]  # in another order
    found = {(g.name, g.rule): g for g in significance.method_gains(ours, theirs)}
    assert set(found) == {
        (n, r) for n in significance.COMPARABLE_ROWS for r in significance.STEP_RULES
    }
    for rule in significance.STEP_RULES:
        better = found["S1 + generated", rule]
        assert better.difference == pytest.approx(0.2)
        assert better.subjects == 8
        assert better.p == 2 / 2**8
        assert better.adjusted == 3 * 2 / 2**8
        assert found["generated only", rule].difference == 0
        assert found["generated only", rule].p == 1
    assert significance.method_gains(ours[2:], theirs) == []


# ------------------------------------------------------------------ people


def test_raters_ties_count_in_parts_and_strangers_not_at_all():
    emotion = np.array(["sad", "sad", "angry", "angry", "calm", "sad"])
    votes = np.array(["sad", "angry|sad", "angry", "", "sad", "calm"])
    assert metrics.rater_confusion(emotion, votes, ("angry", "sad")).tolist() == [
        [1, 0],
        [0.5, 1.5],
    ]


def test_people_hear_crema_d_as_its_authors_counted(shared_data):
    """Winning votes of all 7,442 clips: neutral is best, and more match than single ratings do."""
    with open(shared_data / "crema-d" / "metadata" / "summaryTable.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    meant = np.array([labels.emotion_of(r["FileName"].split("_")[2]) for r in rows])
    said = {
        k: metrics.rater_confusion(
            meant, np.array([labels.parse_vote(r[k]) for r in rows]), CREMA_EMOTIONS
        )
        for k in ("VoiceVote", "FaceVote")
    }
    assert said["VoiceVote"].sum() == pytest.approx(7442)
    right = {k: np.trace(m) / m.sum() for k, m in said.items()}
    assert 0.409 < right["VoiceVote"] < 0.5 < right["FaceVote"] < 0.75
    assert np.diag(metrics.normalise_rows(said["VoiceVote"])).argmax() == CREMA_EMOTIONS.index(
        "neutral"
    )
