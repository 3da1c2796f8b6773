"""§4.2: the augmentation table of a finished run, from its saved networks alone."""

import json
import shutil

import numpy as np
import pytest
import torch

from core import files
from core.config.settings import replace
from core.data import prepared_corpora, splits
from core.data.splits import SampleSet
from core.evaluation import augmentation, protocol, significance
from core.models import classifiers, gan
from core.runs import store
from tests.support.small_pipeline import TINY, weights

PLAN = augmentation.TableSettings(seeds=2, stretch=2, looks=2)


@pytest.fixture(scope="module")
def tabled(finished_run):
    before = weights(finished_run)
    made = augmentation.compute_table(finished_run, PLAN)
    assert weights(finished_run) == before
    return made


def test_every_row_stands_in_it_under_both_rules(finished_run, tabled):
    assert list(tabled["rows"]) == [r.name for r in protocol.TABLE_ROWS]
    assert tabled["labels"] == "strict"
    arrays, sets = finished_run.arrays("table"), splits.build_sets(TINY)
    assert arrays["label"].tolist() == sets["S4"].y_label.tolist()
    assert arrays["subject"].tolist() == sets["S4"].y_subject.tolist()
    counted = arrays["counted"]
    assert counted.sum() == tabled["N test voices"] == finished_run.json("results")["N test voices"]
    for i, (name, row) in enumerate(tabled["rows"].items()):
        assert row["equal"]["steps"] == [TINY.f_t.steps] * 2, name  # equal steps for all
        for k, rule in enumerate(significance.STEP_RULES):
            share = (arrays["predicted"][i, k][:, counted] == arrays["label"][counted]).mean(axis=1)
            assert row[rule]["accuracy"] == pytest.approx(share)
        for s, step in enumerate(row["best"]["steps"]):
            assert step == arrays["marks"][arrays["S2"][i, s].argmax()]
            assert row["best"]["S2"][s] >= row["equal"]["S2"][s]


def test_its_sizes_are_those_of_its_parts(tabled):
    n = {k: v["N train"] for k, v in tabled["rows"].items()}
    made = n["generated only"]
    assert (
        n["S1 oversampled"]
        == n["S1 + generated"]
        == n["S1 + generated + plain augmentation"]
        == n["S1"] + made
    )
    assert n["S1 + pseudo-labelled S3"] == n["S1 + S3"] == n["S1 + S3 + plain augmentation"]
    assert n["S1 + S3 + generated"] == n["S1 + S3"] + made


def test_its_first_seed_continues_the_runs_own_rows(finished_run, tabled):
    own = finished_run.json("results")["augmentation"]
    assert {r: tabled["rows"][r]["equal"]["accuracy"][0] for r in own} == {
        r: t["accuracy"] for r, t in own.items()
    }


def test_training_is_fit():
    rng = np.random.default_rng(0)
    y = torch.from_numpy(rng.uniform(-1, 1, (30, 1, 28, 28)).astype(np.float32))
    labels = torch.from_numpy(rng.integers(0, 3, 30))
    settings = replace(TINY, f_t={"steps": 4}).f_t
    fitted = classifiers.fit(y, labels, settings, 3, 5).state_dict()
    for step, network, _ in classifiers.training_steps(y, labels, settings, 3, 5, steps=6):
        augmentation.predict_classes(network, y)  # a look changes nothing
        if step == 4:
            assert all(torch.equal(v, fitted[k]) for k, v in network.state_dict().items())
    assert step == 6


def test_plain_augmentation_shifts_adds_noise_and_masks():
    y = torch.linspace(-0.9, 0.9, 112)[None, None, :, None].expand(64, 1, 112, 28).contiguous()
    a = augmentation.plain_augmentation(y, torch.Generator().manual_seed(0))
    assert a.shape == y.shape
    assert torch.equal(a, augmentation.plain_augmentation(y, torch.Generator().manual_seed(0)))
    silent = (a == -1).float()
    assert 0.02 < silent.mean() < 0.25
    assert (silent.mean(dim=(1, 2, 3)) <= 2 * augmentation.MAX_SHIFT_AND_MASK + 0.05).all()
    heard = torch.where(a == -1, torch.nan, a)
    start = heard[:, 0].nanmean(dim=2).nan_to_num(9).argmin(dim=1)  # where the ramp begins again
    shift = (start + 56) % 112 - 56
    assert shift.abs().max() <= 14 + 14  # a mask may hide the first columns
    assert shift.unique().numel() > 10


def test_s4_only_judges_and_s2_only_chooses(finished_run, tabled, tmp_path, monkeypatch):
    """Changing S4 changes no choice of steps; changing S3's labels changes no row without S3."""
    build = splits.build_sets

    def spoiled(config):
        sets = build(config)
        s, t = sets["S4"], sets["S3"]
        gone = np.full_like(t.y_label, -1)
        return sets | {
            "S4": SampleSet(-s.x, s.x_label, s.x_subject, -s.y, s.y_label, s.y_subject, s.paired),
            "S3": SampleSet(
                t.x, gone, t.x_subject, t.y, (t.y_label + 1) % 6, t.y_subject, t.paired
            ),
        }

    copy = store.Run(shutil.copytree(finished_run.directory, tmp_path / finished_run.id))
    (copy.directory / "table.json").unlink()
    monkeypatch.setattr(splits, "build_sets", spoiled)
    other = augmentation.compute_table(copy, PLAN)
    a, b = copy.arrays("table"), finished_run.arrays("table")
    blind = [i for i, r in enumerate(protocol.TABLE_ROWS) if "S3" not in r.parts]
    assert np.array_equal(a["S2"][blind], b["S2"][blind])
    assert not np.array_equal(a["S2"], b["S2"])  # the ceiling does read them
    assert not np.array_equal(a["predicted"], b["predicted"])
    assert other["rows"]["S1"]["best"]["steps"] == tabled["rows"]["S1"]["best"]["steps"]


def test_a_table_that_is_there_is_not_made_again(finished_run, tabled):
    stamp = (finished_run.directory / "table.npz").stat().st_mtime_ns
    assert augmentation.compute_table(finished_run, PLAN) == json.loads(json.dumps(tabled))
    assert (finished_run.directory / "table.npz").stat().st_mtime_ns == stamp


def test_it_can_be_stopped_and_says_what_is_missing(finished_run, tabled, tmp_path, monkeypatch):
    with pytest.raises(files.StopRequested, match="was stopped"):
        augmentation.compute_table(
            finished_run, augmentation.TableSettings(1), should_stop=lambda: True
        )
    assert finished_run.json("table")["plan"]["seeds"] == 2
    copy = store.Run(shutil.copytree(finished_run.directory, tmp_path / finished_run.id))
    (copy.directory / "table.json").unlink()
    copy.model_path("G").unlink()
    with pytest.raises(ValueError, match="core train --config-file"):
        augmentation.compute_table(copy)


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        (lambda x, y, who: (x + 1e-6, y - 1e-6, who), True),
        (lambda x, y, who: (x, -y, who), False),
        (lambda x, y, who: (np.clip(x + 0.3, -1, 1), y, who), False),
        (lambda x, y, who: (x, y, who[::-1]), False),
    ],
    ids=["another machine's bits", "other voices", "other faces", "other people"],
)
def test_a_corpus_of_another_digest_is_taken_if_it_is_the_same_but_for_rounding(
    finished_run, tabled, tmp_path, monkeypatch, change, taken
):
    build = splits.build_sets

    def as_prepared_elsewhere(config):
        out = {}
        for k, s in build(config).items():
            x, y, who = change(s.x, s.y, s.x_subject)
            out[k] = SampleSet(
                x.astype(np.float32),
                s.x_label,
                who,
                y.astype(np.float32),
                s.y_label,
                s.y_subject,
                s.paired,
            )
        return out

    copy = store.Run(shutil.copytree(finished_run.directory, tmp_path / finished_run.id))
    (copy.directory / "table.json").unlink()
    monkeypatch.setattr(splits, "build_sets", as_prepared_elsewhere)
    monkeypatch.setattr(prepared_corpora, "corpus_digest", lambda data: "other")
    if taken:
        rows = augmentation.compute_table(copy, augmentation.TableSettings(1, 1))["rows"]
        assert rows["S1"]["N train"] == tabled["rows"]["S1"]["N train"]
    else:
        with pytest.raises(ValueError, match="prepare that corpus again"):
            augmentation.compute_table(copy, augmentation.TableSettings(1, 1))


def test_few_voices_are_few_in_every_row(demo_world):
    from core.evaluation import evaluator

    config = replace(TINY, data={"clf_fraction": 0.5})
    S1 = splits.build_sets(config)["S1"]
    assert len(evaluator.s1_voice_rows(config, S1)) == round(len(S1.y) / 2)
    assert evaluator.s1_voice_rows(TINY, S1).tolist() == list(range(len(S1.y)))


def test_a_stopped_table_goes_on_and_siblings_share_rows_without_generated_samples(
    finished_run, tabled, tmp_path, monkeypatch
):
    """No row is trained twice, after a stop or for a run that differs only in its generator."""
    trained = []
    training = classifiers.training_steps
    monkeypatch.setattr(
        classifiers, "training_steps", lambda *a, **k: trained.append(1) or training(*a, **k)
    )
    copy = store.Run(shutil.copytree(finished_run.directory, tmp_path / finished_run.id))
    for name in ("table.json", "table.npz"):
        (copy.directory / name).unlink()
    with pytest.raises(files.StopRequested):
        augmentation.compute_table(copy, PLAN, should_stop=lambda: len(trained) > 5)
    assert augmentation.compute_table(copy, PLAN)["rows"] == json.loads(json.dumps(tabled["rows"]))
    assert len(trained) == 6 + PLAN.seeds * len(protocol.TABLE_ROWS) - 5  # the sixth was cut off

    trained.clear()
    other = store.Run(shutil.copytree(copy.directory, tmp_path / "other-cp-00000000"))
    (other.directory / "table.json").unlink()
    sample = gan.sample
    monkeypatch.setattr("core.models.gan.sample", lambda *a, **k: -sample(*a, **k))
    augmentation.compute_table(other, PLAN)
    assert len(trained) == PLAN.seeds * sum("generated" in row.parts for row in protocol.TABLE_ROWS)
