"""Every setting of an experiment as a widget; its help is read off `core.config.settings`."""

from __future__ import annotations

import dataclasses
import typing

import streamlit as st

from core.config.settings import BAND_COUNTS, EMOTIONS, Config, replace
from core.data import prepared_corpora
from ui.session import corpora

SECTIONS = {  # section of the config -> title, and the settings shown, in this order
    "gan": (
        "Generator, discriminator and Q",
        (
            *("direction", "width", "use_source", "adversarial", "l1", "classify", "z"),
            *(
                "q_training",
                "q_labels",
                "q_learns_from",
                "batch",
                "precision",
                "optimiser",
                "lr_g",
                "lr_d",
            ),
            *("average", "noise", "soft", "real_target", "label_noise", "game", "d_norm"),
            *("r1", "augment", "projection", "early_times"),
            *("guidance", "heun_steps", "noise_scale"),
        ),
    ),
    "conformal": ("Conformal prediction", ("measure", "groups", "r", "kind")),
    "f_s": (
        "Face classifier f_S",
        (
            *("architecture", "width", "steps", "lr", "optimiser", "batch", "mirror", "augment"),
            *("smoothing", "noise", "dropout", "average", "temperature", "learns_from"),
        ),
    ),
    "f_t": (
        "Voice classifiers: f_T, Q, the scorer, the augmentation rows",
        ("width", "steps", "noise", "lr", "batch", "optimiser", "smoothing"),
    ),
    "data": (
        "Data",
        (
            *("faces", "voices", "pairing", "classes", "f_s_corpus", "frames", "windows", "speech"),
            *(
                "clf_fraction",
                "labels_per_class",
                "g_fraction",
                "labels",
                "ties",
                "subjects",
                "fold",
                "split_seed",
            ),
            "listening",
        ),
    ),
    "logmel": ("Spectrograms", ("bands", "columns", "range_db")),
    "evaluate": ("Watching", ("every", "per_face")),
}
LABEL_ENDS = {"f_s": " of f_S", "f_t": " of the voice classifiers"}  # two sections of one class
FIELD_OPTIONS = {"bands": BAND_COUNTS, "columns": (28, 56, 112)}  # numbers chosen from a list


class Setting(typing.NamedTuple):
    """One setting of a section, with all that its widget needs."""

    section: str
    name: str
    label: str
    help: str
    hint: object  # its type
    bounds: tuple[float, float] | None  # of a number: the lowest and highest allowed
    value: typing.Any  # of the config that the form starts from


def settings_of(config: Config, section: str) -> list[Setting]:
    """The settings of a section that the form shows, in order."""
    part, end = getattr(config, section), LABEL_ENDS.get(section, "")
    fields = {f.name: f.metadata for f in dataclasses.fields(part)}
    hints = typing.get_type_hints(type(part))
    return [
        Setting(
            *(section, n, fields[n]["label"] + end, fields[n]["help"]),
            *(hints[n], fields[n]["bounds"], getattr(part, n)),
        )
        for n in SECTIONS[section][1]
    ]


def show_form(config: Config, prefix: str) -> Config:
    """Widgets for all settings of SECTIONS, starting from `config`; returns it with the changes."""
    changes: dict[str, dict[str, object]] = {}
    for section, (title, _) in SECTIONS.items():
        st.markdown(f"**{title}**")
        shown = settings_of(config, section)
        for row in (shown[i : i + 3] for i in range(0, len(shown), 3)):
            for column, setting in zip(st.columns(3, gap="medium"), row):
                with column:
                    widget = _show_widget(setting, f"{prefix} {section}.{setting.name}")
                    changes.setdefault(section, {})[setting.name] = widget
                    st.caption(setting.help)
    return _apply_changes(config, changes)


def last_config(config: Config, prefix: str) -> Config:
    """The last result of `show_form`, read from the session state without drawing a widget."""
    changes: dict[str, dict[str, object]] = {}
    for section in SECTIONS:
        for s in settings_of(config, section):
            shown = st.session_state.get(f"{prefix} {section}.{s.name}", s.value)
            changes.setdefault(section, {})[s.name] = _to_field_value(shown, s)
    return _apply_changes(config, changes)


def _apply_changes(config: Config, changes: dict[str, dict[str, object]]) -> Config:
    """`config` with the sections in which a value differs."""
    return replace(
        config,
        **{
            section: values
            for section, values in changes.items()
            if any(getattr(getattr(config, section), n) != v for n, v in values.items())
        },
    )


def _to_field_value(shown, setting: Setting):
    """A widget's value as the setting's type: emotions as a tuple in the preset's order."""
    if typing.get_origin(setting.hint) is tuple:
        return tuple(e for e in _ordered_emotions(setting.value) if e in shown)
    return setting.hint(shown) if setting.hint in (int, float) else shown


def _ordered_emotions(value: tuple[str, ...]) -> list[str]:
    return [*value, *(e for e in EMOTIONS if e not in value)]


def _show_widget(setting: Setting, key: str):
    """Draw the widget that fits the setting's type; returns the setting's value."""
    _, name, label, _, hint, allowed, value = setting
    state: dict[str, typing.Any] = {"key": key, "persist_state": "session"}
    if hint is bool:
        return st.toggle(label, value, **state)
    if typing.get_origin(hint) is tuple:
        emotions = _ordered_emotions(value)
        shown = st.pills(label, emotions, selection_mode="multi", default=value, **state)
        return _to_field_value(shown, setting)
    if typing.get_origin(hint) is typing.Literal or hint is str or name in FIELD_OPTIONS:
        choices = FIELD_OPTIONS.get(name) or typing.get_args(hint)
        options = _corpus_options(name, value) if hint is str else list(choices)
        return st.selectbox(label, options, options.index(value), **state)
    assert allowed, f"{name} has no bounds"
    low, high = allowed
    if hint is int:
        whole = st.number_input(label, int(low), int(high), int(value), 1, **state)
        return _to_field_value(whole, setting)
    places = 5 if name.startswith("lr") else 4 if name == "average" else 2
    bounds = float(low), float(high), float(value)
    number = st.number_input(label, *bounds, 10.0**-places, f"%.{places}f", **state)
    return _to_field_value(number, setting)


def _corpus_options(name: str, value: str) -> list[str]:
    """Prepared corpora that a setting may name, its present value first."""
    here = [prepared_corpora.parse_stem(n)[0] for n in corpora.prepared_stems()]
    return list(dict.fromkeys([value, *([""] if name == "f_s_corpus" else []), *here]))
