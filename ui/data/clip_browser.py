"""Clips of a prepared corpus: a filtered table, and one clip with its face, voice and votes."""

from __future__ import annotations

import html

import numpy as np
import streamlit as st

from core.data import prepared_corpora
from ui import theme
from ui.session import corpora, query_params
from ui.session.corpora import CorpusSummary, OriginalClip
from ui.widgets import charts, choices


def show_clips(c: CorpusSummary) -> None:
    """A table of clips, and the chosen one of them."""
    left, right = st.columns([5, 7], gap="large")
    with left:
        row = _choose_clip(c)
    with right:
        if row is None:
            words = "No clip is like that: choose another emotion or subject, or empty the search."
            st.info(words, icon=":material/search_off:")
        else:
            _show_clip(c, row)


def _choose_clip(c: CorpusSummary) -> int | None:
    """Filters and a table of the clips that pass; the chosen row, None if no clip passes.

    The chosen clip is the clicked one, else the URL's `clip`, else the first that passes.
    """
    a, b, d = st.columns(3, gap="small")
    options = {"": "all"} | {k: k for k in c.emotions}
    bound = choices.option_args("emotion", f"emotion {c.stem}", options, "")
    emotion = a.selectbox("Emotion", **bound)
    options = {"": "all" if c.subjects else "unknown"} | {k: k for k in c.subjects}
    bound = choices.option_args("subject", f"subject {c.stem}", options, "")
    subject = b.selectbox("Subject", disabled=not c.subjects, **bound)
    text = d.text_input("Name holds", key=f"search {c.stem}", persist_state="session")
    rows = corpora.select_clips(c, emotion, subject, text)
    asked = np.nonzero(c.clip == st.query_params.get("clip", ""))[0]
    row = int(asked[0]) if len(asked) else None
    if not len(rows):
        return None
    # the table of one page of clips, above the input that turns pages
    per_page, above = corpora.CLIPS_PER_PAGE, st.container()
    pages, start = -(-len(rows) // per_page), 0
    st.caption(f"{len(rows):,} of {len(c.clip):,} clips. Click at the left of a row to open it.")
    key = f"{c.stem} {emotion} {subject} {text}"
    if pages > 1:
        about = f"{per_page} clips are on a page."
        page = st.number_input(f"Page of {pages}", 1, pages, key=f"page {key}", help=about)
        start = per_page * (page - 1)
    shown, key = rows[start : start + per_page], f"clips {key} {start}"
    columns = {
        "Face": st.column_config.ImageColumn(width=52),
        "Clip": st.column_config.TextColumn(width="medium"),
    }
    look = {"hide_index": True, "height": 400, "row_height": 44 if c.faces else None}
    look |= {"column_config": columns, "alt": "clips; choose one by its row"}
    select = {"on_select": "rerun", "selection_mode": "single-row", "key": key}
    table = corpora.clip_table(c, shown)
    picked = above.dataframe(table, **look, **select)["selection"]["rows"]
    # a new click wins over the URL
    if picked and picked != st.session_state.get(f"last {key}"):
        row = int(shown[picked[0]])
        query_params.set_value("clip", c.clip[row])
    st.session_state[f"last {key}"] = picked
    return row if row is not None else int(rows[0])


def _show_clip(c: CorpusSummary, row: int) -> None:
    """One clip: aligned face, original frame, facts and votes, spectrogram and sounds."""
    name, emotion = str(c.clip[row]), str(c.emotion[row])
    is_demo = prepared_corpora.is_demo(c.meta["name"])
    st.html(f"<b>{html.escape(name)}</b> · {theme.emotion_html(emotion)}")
    with st.spinner("Opening the clip …"):
        original = corpora.load_original(c, row)
    has_frame = original.frame is not None
    face, frame, facts = st.columns([3, 5 if has_frame else 0.01, 5], gap="small")
    with face:
        _show_face(c, row)
    if has_frame:
        alt = f"the frame in the middle of {name}"
        frame.image(original.frame, width="stretch", output_format="JPEG", alt=alt)
        words = "The frame in the middle of the recording"
        frame.caption("The frame in the middle, drawn again" if is_demo else words)
    with facts:
        _show_facts(c, row, original.facts)
    if original.note:
        st.caption(f":material/folder_off: {theme.escape_markdown(original.note)}")
    _show_voice(c, row, original, is_demo)


def _show_face(c: CorpusSummary, row: int) -> None:
    x = corpora.load_face(c, row) if c.face_of[row] >= 0 else None
    if not isinstance(x, np.ndarray):
        st.caption(theme.escape_markdown(x) if x else "This clip has no face.")
        return
    alt = f"aligned face of {c.clip[row]}"
    large = np.kron(x, np.ones((8, 8), np.uint8))
    st.image(large, output_format="PNG", width="stretch", alt=alt)
    st.caption("Aligned, 28×28: all that the networks see")


def _show_facts(c: CorpusSummary, row: int, facts: dict[str, str]) -> None:
    """Subject, sex, the file's `facts` and the raters' votes."""
    subject = str(c.subject[row]) if c.has_known_subject[row] else "unknown"
    known = {"subject": subject, "sex": str(c.sex[row]) or "unknown"} | facts
    lines = "".join(_fact_html(html.escape(k), html.escape(v)) for k, v in known.items())
    lines += _votes_html(c, row, str(c.emotion[row]))
    st.html(f"<div style='font-size:.875rem;overflow-wrap:anywhere'>{lines}</div>")


def _show_voice(c: CorpusSummary, row: int, original: OriginalClip, is_demo: bool) -> None:
    """The voice's spectrogram, the sound made from it, and the whole recording."""
    if c.voice_of[row] < 0:
        st.caption("This clip has no voice.")
        return
    y = corpora.load_voice(c, row)
    if isinstance(y, str):
        st.error(theme.escape_markdown(y), icon=":material/error:")
        return
    ref_db = c.meta["ref_db"]
    figure = charts.spectrogram(y, ref_db, c.logmel, height=200)
    show = {"config": charts.NO_TOOLBAR_CONFIG, "alt": f"spectrogram of {c.clip[row]}"}
    st.plotly_chart(figure, key="clip", **show)
    a, b = st.columns(2, gap="small")
    a.caption(f"The voice as {c.logmel.bands} bands keep it: made from the spectrogram")
    a.audio(corpora.to_wav(y, ref_db), "audio/wav", alt="sound made from the spectrogram")
    if original.wav:
        b.caption("The whole voice, synthesised again" if is_demo else "The whole recording")
        b.audio(original.wav, "audio/wav", alt="the clip's own sound")


def _votes_html(c: CorpusSummary, row: int, intended: str) -> str:
    """The raters' votes as HTML; a vote other than `intended` is marked."""
    raters = {"voice": "who heard", "face": "who saw", "both": "who did both"}
    lines = []
    for what, vote in corpora.rater_votes(c, row).items():
        labels = vote.split("|")
        words = "nobody voted"
        if vote:
            words = " = ".join(theme.emotion_html(k) for k in labels)
            words += " (tied)" if len(labels) > 1 else ""
            words += " ≠ meant" if vote != intended else ""
        lines.append(_fact_html(f"raters {raters[what]}", words))
    return "".join(lines)


def _fact_html(name: str, value: str) -> str:
    return f"<div><span style='opacity:.7'>{name}</span> {value}</div>"
