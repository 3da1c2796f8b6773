"""What f_S is fitted and calibrated on, and the names of the files that runs share."""

import dataclasses
import functools

import numpy as np
import pytest
import torch

from core import files
from core.config.presets import PRESETS
from core.config.serialisation import config_hash, from_dict, to_dict
from core.config.settings import ClassifierSettings, Config, replace
from core.data.splits import SET_NAMES, SampleSet
from core.evaluation.evaluator import FittedClassifiers, image_tensor, source_settings
from core.experiments import classifier_fitting
from core.files import StopRequested, UserError
from core.models import classifiers, networks
from core.runs.directory import Run
from tests.support import small_pipeline

TINY, CPU = small_pipeline.TINY, torch.device("cpu")
LATER = {"architecture": "residual", "augment": True, "average": 0.9, "temperature": True}
LATER |= {"dropout": 0.5, "networks": 3}


def drawn_sets(n=12):
    """S1-S4 of random faces and voices, six classes, no corpus."""
    rng = np.random.default_rng(0)
    labels, names = np.arange(n) % 6, np.array(["a"] * n)
    draw = lambda columns: rng.uniform(-1, 1, (n, columns, 28)).astype(np.float32)  # noqa: E731
    return {
        k: SampleSet(draw(28), labels, names, draw(112), labels, names, paired=True)
        for k in SET_NAMES
    }


def test_f_s_learns_from_s1_and_in_a_listening_run_from_s3_where_asked():
    sets = drawn_sets()
    x, labels = classifier_fitting.source_training_data(TINY, sets)
    assert np.array_equal(x, sets["S1"].x)
    heard = replace(TINY, data={"listening": True})
    assert np.array_equal(classifier_fitting.source_training_data(heard, sets)[0], sets["S1"].x)
    both = replace(heard, f_s={"learns_from": "S1 and S3"})
    x, labels = classifier_fitting.source_training_data(both, sets)
    assert np.array_equal(x, np.concatenate([sets["S1"].x, sets["S3"].x]))
    assert np.array_equal(labels, np.concatenate([sets["S1"].x_label, sets["S3"].x_label]))
    for refused in (
        replace(both, data={"listening": False}),
        replace(both, data={"f_s_corpus": "crema-d"}),
    ):
        with pytest.raises(UserError, match="listening run alone"):
            classifier_fitting.source_training_data(refused, sets)


def taught(r, arrays, **gan):
    """Weights of Q after `teach_q`, from sets of random images; S3's labels may be changed."""
    config = replace(TINY, f_t={"steps": 2}, gan={"q_learns_from": "S1 and S3"} | gan)
    sets = drawn_sets(24)
    sets["S3"] = dataclasses.replace(sets["S3"], x_label=arrays["label"], y_label=arrays["label"])
    K, y = 6, image_tensor(sets["S1"].y, CPU)
    Q = classifiers.fit(y, torch.from_numpy(sets["S1"].y_label), config.f_t, K, 0, "voice")
    fitted = FittedClassifiers(f_S=Q, f_T=Q, Q=Q, scorer=Q, digest="")
    files.write_arrays(r.directory / "outputs.npz", o_S3=arrays["o"], p_S3=arrays["p"])
    return classifier_fitting.teach_q(config, sets, fitted, r).Q.state_dict()


def test_q_learns_from_the_voices_of_sure_faces_and_reads_no_label_of_s3(tmp_path):
    r, rng = Run(tmp_path / "run"), np.random.default_rng(0)
    r.model_path("Q").parent.mkdir(parents=True)
    o = rng.dirichlet(np.ones(6), 24)
    p = np.where(np.arange(24)[:, None] < 12, np.eye(6)[o.argmax(axis=1)], 0.9)  # half are sure
    arrays = {"o": o, "p": p, "label": np.arange(24) % 6}
    first = taught(r, arrays)
    same = taught(r, arrays | {"label": np.full(24, -1)})
    assert all(torch.equal(v, same[k]) for k, v in first.items())
    unsure, sure = o.copy(), o.copy()
    unsure[12:], sure[:12] = np.roll(o[12:], 1, axis=1), np.roll(o[:12], 1, axis=1)
    same, other = taught(r, arrays | {"o": unsure}), taught(r, arrays | {"o": sure})
    assert all(torch.equal(v, same[k]) for k, v in first.items())
    assert not all(torch.equal(v, other[k]) for k, v in first.items())
    with pytest.raises(UserError, match="frozen and each voice has a face"):
        taught(r, arrays, q_training="joint")


def test_a_temperature_is_fitted_on_s2_alone_and_only_where_asked():
    sets = drawn_sets(60)
    settings = dataclasses.replace(TINY.f_s, steps=3)
    S1, S2 = sets["S1"], sets["S2"]
    x, labels = image_tensor(S1.x, CPU), torch.from_numpy(S1.x_label)
    network = classifiers.fit(x, labels, settings, 6, 0, "face")
    before = classifiers.softmax(network, image_tensor(S2.x, CPU))
    classifier_fitting.calibrate_source(TINY, sets, network)
    assert np.array_equal(classifiers.softmax(network, image_tensor(S2.x, CPU)), before)
    for k in ("S1", "S3", "S4"):  # a use of their labels would fail
        sets[k] = dataclasses.replace(sets[k], x_label=np.full(60, -1))
    calibrated = replace(TINY, f_s={"temperature": True})
    classifier_fitting.calibrate_source(calibrated, sets, network)
    after = classifiers.softmax(network, image_tensor(S2.x, CPU))
    assert np.array_equal(after.argmax(axis=1), before.argmax(axis=1))
    likelihood = [np.log(o[np.arange(60), S2.x_label]).mean() for o in (before, after)]
    assert likelihood[1] > likelihood[0]


def test_an_f_s_of_another_corpus_is_trained_once_for_all_folds(tmp_path, monkeypatch):
    config = replace(TINY, data={"f_s_corpus": "others"}, f_s={"steps": 3, "temperature": True})
    folds, trainings = [drawn_sets(60), drawn_sets(60)], []
    folds[1]["S2"] = dataclasses.replace(folds[1]["S2"], x=-folds[1]["S2"].x)
    fit = classifiers.fit_source

    def counted(*given):
        trainings.append(given)
        return fit(*given)

    monkeypatch.setattr(classifiers, "fit_source", counted)

    def f_S(fold, c=config):
        path, S1 = tmp_path / f"{fold}.safetensors", folds[fold]["S1"]
        data = (S1.x, S1.x_label, *source_settings(c))
        classifier_fitting._fit("f_S", c, folds[fold], data, path, CPU, lambda *a: None)
        return networks.load(path).state_dict()

    one, other = f_S(0), f_S(1)
    assert len(trainings) == 1
    changed = {k for k in one if not torch.equal(one[k], other[k])}
    assert changed == {"head.weight", "head.bias"}  # S2 of each fold has its temperature
    f_S(0, replace(config, seed=1))
    f_S(0, replace(config, f_s={"steps": 4}))
    assert len(trainings) == 3


def test_a_later_setting_at_its_default_renames_no_file_and_changed_renames_f_s_alone():
    names = classifier_fitting.classifier_files(TINY, "d")
    assert {*classifier_fitting.LATER_SETTINGS} <= {*vars(ClassifierSettings())}
    for name, value in LATER.items():
        changed = classifier_fitting.classifier_files(replace(TINY, f_s={name: value}), "d")
        assert changed["f_S"] != names["f_S"]
        assert {k: v for k, v in changed.items() if k != "f_S"} == {
            k: v for k, v in names.items() if k != "f_S"
        }


def test_a_config_from_before_these_settings_keeps_its_id():
    old = to_dict(TINY)
    for section in ("f_s", "f_t"):
        for name in classifier_fitting.LATER_SETTINGS:
            old[section].pop(name)
    again = from_dict(Config, old)
    assert again == TINY
    ids = {config_hash(replace(TINY, f_s={k: v}), "d") for k, v in LATER.items()}
    assert len(ids | {config_hash(again, "d")}) == 1 + len(LATER)


@pytest.mark.parametrize("name", ["fer2013-ravdess", "fine"])
def test_the_presets_of_photographs_take_our_classifier_and_calibrate_it(name):
    f_s, f_t = PRESETS[name].f_s, PRESETS[name].f_t
    assert (f_s.architecture, f_s.temperature, f_s.learns_from) == ("residual", True, "S1")
    assert f_t.architecture == "plain"


def test_trainings_side_by_side_give_the_same_bits_as_one_after_another():
    rng, labels = np.random.default_rng(0), torch.arange(36) % 6
    y = image_tensor(rng.uniform(-1, 1, (36, 28, 28)).astype(np.float32), CPU)
    settings, found = dataclasses.replace(TINY.f_t, steps=4), {}
    for threads in (1, 3):
        seen = []

        def fit(seed, seen=seen):
            seen.append(torch.get_num_threads())
            return classifiers.fit(y, labels, settings, 6, seed).state_dict()

        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            tasks = [functools.partial(fit, seed) for seed in range(4)]
            found[threads] = classifiers.side_by_side(tasks, CPU)
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        assert seen == [1] * 4
    for one, other in zip(found[1], found[3], strict=True):
        assert all(torch.equal(one[k], other[k]) for k in one)
    assert not torch.equal(found[1][0]["head.weight"], found[1][1]["head.weight"])


def test_one_phase_is_told_at_a_time_and_a_stop_ends_all():
    told = []
    tell = classifiers.in_turn(lambda *a: told.append(a))
    for phase, done in (("f_S", 1), ("Q", 1), ("f_S", 2), ("Q", 2), ("Q", 3)):
        tell(phase, done, {"f_S": 2, "Q": 3}[phase], "")
    assert [t[:2] for t in told] == [("f_S", 1), ("f_S", 1), ("f_S", 2), ("Q", 2), ("Q", 3)]

    def stop(*_):
        raise StopRequested

    tell, begun, before = classifiers.in_turn(stop), [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        tasks = [lambda k=k: (begun.append(k), tell(str(k), 1, 2)) for k in range(8)]
        with pytest.raises(StopRequested):
            classifiers.side_by_side(tasks, CPU)
    finally:
        torch.set_num_threads(before)
    assert len(begun) < 8
