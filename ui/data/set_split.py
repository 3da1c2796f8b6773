"""The sets S1-S4 of a corpus: settings of the split, a chart, and each set's card of subjects."""

from __future__ import annotations

import html
from collections import Counter

import streamlit as st

from core.data import splits
from ui import theme
from ui.session import corpora
from ui.session.corpora import CorpusSummary
from ui.widgets import charts, choices

MAX_SPLIT_SEED = 99_999
SET_ROLES = {  # use of each set in a run
    "S1": "trains the face classifier and the baselines",
    "S2": "calibrates the p-values; choices are made on it",
    "S3": "trains the generator",
    "S4": "tests everything, once, at the end",
}
LABEL_SOURCES = {
    "intended": "what the actor meant",
    "voice": "raters who heard",
    "face": "raters who saw",
    "both": "raters who heard and saw",
}
TIE_RULES = {"drop": "leave the clip out", "intended": "keep what was meant"}


def show_sets(stem: str, summaries: dict[str, CorpusSummary]) -> None:
    """Settings of a split of the corpus `stem`, and the sets that it makes."""
    pairs = corpora.possible_pairs(stem, summaries)
    if not pairs:
        missing = "faces" if summaries[stem].voices else "voices"
        words = (
            f"A run needs faces and voices that name the same emotions. This corpus has no "
            f"{missing} of its own: add one that has, and the sets are shown here."
        )
        st.info(words, icon=":material/link_off:")
        return
    a, b, d, e = st.columns([4, 3, 2, 2], gap="small")
    how = a.selectbox("Split", list(pairs), key=f"split {stem}", persist_state="session")
    pair = pairs[how]
    has_votes = any(summaries[p].has_votes for p in pair)
    about = "Raters' votes are known for CREMA-D with its summaryTable.csv."
    if has_votes:
        about = "The paper takes the raters' votes."
    look = {"key": f"labels {stem} {has_votes}", "persist_state": "session", "help": about}
    look |= {"format_func": LABEL_SOURCES.get, "disabled": not has_votes}
    sources = list(LABEL_SOURCES) if has_votes else ["intended"]
    label = b.selectbox("Emotion of a clip", sources, **look)
    about = "Which fifth of the people tests (S4). Over the five folds everybody tests once."
    fold = d.number_input("Fold", help=about, **choices.integer_args("fold", "fold", 0, 0, 4))
    bound = choices.integer_args("seed", "split seed", 0, 0, MAX_SPLIT_SEED)
    seed = e.number_input("Seed", help="Seed of the order of the people.", **bound)
    settings = {"labels": label, "fold": fold, "split_seed": seed}
    if label != "intended":
        look = {"default": "drop", "required": True, "format_func": TIE_RULES.get}
        look |= {"key": f"ties {stem}", "persist_state": "session"}
        settings["ties"] = st.segmented_control("If the vote is tied", list(TIE_RULES), **look)
    data = corpora.data_settings(pair, summaries, **settings)
    table = corpora.set_table(pair, data)
    if isinstance(table, str):
        st.error(theme.escape_markdown(table), icon=":material/error:")
        return
    _show_set_table(table, pair, data.pairing)


def _show_set_table(table: dict, pair: tuple[str, str], pairing: str) -> None:
    """A chart of the sets, whether anybody is in two of them, and a card for each set.

    `table` is {set: {"faces" or "voices": {"classes", "subjects", "clips", "unknown"}}}.
    """
    titles = {"faces": f"faces of {pair[0]}", "voices": f"voices of {pair[1]}"}
    nouns = {"faces": "faces", "voices": "voices"}
    if pairing == "clip":
        titles, nouns = {"voices": "clips, each a face and its voice"}, {"voices": "clips"}
    bars = {
        html.escape(title): {s: of[role]["classes"] for s, of in table.items()}
        for role, title in titles.items()
    }
    alt = "clips of each emotion in the sets S1 to S4, as bars"
    show = {"config": charts.NO_TOOLBAR_CONFIG, "alt": alt}
    st.plotly_chart(charts.clips_by_set(bars), key="sets", **show)
    _show_separation(table, nouns)
    if pairing == "emotion":
        st.caption(
            "Faces and voices of different people are split separately, and meet by emotion "
            "inside a set."
        )
    for name, column in zip(splits.SET_NAMES, st.columns(4, gap="small")):
        with column, st.container(border=True):
            st.markdown(f"**{name}** · {SET_ROLES[name]}")
            for role, noun in nouns.items():
                of = table[name][role]
                words = f"{of['clips']:,} {noun}"
                words += f" of {len(of['subjects'])} subjects" if of["subjects"] else ""
                words += f", {of['unknown']:,} unknown groups" if of["unknown"] else ""
                st.caption(words)
                if of["subjects"]:
                    st.html(subjects_html(list(of["subjects"])))


def _show_separation(table: dict, nouns: dict[str, str]) -> None:
    """Whether anybody is in two sets; `nouns` names what each role's clips are."""
    sets_of = {r: Counter(p for of in table.values() for p in of[r]["subjects"]) for r in nouns}
    shared = sorted({p for of in sets_of.values() for p, n in of.items() if n > 1})
    if shared:
        words = "In two sets: " + theme.escape_markdown(", ".join(shared))
        st.error(words, icon=":material/error:")
        return
    known = [f"{len(sets_of[r]):,} subjects of the {nouns[r]}" for r in nouns if sets_of[r]]
    words = [f"{' and '.join(known)}, each in exactly one set"] * bool(known)
    unknown = sum(of[r]["unknown"] for of in table.values() for r in nouns)
    if unknown:
        groups = "groups of pictures or clips of unknown people, each kept together"
        words.append(f"{unknown:,} {groups}")
    st.markdown(
        f":material/verified: **Nobody is in two sets**: {'; '.join(words)}. "
        "The people who test were never seen in training."
    )


def subjects_html(names: list[str]) -> str:
    """Subjects as small marks, as HTML; their common prefix is written once."""
    start = charts.common_prefix(names)
    look = "display:inline-block;border:1px solid currentColor;border-radius:.6em;padding:0 .4em"
    mark = f'<span style="{look};margin:.1em;font-size:.75rem;opacity:.85">'
    marks = "".join(f"{mark}{html.escape(n.removeprefix(start))}</span>" for n in names)
    prefix = ""
    if start:
        prefix = f'<div style="font-size:.75rem;opacity:.7">{html.escape(start)}…</div>'
    return f'{prefix}<div style="max-height:12rem;overflow-y:auto">{marks}</div>'
