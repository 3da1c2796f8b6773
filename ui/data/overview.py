"""What a prepared corpus holds: how balanced it is, who is in which set, its clips, and what was left out."""

from __future__ import annotations

import html
import re
from collections import Counter

import numpy as np
import streamlit as st

from core.data import splits
from ui import theme
from ui.session import corpora, query_params
from ui.session.corpora import CorpusSummary
from ui.widgets import charts

SET_ROLES = {  # what happens to each set in a run
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
SEX_LABELS = {"female": "female", "male": "male", "": "sex unknown"}


def show_corpora(found: dict[str, CorpusSummary]) -> None:
    """All prepared corpora, a line each."""
    numbers = {
        k: st.column_config.NumberColumn(format="localized")
        for k in ("Clips", "Faces", "Voices", "Emotions", "Left out")
    }
    about = "The same digest is the same arrays, whoever prepared them. Runs are named after it."
    columns = numbers | {"Digest": st.column_config.TextColumn(help=about, width="medium")}
    high = 38 + 35 * min(len(found), 5)  # the others are scrolled to
    st.dataframe(
        corpora.overview_table(found),
        hide_index=True,
        height=high,
        column_config=columns,
        alt="all prepared corpora, a line each",
    )


def show_source(c: CorpusSummary) -> None:
    """Where a corpus comes from."""
    m = c.meta
    more = [
        f"{m[k]} {what} of each clip"
        for k, what in (("frames", "faces"), ("crops", "spectrograms"))
        if m.get(k, 1) > 1
    ]
    more += [f"{c.logmel.bands} mel bands"] * bool(c.voices)
    words = [str(m.get("title", c.stem)), str(m.get("source", "")), ", ".join(c.emotions), *more]
    st.caption(" · ".join(theme.escape_markdown(w) for w in words if w))


# ------------------------------------------------------------------ balance


def show_balance(c: CorpusSummary) -> None:
    """Clips per emotion, sex and subject."""
    per = Counter(zip(c.sex.tolist(), c.emotion.tolist()))
    by_sex = {
        sex: {e: per[sex, e] for e in c.emotions}
        for sex in SEX_LABELS
        if any(s == sex for s, _ in per)
    }
    total = {e: sum(of[e] for of in by_sex.values()) for e in c.emotions}
    most, least = max(total, key=total.get), min(total, key=total.get)
    left, right = st.columns(2, gap="medium")
    with left:
        st.markdown("**Clips per emotion**, by sex")
        st.plotly_chart(
            charts.clips_by_emotion(by_sex),
            key="census",
            config=charts.NO_TOOLBAR_CONFIG,
            alt="clips per emotion and sex, as bars",
        )
        ratio = total[most] / max(1, total[least])
        if total[most] == total[least]:
            st.caption(f"{total[most]:,} clips of each emotion: evenly spread.")
        else:
            st.caption(
                f"{most} is the most frequent with {total[most]:,} clips, {least} the rarest with {total[least]:,}: {ratio:.1f} to 1. "
                + (
                    "Evenly spread."
                    if ratio < 1.2
                    else "Training evens this out by drawing rare emotions more often."
                )
            )
    with right:
        st.markdown("**Clips per subject**, the emotions in the same colours")
        if not c.subjects:
            groups = len(np.unique(c.subject[c.subject != ""]))
            about = "It is not known who is seen or heard here"
            st.info(
                f"{about}: {groups:,} groups of pictures that look alike are kept together instead.",
                icon=":material/group_off:",
            )
            return
        at = {s: i for i, s in enumerate(c.subjects)}
        counts = {e: [0] * len(at) for e in c.emotions}
        for (subject, emotion), n in Counter(
            zip(c.subject[c.has_known_subject].tolist(), c.emotion[c.has_known_subject].tolist())
        ).items():
            counts[emotion][at[subject]] = n
        st.plotly_chart(
            charts.clips_by_subject(c.subjects, counts),
            key="people",
            config=charts.NO_TOOLBAR_CONFIG,
            alt="clips of each subject, as bars",
        )
        sex_of = dict(zip(c.subject.tolist(), c.sex.tolist()))
        sexes = Counter(sex_of[s] for s in c.subjects)
        of = [
            f"{sexes[s]} {SEX_LABELS[s]} ({sum(by_sex.get(s, {}).values()):,} clips)"
            for s in SEX_LABELS
            if sexes[s]
        ]
        st.caption(f"{len(at)} subjects: {', '.join(of)}.")


# ------------------------------------------------------------------ the sets


def show_sets(stem: str, found: dict[str, CorpusSummary]) -> None:
    """Who is in S1-S4."""
    pairs = corpora.possible_pairs(stem, found)
    if not pairs:
        other = "faces" if found[stem].voices else "voices"
        st.info(
            f"A run needs faces and voices that name the same emotions. This corpus has no {other} of its own: "
            f"bring one that has, and the sets are shown here.",
            icon=":material/link_off:",
        )
        return
    a, b, d, e = st.columns([4, 3, 2, 2], gap="small")
    how = a.selectbox("Split", list(pairs), key=f"split {stem}", persist_state="session")
    pair = pairs[how]
    rated = any(found[p].has_votes for p in pair)
    label = b.selectbox(
        "Emotion of a clip",
        list(LABEL_SOURCES) if rated else ["intended"],
        format_func=LABEL_SOURCES.get,
        key=f"labels {stem} {rated}",
        persist_state="session",
        disabled=not rated,
        help="Votes of raters are known for CREMA-D with its summaryTable.csv."
        if not rated
        else "The paper takes the raters' votes.",
    )
    query_params.restore_widget("fold", "fold", 0, lambda k: int(k) if k in "01234" and k else None)
    query_params.restore_widget(
        "seed", "split seed", 0, lambda k: int(k) if k.isdecimal() and len(k) < 6 else None
    )
    about, go = (
        "Which fifth of the people tests (S4). Over the five folds everybody tests once.",
        {"on_change": query_params.save_widget},
    )
    fold = d.number_input("Fold", 0, 4, key="fold", help=about, args=("fold", "fold"), **go)
    about = "Of the order of the people."
    seed = e.number_input(
        "Seed", 0, 99_999, key="split seed", help=about, args=("seed", "split seed"), **go
    )
    more = {"labels": label, "fold": fold, "split_seed": seed}
    if label != "intended":
        kept = {
            "default": "drop",
            "required": True,
            "key": f"ties {stem}",
            "persist_state": "session",
        }
        more["ties"] = st.segmented_control(
            "Where the vote is tied", list(TIE_RULES), format_func=TIE_RULES.get, **kept
        )
    data = corpora.data_settings(pair, found, **more)
    table = corpora.set_table(pair, data)
    if isinstance(table, str):
        st.error(theme.escape_markdown(table), icon=":material/error:")
        return
    _show_set_table(table, pair, data.pairing)


def _show_set_table(table: dict, pair: tuple[str, str], pairing: str) -> None:
    titles = {"faces": f"faces of {pair[0]}", "voices": f"voices of {pair[1]}"}
    if pairing == "clip":
        titles = {"voices": "clips, each a face and its voice"}
    roles = tuple(titles)
    bars = {html.escape(titles[r]): {s: of[r]["classes"] for s, of in table.items()} for r in roles}
    st.plotly_chart(
        charts.clips_by_set(bars),
        key="sets",
        config=charts.NO_TOOLBAR_CONFIG,
        alt="clips of each emotion in the sets S1 to S4, as bars",
    )
    twice = {r: Counter(p for of in table.values() for p in of[r]["subjects"]) for r in roles}
    shared = sorted({p for of in twice.values() for p, n in of.items() if n > 1})
    people = " and ".join(
        f"{len(twice[r]):,} subjects of the {r if len(roles) > 1 else 'clips'}"
        for r in roles
        if twice[r]
    )
    unknown = sum(of[r]["unknown"] for of in table.values() for r in roles)
    if shared:
        st.error(
            "In two sets: " + theme.escape_markdown(", ".join(shared)), icon=":material/error:"
        )
    else:
        words = [f"{people}, each in exactly one set"] if people else []
        words += (
            [f"{unknown:,} groups of pictures or clips of unknown people, each kept together"]
            if unknown
            else []
        )
        st.markdown(
            f":material/verified: **Nobody is in two sets**: {'; '.join(words)}. Whoever tests was never seen in training."
        )
    if pairing == "emotion":
        st.caption(
            "Faces and voices of different people are split separately, and meet by emotion inside a set."
        )
    for name, column in zip(splits.SET_NAMES, st.columns(4, gap="small")):
        with column, st.container(border=True):
            st.markdown(f"**{name}** · {SET_ROLES[name]}")
            for r in roles:
                of = table[name][r]
                n = f"{of['clips']:,} {r if len(roles) > 1 else 'clips'}"
                who = f" of {len(of['subjects'])} subjects" if of["subjects"] else ""
                st.caption(
                    f"{n}{who}" + (f", {of['unknown']:,} unknown groups" if of["unknown"] else "")
                )
                if of["subjects"]:
                    st.html(subjects_html(list(of["subjects"])))


def subjects_html(names: list[str]) -> str:
    """Subjects as small marks, as HTML; what all names begin with is said once."""
    start = charts.common_prefix(names)
    look = "display:inline-block;border:1px solid currentColor;border-radius:.6em;padding:0 .4em;margin:.1em;font-size:.75rem;opacity:.85"
    marks = "".join(
        f'<span style="{look}">{html.escape(n.removeprefix(start))}</span>' for n in names
    )
    said = f'<div style="font-size:.75rem;opacity:.7">{html.escape(start)}…</div>' if start else ""
    return f'{said}<div style="max-height:12rem;overflow-y:auto">{marks}</div>'


# ------------------------------------------------------------------ clips


def show_clips(c: CorpusSummary) -> None:
    """A list of clips, and one of them: its face, spectrogram, sound, votes, and where it came from."""
    left, right = st.columns([5, 7], gap="large")
    with left:
        row = _choose_clip(c)
    with right:
        if row is None:
            st.info(
                "No clip is like that: choose another emotion or subject, or empty the search.",
                icon=":material/search_off:",
            )
        else:
            _show_clip(c, row)


def _choose_clip(c: CorpusSummary) -> int | None:
    """Filters and a table; the row that is chosen."""
    query_params.restore_widget(
        "emotion", f"emotion {c.stem}", "", lambda k: k if k in c.emotions else None
    )
    query_params.restore_widget(
        "subject", f"subject {c.stem}", "", lambda k: k if k in c.subjects else None
    )
    a, b, d = st.columns(3, gap="small")
    key = f"emotion {c.stem}"
    emotion = a.selectbox(
        "Emotion",
        ["", *c.emotions],
        format_func=lambda k: k or "all",
        key=key,
        on_change=query_params.save_widget,
        args=("emotion", key),
    )
    key = f"subject {c.stem}"
    everyone = ["", *c.subjects]
    subject = b.selectbox(
        "Subject",
        everyone,
        format_func=lambda k: k or ("all" if c.subjects else "unknown"),
        key=key,
        disabled=not c.subjects,
        on_change=query_params.save_widget,
        args=("subject", key),
    )
    text = d.text_input("Name holds", key=f"search {c.stem}", persist_state="session")
    rows = corpora.select_clips(c, emotion, subject, text)
    asked = np.nonzero(c.clip == st.query_params.get("clip", ""))[0]
    row = int(asked[0]) if len(asked) else None
    if not len(rows):
        return None
    pages, start, above = -(-len(rows) // corpora.CLIPS_PER_PAGE), 0, st.container()
    st.caption(
        f"{len(rows):,} of {len(c.clip):,} clips. A click at the left of a row opens the clip."
    )
    if pages > 1:
        about = f"{corpora.CLIPS_PER_PAGE} clips are on a page."
        page = st.number_input(
            f"Page of {pages}",
            1,
            pages,
            key=f"page {c.stem} {emotion} {subject} {text}",
            help=about,
        )
        start = corpora.CLIPS_PER_PAGE * (page - 1)
    shown = rows[start : start + corpora.CLIPS_PER_PAGE]
    key = f"clips {c.stem} {emotion} {subject} {text} {start}"
    picked = above.dataframe(
        corpora.clip_table(c, shown),
        hide_index=True,
        height=400,
        row_height=44 if c.faces else None,
        key=key,
        on_select="rerun",
        selection_mode="single-row",
        alt="clips; choose one by its row",
        column_config={
            "Face": st.column_config.ImageColumn(width=52),
            "Clip": st.column_config.TextColumn(width="medium"),
        },
    )["selection"]["rows"]
    if picked and picked != st.session_state.get(f"last {key}"):
        row = int(shown[picked[0]])
        query_params.set_value("clip", c.clip[row])
    st.session_state[f"last {key}"] = picked
    return row if row is not None else int(rows[0])


def _show_clip(c: CorpusSummary, row: int) -> None:
    name, emotion, drawn = str(c.clip[row]), str(c.emotion[row]), splits.is_demo(c.meta["name"])
    st.html(f"<b>{html.escape(name)}</b> · {theme.emotion_html(html.escape(emotion))}")
    with st.spinner("Opening the clip …"):
        own = corpora.load_original(c, row)
    face, frame, facts = st.columns([3, 5 if own.frame is not None else 0.01, 5], gap="small")
    with face:
        x = corpora.load_face(c, row) if c.face_of[row] >= 0 else None
        if isinstance(x, np.ndarray):
            st.image(
                np.kron(x, np.ones((8, 8), np.uint8)),
                output_format="PNG",
                width="stretch",
                alt=f"aligned face of {name}",
            )
            st.caption("Aligned, 28×28: all that the networks see")
        else:
            st.caption(theme.escape_markdown(x) if x else "This clip has no face.")
    with frame:
        if own.frame is not None:
            st.image(
                own.frame,
                width="stretch",
                output_format="JPEG",
                alt=f"the frame in the middle of {name}",
            )
            st.caption(
                "The frame in the middle of the recording"
                if not drawn
                else "The frame in the middle, drawn again"
            )
    with facts:
        who = str(c.subject[row]) if c.has_known_subject[row] else "unknown"
        known = {"subject": who, "sex": str(c.sex[row]) or "unknown"} | own.facts
        lines = "".join(
            f"<div><span style='opacity:.7'>{html.escape(k)}</span> {html.escape(v)}</div>"
            for k, v in known.items()
        )
        st.html(
            f"<div style='font-size:.875rem;overflow-wrap:anywhere'>{lines}{_votes_html(c, row, emotion)}</div>"
        )
    if own.note:
        st.caption(f":material/folder_off: {theme.escape_markdown(own.note)}")
    if c.voice_of[row] < 0:
        st.caption("This clip has no voice.")
        return
    y = corpora.load_voice(c, row)
    if isinstance(y, str):
        st.error(theme.escape_markdown(y), icon=":material/error:")
        return
    figure = charts.spectrogram(y, c.meta["ref_db"], c.logmel, height=200)
    st.plotly_chart(
        figure, key="clip", config=charts.NO_TOOLBAR_CONFIG, alt=f"spectrogram of {name}"
    )
    a, b = st.columns(2, gap="small")
    with a:
        st.caption(
            f"What is left of the voice in {c.logmel.bands} bands: made from the spectrogram"
        )
        st.audio(
            corpora.to_wav(y, c.meta["ref_db"]), "audio/wav", alt="sound made from the spectrogram"
        )
    if own.wav:
        with b:
            st.caption("The whole recording" if not drawn else "The whole voice, synthesised again")
            st.audio(own.wav, "audio/wav", alt="the clip's own sound")


def _votes_html(c: CorpusSummary, row: int, meant: str) -> str:
    """What the raters said, as HTML."""
    words = {"voice": "who heard", "face": "who saw", "both": "who did both"}
    lines = []
    for what, vote in corpora.rater_votes(c, row).items():
        tied = vote.split("|")
        shown = (
            " = ".join(theme.emotion_html(html.escape(v)) for v in tied)
            + (" (tied)" if len(tied) > 1 else "")
            if vote
            else "nobody voted"
        )
        shown += " ≠ meant" if vote and vote != meant else ""
        lines.append(f"<div><span style='opacity:.7'>raters {words[what]}</span> {shown}</div>")
    return "".join(lines)


# ------------------------------------------------------------------ what was left out


def show_left_out(c: CorpusSummary) -> None:
    """Why clips are missing."""
    if not c.left_out and not c.alignment_notes:
        st.success(
            "Nothing was left out: every clip of the source is here.",
            icon=":material/check_circle:",
        )
        return
    if c.left_out:
        groups: dict[str, list[tuple[str, str]]] = {}
        for clip, reason in c.left_out.items():
            groups.setdefault(_reason_kind(reason, clip), []).append((clip, reason))
        n = len(c.left_out)
        st.markdown(
            f"**{n:,} of {n + len(c.clip):,} clips** could not be used. Runs never see them."
        )
        for kind, members in sorted(groups.items(), key=lambda g: -len(g[1])):
            with st.expander(
                f"{len(members):,} × {theme.escape_markdown(kind)}",
                icon=":material/block:",
                expanded=len(groups) == 1,
            ):
                names, reasons = zip(*members)
                high = min(300, 38 + 35 * len(members))
                st.dataframe(
                    {"Clip": names, "Reason": reasons},
                    hide_index=True,
                    height=high,
                    alt="clips left out",
                )
    if c.alignment_notes:
        st.markdown(
            "**Kept, with a remark**: pictures in which no landmarks were found are aligned as the others are on average."
        )
        st.dataframe(
            {"Emotion": list(c.alignment_notes), "Pictures": list(c.alignment_notes.values())},
            hide_index=True,
            alt="pictures without landmarks",
        )


def _reason_kind(reason: str, clip: str) -> str:
    """A reason without what belongs to one clip alone."""
    kind = re.sub(r"^(NoFaceError|MediaError|CorpusError): ", "", reason).replace(clip, "the clip")
    kind = re.sub(
        r"^[^\s:]*" + re.escape(clip.rsplit("/", 1)[-1].split("-", 1)[-1]) + r"[^\s:]*:? ?",
        "",
        kind,
    )
    return re.sub(r"\d+(\.\d+)?", "…", kind.removeprefix("the clip: "))[:160] or "no reason"
