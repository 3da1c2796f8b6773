"""Presets: the paper's own, its strict twin, methods, and what names a run."""

import dataclasses
import json
import math

import pytest

from core.config.presets import PAPER, PRESETS, RAVDESS, STUDIO, with_method
from core.config.serialisation import check_settings, config_hash, from_dict, run_name
from core.config.settings import Config, classifier_settings, replace
from core.evaluation import protocol
from core.files import ROOT
from core.paper import published

CORPORA = [PAPER, RAVDESS]


@pytest.mark.parametrize("preset", CORPORA, ids=lambda c: c.name)
def test_the_papers_presets_are_the_paper(preset):
    g, classifiers = preset.gan, (preset.f_s, preset.f_t)
    assert {g.optimiser, *(s.optimiser for s in classifiers)} == {"adagrad"}
    assert (g.q_training, g.q_labels, g.real_target) == ("joint", "true", 1.0)
    assert (g.width, g.d_norm, g.game) == ("paper", "batch", "nonsaturating")
    assert (g.l1, g.classify, g.adversarial) == (1, 1, 1)
    assert (g.r1, g.average, g.augment, g.projection) == (0, 0, False, False)
    assert protocol.labels_mode(preset) == "paper"
    assert preset.data.faces == preset.data.voices
    assert preset.data.pairing == "clip"
    # S1 is seen as often as the choice says, not 600 times 64 samples
    passes = preset.f_t.steps * preset.f_t.batch
    passes /= preset.data.sets[0] * published.CLIPS[preset.data.voices]
    assert passes == pytest.approx(published.CLASSIFIER_EPOCHS, rel=0.02)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda c: c.name)
def test_a_preset_with_its_own_method_is_the_same_run(preset):
    own = {"paper": "paper", "ravdess": "paper"}.get(preset.name, "studio")
    assert with_method(own, preset) == preset
    assert run_name(with_method(own, preset), "x") == run_name(preset, "x")


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda c: c.name)
def test_methods_change_the_game_alone(preset):
    asked = replace(preset, gan={"condition": "classifier"})
    names = {}
    for method in ("paper", "strict", "studio"):
        config = with_method(method, asked)
        assert config.gan.condition == "classifier"
        assert replace(config, name="", gan=vars(asked.gan)) == replace(asked, name="")
        names[method] = config.gan
    paper, strict = names["paper"], names["strict"]
    assert strict != paper
    assert vars(paper) | {"q_training": "frozen", "q_labels": "condition"} == vars(strict)
    assert names["studio"].generator == ("flow" if preset.name == "listening" else "conv")


def test_strict_reads_no_label_of_s3():
    for preset in CORPORA:
        assert protocol.labels_mode(with_method("strict", preset)) == "strict"
    assert PRESETS["studio"] == STUDIO  # no method changed a preset in place


def test_the_width_of_g_is_that_of_all_networks():
    wide = replace(Config(), gan={"width": "paper"})
    for modality in ("face", "voice"):
        assert classifier_settings(wide, modality).width == "paper"
        assert classifier_settings(Config(), modality).width == "compact"


def test_changed_networks_give_runs_another_id_and_rename_no_other():
    """The ids of the shipped runs, and the hash of what no change reached, are those of before."""
    assert config_hash(Config(), "a") == "42046cf8"
    for folder in sorted((ROOT / "checkpoints").glob("*/config.json")):
        config = from_dict(Config, json.loads(folder.read_text()))
        corpus = json.loads((folder.parent / "provenance.json").read_text())["corpus"]
        assert run_name(config, corpus) == folder.parent.name
    same = replace(Config(), gan={"generator": "unet", "use_source": False})
    assert config_hash(same, "a") == "7b667f9b"
    wide = replace(Config(), gan={"width": "paper"})
    assert config_hash(wide, "a") != "7bb1c4da"
    bare = replace(Config(), gan={"use_source": False})
    assert config_hash(bare, "a") != "10e00210"


def numbers_of(part, section=""):
    """(name, bounds, is a list) of each setting that is a number or a list of numbers."""
    for f in dataclasses.fields(part):
        value, name = getattr(part, f.name), f"{section}{f.name}"
        if dataclasses.is_dataclass(value):
            yield from numbers_of(value, f"{name}.")
            continue
        first = value[0] if isinstance(value, tuple) else value
        if isinstance(first, int | float) and not isinstance(first, bool):
            yield name, f.metadata["bounds"], value


@pytest.mark.parametrize(("name", "bounds", "value"), list(numbers_of(Config())))
def test_every_number_has_bounds_that_hold_its_default(name, bounds, value):
    section, _, field = name.rpartition(".")

    def changed(number):
        number = (number, *value[1:]) if isinstance(value, tuple) else number
        change = {field: number}
        return replace(Config(), **({section: change} if section else change))

    check_settings(changed(bounds[0]))
    check_settings(changed(bounds[1]))
    for wrong in (bounds[0] - 1, bounds[1] + 1, math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"^{name} is .*it must lie between"):
            check_settings(changed(wrong))


def test_all_presets_are_within_the_bounds():
    for config in PRESETS.values():
        check_settings(config)
