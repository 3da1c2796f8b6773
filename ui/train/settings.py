"""Every setting of an experiment as a widget with a one-line legend."""

from __future__ import annotations

import typing

import streamlit as st

from core.config import BAND_COUNTS, EMOTIONS, Config, replace
from core.data import splits
from ui.session import corpora

SECTIONS = {  # section -> its title, and field -> (label, legend)
    "gan": (
        "Generator, discriminator and Q",
        {
            "direction": (
                "Direction",
                "Face to voice, or the paper's reverse (§4.5), supervised: take the label condition for it.",
            ),
            "width": (
                "Width",
                "Size of the networks: compact (1.4 million parameters) or as large as the paper's.",
            ),
            "use_source": (
                "Use the face",
                "Off: the generator sees noise and condition alone (§4.4).",
            ),
            "adversarial": (
                "Weight of the adversarial term",
                "Eq. (3): how much the generator must fool D.",
            ),
            "l1": (
                "Weight of L1",
                "Eq. (4): how close it must stay to the real spectrogram; 0 is the paper's ablation.",
            ),
            "classify": (
                "Weight of the class term",
                "Eq. (6): how much Q must recognise the emotion.",
            ),
            "z": (
                "Length of the noise z",
                "More numbers leave more room for different voices of one face.",
            ),
            "q_training": (
                "Q's training",
                "Frozen: on S1's voices, before; joint: beside D, on S3's.",
            ),
            "q_labels": (
                "What Q aims at",
                "The condition's first choice, or the true labels as in the paper.",
            ),
            "batch": ("Batch", "Pairs in one step; more needs more memory."),
            "precision": (
                "Precision",
                "bf16: half the bits, faster where the processor can; as good as fp32 within the spread of seeds.",
            ),
            "optimiser": ("Optimiser", "The paper uses Adagrad."),
            "lr_g": ("Learning rate of G", "Lower it when the losses jump."),
            "lr_d": ("Learning rate of D", "Lower it when D wins at once."),
            "average": (
                "Average of G",
                "Decay of a running average of G's weights, which is sampled; 0: the last G, as in the paper.",
            ),
            "noise": (
                "Noise on inputs",
                "Standard deviation, on the inputs of all three networks (§3.2).",
            ),
            "soft": (
                "Soft labels",
                "Label condition: what the true class gives to the others (§3.2).",
            ),
            "real_target": (
                "D's target for real",
                "Below 1, D is never quite sure, and G learns longer (§3.2).",
            ),
            "label_noise": (
                "Noisy labels",
                "Label condition: standard deviation of the noise on c (§3.2).",
            ),
            "game": (
                "Form of the game",
                "Eq. (1) in its non-saturating form, as printed (minmax; learns slowly), or the hinge.",
            ),
            "d_norm": (
                "Norm in D",
                "Batch norm as in the paper; group norm sees one sample at a time; spectral norm bounds D.",
            ),
            "r1": (
                "Weight of R1",
                "Keeps D flat around real voices; 0, as in the paper: no penalty.",
            ),
            "augment": (
                "Augment what D sees",
                "Shifts in time, gains, gaps, for real and generated, so that D learns no voice by heart.",
            ),
            "projection": (
                "Tell D the condition",
                "On: D sees c too, and asks whether voice and condition fit.",
            ),
        },
    ),
    "conformal": (
        "Conformal prediction",
        {
            "measure": ("Nonconformity", "Eq. (8): the paper uses the margin."),
            "groups": (
                "Calibration",
                "All classes together, or one distribution for each class (Mondrian).",
            ),
            "r": ("Share of S2 that calibrates", "The paper's r."),
            "kind": (
                "Predictor",
                "Inductive, of f_S; or of a light head on its features: inductive, or Alg. 1 in full (slow).",
            ),
        },
    ),
    "f_s": (
        "Face classifier f_S",
        {
            "steps": ("Steps of f_S", "Training steps on S1's faces."),
            "lr": ("Learning rate of f_S", "Lower it when its loss jumps."),
            "mirror": ("Mirror faces", "Half of a batch is mirrored left to right."),
            "smoothing": ("Label smoothing", "Keeps its softmax from saturating at 0 and 1."),
            "noise": (
                "Noise on faces",
                "Standard deviation, on its inputs while it trains (§3.2).",
            ),
            "batch": ("Batch of f_S", "Faces in one step, as many of each emotion."),
            "optimiser": ("Optimiser of f_S", "The paper uses Adagrad."),
        },
    ),
    "f_t": (
        "Voice classifiers: f_T, Q, the scorer, the augmentation rows",
        {
            "steps": ("Steps of the voice classifiers", "The same for every row of the table."),
            "noise": ("Noise on voices", "Standard deviation, on their inputs while they train."),
            "lr": ("Learning rate of the voice classifiers", "Lower it when their losses jump."),
            "batch": (
                "Batch of the voice classifiers",
                "Voices in one step, as many of each emotion.",
            ),
            "optimiser": ("Optimiser of the voice classifiers", "The paper uses Adagrad."),
            "smoothing": (
                "Label smoothing of the voice classifiers",
                "Keeps their softmax from saturating.",
            ),
        },
    ),
    "data": (
        "Data",
        {
            "faces": ("Faces of", "A prepared corpus that has faces."),
            "voices": ("Voices of", "A prepared corpus that has voices."),
            "pairing": (
                "Pairs",
                "A face and a voice of one clip, or of one emotion where the corpora differ (a use of labels).",
            ),
            "classes": ("Emotions", "Those that both corpora have."),
            "f_s_corpus": (
                "f_S learns from",
                "Other people's corpus for the face classifier (§4.7); empty: S1's own faces.",
            ),
            "frames": (
                "Faces of a clip",
                "The one nearest its middle, or all that were prepared (--frames) as pairs of S3.",
            ),
            "clf_fraction": (
                "Share of S1's voices used",
                "By the voice classifiers and by every row of the table.",
            ),
            "g_fraction": ("Share of S3 used", "The paper's sparsity (§4.6): 1, 0.5, 0.2."),
            "labels": (
                "Emotion of a clip",
                "CREMA-D: what the actor meant, or what most raters saw or heard.",
            ),
            "ties": (
                "Tied votes",
                "Leave the clip out, or take the intended emotion if it is among the tied.",
            ),
            "subjects": (
                "Test people",
                "A seeded fifth, or the RAVDESS folds of Luna-Jiménez et al. (2021).",
            ),
            "fold": ("Fold", "Which fifth of the people is the test set S4."),
            "split_seed": ("Seed of the split", "Which people fall into which set."),
        },
    ),
    "logmel": (
        "Spectrograms",
        {
            "bands": (
                "Mel bands",
                "As many as the voices were prepared in: 28 in the paper; `ravdess-64` has 64, and sounds better.",
            ),
            "columns": (
                "Length",
                "Columns of 9 ms: 28, 56 and 112 are the paper's 0.25, 0.5 and 1 s.",
            ),
            "range_db": ("Range (dB)", "How far below the loudest a voice is still drawn."),
        },
    ),
    "evaluate": (
        "Watching",
        {
            "every": (
                "Steps between evaluations",
                "FID, KID, IS, samples and a checkpoint each time.",
            ),
            "per_face": ("Samples for each face of S3", "In the augmented training set."),
        },
    ),
}
FIELD_OPTIONS = {
    "bands": BAND_COUNTS,
    "columns": (28, 56, 112),
}  # numbers that are chosen, not typed
FIELD_BOUNDS = {
    "r": (0.05, 1.0),
    "g_fraction": (0.05, 1.0),
    "clf_fraction": (0.05, 1.0),
    "real_target": (0.5, 1.0),
    "range_db": (20.0, 100.0),
    "per_face": (1, 10),
    "fold": (0, 4),
    "split_seed": (0, 10_000),
    "soft": (0.0, 0.5),
    "average": (0.0, 0.9999),
}


def show_form(config: Config, prefix: str) -> Config:
    """Widgets for all settings that have a legend, starting from `config`; returns it with what was changed."""
    changes: dict[str, dict[str, object]] = {}
    for section, (title, fields) in SECTIONS.items():
        st.markdown(f"**{title}**")
        part = getattr(config, section)
        hints = typing.get_type_hints(type(part))
        names = list(fields)
        for row in (names[i : i + 3] for i in range(0, len(names), 3)):
            for column, name in zip(st.columns(3, gap="medium"), row):
                label, legend = fields[name]
                with column:
                    changes.setdefault(section, {})[name] = _show_widget(
                        label, hints[name], getattr(part, name), name, f"{prefix} {section}.{name}"
                    )
                    st.caption(legend)
    return _apply_changes(config, changes)


def last_config(config: Config, prefix: str) -> Config:
    """What `show_form` returned last, its sixty widgets not drawn."""
    changes: dict[str, dict[str, object]] = {}
    for section, (_, fields) in SECTIONS.items():
        part = getattr(config, section)
        hints = typing.get_type_hints(type(part))
        for name in fields:
            shown = st.session_state.get(f"{prefix} {section}.{name}", getattr(part, name))
            changes.setdefault(section, {})[name] = _to_field_value(
                shown, hints[name], getattr(part, name)
            )
    return _apply_changes(config, changes)


def _apply_changes(config: Config, changes: dict[str, dict[str, object]]) -> Config:
    return replace(
        config,
        **{
            k: v
            for k, v in changes.items()
            if any(getattr(getattr(config, k), n) != x for n, x in v.items())
        },
    )


def _to_field_value(shown, hint: object, value):
    """What a widget shows, as the setting has it; `value` is the preset's."""
    if typing.get_origin(hint) is tuple:
        return tuple(e for e in _ordered_emotions(value) if e in shown)
    return hint(shown) if hint in (int, float) else shown


def _ordered_emotions(value: tuple[str, ...]) -> list[str]:
    return [*value, *(e for e in EMOTIONS if e not in value)]


def _show_widget(label: str, hint: object, value, name: str, key: str):
    if hint is bool:
        return st.toggle(label, value, key=key, persist_state="session")
    if typing.get_origin(hint) is tuple:
        return _to_field_value(
            st.pills(
                label,
                _ordered_emotions(value),
                selection_mode="multi",
                default=value,
                key=key,
                persist_state="session",
            ),
            hint,
            value,
        )
    if typing.get_origin(hint) is typing.Literal or hint is str or name in FIELD_OPTIONS:
        options = (
            _corpus_options(name, value)
            if hint is str
            else FIELD_OPTIONS.get(name) or typing.get_args(hint)
        )
        return st.selectbox(label, options, options.index(value), key=key, persist_state="session")
    low, high = FIELD_BOUNDS.get(name, (1, 10**6) if hint is int else (0.0, 100.0))
    if hint is int:
        return _to_field_value(
            st.number_input(
                label, int(low), int(high), int(value), 1, key=key, persist_state="session"
            ),
            hint,
            value,
        )
    places = 5 if name.startswith("lr") else 4 if name == "average" else 2
    bounds = float(low), float(high), float(value)
    return _to_field_value(
        st.number_input(
            label, *bounds, 10.0**-places, f"%.{places}f", key=key, persist_state="session"
        ),
        hint,
        value,
    )


def _corpus_options(name: str, value: str) -> list[str]:
    """Prepared corpora that a setting may name, its present value first."""
    here = [splits.parse_stem(n)[0] for n in corpora.prepared_stems()]
    return list(dict.fromkeys([value, *([""] if name == "f_s_corpus" else []), *here]))
