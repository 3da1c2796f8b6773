"""Prepared corpora: the table of all, and of one its source, balance and left-out clips."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import streamlit as st

from core.data import prepared_corpora
from ui import theme
from ui.session import corpora
from ui.session.corpora import CorpusSummary
from ui.widgets import charts

SEX_LABELS = {"female": "female", "male": "male", "": "sex unknown"}
MAX_EVEN_RATIO = 1.2  # clips of the most frequent to the rarest emotion that still count as even
ROW_PIXELS, HEADER_PIXELS = 35, 38  # heights in a table of Streamlit


def show_corpora(summaries: dict[str, CorpusSummary]) -> None:
    """All prepared corpora, a row for each."""
    names = ("Clips", "Faces", "Voices", "Emotions", "Left out")
    numbers = {k: st.column_config.NumberColumn(format="localized") for k in names}
    about = "The same digest means the same arrays. Runs are named after it."
    columns = numbers | {"Digest": st.column_config.TextColumn(help=about, width="medium")}
    height = HEADER_PIXELS + ROW_PIXELS * min(len(summaries), 5)  # five rows; others scroll
    look = {"hide_index": True, "height": height, "column_config": columns}
    table = corpora.overview_table(summaries)
    st.dataframe(table, alt="all prepared corpora, a line each", **look)


def show_source(c: CorpusSummary) -> None:
    """Title, source and contents of a corpus in a line."""
    m, counts = c.meta, (("frames", "faces"), ("crops", "spectrograms"))
    words = [c.title, str(m.get("source", "")), ", ".join(c.emotions)]
    words += [f"{m[k]} {what} of each clip" for k, what in counts if m.get(k, 1) > 1]
    words += [f"{c.logmel.bands} mel bands"] * bool(c.voices)
    st.caption(" · ".join(theme.escape_markdown(w) for w in words if w))


# ------------------------------------------------------------------ balance


def show_balance(c: CorpusSummary) -> None:
    """Clips by emotion, sex and subject."""
    count = Counter(zip(c.sex.tolist(), c.emotion.tolist()))
    sexes = {sex for sex, _ in count}
    by_sex = {sex: {e: count[sex, e] for e in c.emotions} for sex in SEX_LABELS if sex in sexes}
    left, right = st.columns(2, gap="medium")
    with left:
        _show_emotions(c, by_sex)
    with right:
        _show_subjects(c, by_sex)


def _show_emotions(c: CorpusSummary, by_sex: dict[str, dict[str, int]]) -> None:
    st.markdown("**Clips per emotion**, by sex")
    alt = "clips per emotion and sex, as bars"
    show = {"config": charts.NO_TOOLBAR_CONFIG, "alt": alt}
    st.plotly_chart(charts.clips_by_emotion(by_sex), key="census", **show)
    total = {e: sum(of[e] for of in by_sex.values()) for e in c.emotions}
    most, least = max(total, key=total.get), min(total, key=total.get)
    if total[most] == total[least]:
        st.caption(f"{total[most]:,} clips of each emotion: evenly spread.")
        return
    ratio = total[most] / max(1, total[least])
    verdict = "Training evens this out by drawing rare emotions more often."
    if ratio < MAX_EVEN_RATIO:
        verdict = "Evenly spread."
    st.caption(
        f"{most} is the most frequent with {total[most]:,} clips, {least} the rarest with "
        f"{total[least]:,}: {ratio:.1f} to 1. {verdict}"
    )


def _show_subjects(c: CorpusSummary, by_sex: dict[str, dict[str, int]]) -> None:
    st.markdown("**Clips per subject**, the emotions in the same colours")
    if not c.subjects:
        groups = len(np.unique(c.subject[c.subject != ""]))
        words = (
            f"It is not known who is seen or heard here: {groups:,} groups of pictures that look "
            "alike are kept together instead."
        )
        st.info(words, icon=":material/group_off:")
        return
    known = c.has_known_subject
    count = Counter(zip(c.subject[known].tolist(), c.emotion[known].tolist()))
    counts = {e: [count[s, e] for s in c.subjects] for e in c.emotions}
    show = {"config": charts.NO_TOOLBAR_CONFIG, "alt": "clips of each subject, as bars"}
    st.plotly_chart(charts.clips_by_subject(c.subjects, counts), key="people", **show)
    sex_of = dict(zip(c.subject.tolist(), c.sex.tolist()))
    sexes = Counter(sex_of[s] for s in c.subjects)
    words = [
        f"{sexes[s]} {label} ({sum(by_sex.get(s, {}).values()):,} clips)"
        for s, label in SEX_LABELS.items()
        if sexes[s]
    ]
    st.caption(f"{len(c.subjects)} subjects: {', '.join(words)}.")


# ------------------------------------------------------------------ what was left out


def show_left_out(c: CorpusSummary) -> None:
    """Clips that could not be used, remarks on those that are, and files that are no clips."""
    path = prepared_corpora.processed_folder() / f"{c.stem}.npz"
    passed_over = prepared_corpora.read_source_record(path).get("passed_over")
    passed_over = passed_over if isinstance(passed_over, dict) else {}
    notes = c.meta.get("notes") or {}
    if not (c.left_out or c.alignment_notes or notes or passed_over):
        words = "Nothing was left out: every clip of the source is here."
        st.success(words, icon=":material/check_circle:")
        return
    if c.left_out:
        _show_reasons(c)
    if notes or c.alignment_notes:
        _show_remarks(c, notes)
    if passed_over:
        n = len(passed_over)
        st.markdown(f"**Passed over**: {n:,} file{'s' * (n != 1)} of the source belong to no clip.")
        for ending, reason, names in prepared_corpora.group_passed_over(passed_over):
            title = f"{ending}: {reason}"
            _show_group(title, {"File": names}, ":material/draft:", "files passed over")


def _show_reasons(c: CorpusSummary) -> None:
    groups: dict[str, list[tuple[str, str]]] = {}
    for clip, reason in c.left_out.items():
        groups.setdefault(_reason_kind(reason, clip), []).append((clip, reason))
    n = len(c.left_out)
    st.markdown(f"**{n:,} of {n + len(c.clip):,} clips** could not be used. Runs never see them.")
    for kind, members in sorted(groups.items(), key=lambda g: -len(g[1])):
        names, reasons = zip(*members)
        table, is_open = {"Clip": names, "Reason": reasons}, len(groups) == 1
        _show_group(kind, table, ":material/block:", "clips left out", expanded=is_open)


def _show_remarks(c: CorpusSummary, notes: dict[str, str]) -> None:
    """What one should know of clips that are taken."""
    st.markdown("**Kept, with a remark**: look at some of them before you trust them.")
    for kind, members in prepared_corpora.group_notes(notes):
        names, remarks = zip(*members)
        table = {"Clip": names, "Remark": remarks}
        _show_group(kind, table, ":material/sticky_note_2:", "clips with a remark")
    if c.alignment_notes:
        st.caption("Pictures without detected landmarks are aligned as the others are on average:")
        table = {"Emotion": list(c.alignment_notes), "Pictures": list(c.alignment_notes.values())}
        st.dataframe(table, hide_index=True, alt="pictures without landmarks")


def _show_group(
    title: str, table: dict[str, Sequence[str]], icon: str, alt: str, expanded: bool = False
) -> None:
    """Names of one kind as a table below their number and what they share."""
    n = len(next(iter(table.values())))
    with st.expander(f"{n:,} × {theme.escape_markdown(title)}", icon=icon, expanded=expanded):
        height = min(300, HEADER_PIXELS + ROW_PIXELS * n)
        st.dataframe(table, hide_index=True, height=height, alt=alt)


def _reason_kind(reason: str, clip: str) -> str:
    """A reason without the clip's name and without numbers, so that equal reasons group."""
    kind = re.sub(r"^(NoFaceError|MediaError|CorpusError): ", "", reason)
    kind = prepared_corpora.unnamed(kind, clip)
    name = re.escape(clip.rsplit("/", 1)[-1].split("-", 1)[-1])
    kind = re.sub(rf"^[^\s:]*{name}[^\s:]*:? ?", "", kind)
    return re.sub(r"\d+(\.\d+)?", "…", kind.removeprefix("the clip: "))[:160] or "no reason"
