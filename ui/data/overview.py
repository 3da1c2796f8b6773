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
from ui.session.corpora import Corpus
from ui.widgets import charts

LEARNS = {  # what happens to each set in a run
    "S1": "trains the face classifier and the baselines",
    "S2": "calibrates the p-values; choices are made on it",
    "S3": "trains the generator",
    "S4": "tests everything, once, at the end",
}
LABELS = {"intended": "what the actor meant", "voice": "raters who heard", "face": "raters who saw", "both": "raters who heard and saw"}
TIES = {"drop": "leave the clip out", "intended": "keep what was meant"}
SEXES = {"female": "female", "male": "male", "": "sex unknown"}


def overview(found: dict[str, Corpus]) -> None:
    """All prepared corpora, a line each."""
    numbers = {k: st.column_config.NumberColumn(format="localized") for k in ("Clips", "Faces", "Voices", "Emotions", "Left out")}
    about = "The same digest is the same arrays, whoever prepared them. Runs are named after it."
    columns = numbers | {"Digest": st.column_config.TextColumn(help=about, width="medium")}
    high = 38 + 35 * min(len(found), 5)  # the others are scrolled to
    st.dataframe(corpora.overview(found), hide_index=True, height=high, column_config=columns, alt="all prepared corpora, a line each")


def head(c: Corpus) -> None:
    """Where a corpus comes from."""
    m = c.meta
    more = [f"{m[k]} {what} of each clip" for k, what in (("frames", "faces"), ("crops", "spectrograms")) if m.get(k, 1) > 1]
    more += [f"{c.logmel.bands} mel bands"] * bool(c.voices)
    words = [str(m.get("title", c.stem)), str(m.get("source", "")), ", ".join(c.emotions), *more]
    st.caption(" · ".join(theme.escaped(w) for w in words if w))


# ------------------------------------------------------------------ balance


def balance(c: Corpus) -> None:
    """Clips per emotion, sex and subject."""
    per = Counter(zip(c.sex.tolist(), c.emotion.tolist()))
    by_sex = {sex: {e: per[sex, e] for e in c.emotions} for sex in SEXES if any(s == sex for s, _ in per)}
    total = {e: sum(of[e] for of in by_sex.values()) for e in c.emotions}
    most, least = max(total, key=total.get), min(total, key=total.get)
    left, right = st.columns(2, gap="medium")
    with left:
        st.markdown("**Clips per emotion**, by sex")
        st.plotly_chart(charts.census(by_sex), key="census", config=charts.STILL, alt="clips per emotion and sex, as bars")
        ratio = total[most] / max(1, total[least])
        if total[most] == total[least]:
            st.caption(f"{total[most]:,} clips of each emotion: evenly spread.")
        else:
            st.caption(
                f"{most} is the most frequent with {total[most]:,} clips, {least} the rarest with {total[least]:,}: {ratio:.1f} to 1. "
                + ("Evenly spread." if ratio < 1.2 else "Training evens this out by drawing rare emotions more often.")
            )
    with right:
        st.markdown("**Clips per subject**, the emotions in the same colours")
        if not c.subjects:
            groups = len(np.unique(c.subject[c.subject != ""]))
            about = "It is not known who is seen or heard here"
            st.info(f"{about}: {groups:,} groups of pictures that look alike are kept together instead.", icon=":material/group_off:")
            return
        at = {s: i for i, s in enumerate(c.subjects)}
        counts = {e: [0] * len(at) for e in c.emotions}
        for (subject, emotion), n in Counter(zip(c.subject[c.known].tolist(), c.emotion[c.known].tolist())).items():
            counts[emotion][at[subject]] = n
        st.plotly_chart(charts.people(c.subjects, counts), key="people", config=charts.STILL, alt="clips of each subject, as bars")
        sex_of = dict(zip(c.subject.tolist(), c.sex.tolist()))
        sexes = Counter(sex_of[s] for s in c.subjects)
        of = [f"{sexes[s]} {SEXES[s]} ({sum(by_sex.get(s, {}).values()):,} clips)" for s in SEXES if sexes[s]]
        st.caption(f"{len(at)} subjects: {', '.join(of)}.")


# ------------------------------------------------------------------ the sets


def sets(stem: str, found: dict[str, Corpus]) -> None:
    """Who is in S1-S4."""
    pairs = corpora.partners(stem, found)
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
    rated = any(found[p].rated for p in pair)
    label = b.selectbox(
        "Emotion of a clip",
        list(LABELS) if rated else ["intended"],
        format_func=LABELS.get,
        key=f"labels {stem} {rated}",
        persist_state="session",
        disabled=not rated,
        help="Votes of raters are known for CREMA-D with its summaryTable.csv." if not rated else "The paper takes the raters' votes.",
    )
    query_params.follow("fold", "fold", 0, lambda k: int(k) if k in "01234" and k else None)
    query_params.follow("seed", "split seed", 0, lambda k: int(k) if k.isdecimal() and len(k) < 6 else None)
    about, go = "Which fifth of the people tests (S4). Over the five folds everybody tests once.", {"on_change": query_params.keep}
    fold = d.number_input("Fold", 0, 4, key="fold", help=about, args=("fold", "fold"), **go)
    about = "Of the order of the people."
    seed = e.number_input("Seed", 0, 99_999, key="split seed", help=about, args=("seed", "split seed"), **go)
    more = {"labels": label, "fold": fold, "split_seed": seed}
    if label != "intended":
        kept = {"default": "drop", "required": True, "key": f"ties {stem}", "persist_state": "session"}
        more["ties"] = st.segmented_control("Where the vote is tied", list(TIES), format_func=TIES.get, **kept)
    data = corpora.data_of(pair, found, **more)
    table = corpora.sets(pair, data)
    if isinstance(table, str):
        st.error(theme.escaped(table), icon=":material/error:")
        return
    _shown(table, pair, data.pairing)


def _shown(table: dict, pair: tuple[str, str], pairing: str) -> None:
    titles = {"faces": f"faces of {pair[0]}", "voices": f"voices of {pair[1]}"}
    if pairing == "clip":
        titles = {"voices": "clips, each a face and its voice"}
    roles = tuple(titles)
    bars = {html.escape(titles[r]): {s: of[r]["classes"] for s, of in table.items()} for r in roles}
    st.plotly_chart(charts.sets(bars), key="sets", config=charts.STILL, alt="clips of each emotion in the sets S1 to S4, as bars")
    twice = {r: Counter(p for of in table.values() for p in of[r]["subjects"]) for r in roles}
    shared = sorted({p for of in twice.values() for p, n in of.items() if n > 1})
    people = " and ".join(f"{len(twice[r]):,} subjects of the {r if len(roles) > 1 else 'clips'}" for r in roles if twice[r])
    unknown = sum(of[r]["unknown"] for of in table.values() for r in roles)
    if shared:
        st.error("In two sets: " + theme.escaped(", ".join(shared)), icon=":material/error:")
    else:
        words = [f"{people}, each in exactly one set"] if people else []
        words += [f"{unknown:,} groups of pictures or clips of unknown people, each kept together"] if unknown else []
        st.markdown(f":material/verified: **Nobody is in two sets**: {'; '.join(words)}. Whoever tests was never seen in training.")
    if pairing == "emotion":
        st.caption("Faces and voices of different people are split separately, and meet by emotion inside a set.")
    for name, column in zip(splits.SETS, st.columns(4, gap="small")):
        with column, st.container(border=True):
            st.markdown(f"**{name}** · {LEARNS[name]}")
            for r in roles:
                of = table[name][r]
                n = f"{of['clips']:,} {r if len(roles) > 1 else 'clips'}"
                who = f" of {len(of['subjects'])} subjects" if of["subjects"] else ""
                st.caption(f"{n}{who}" + (f", {of['unknown']:,} unknown groups" if of["unknown"] else ""))
                if of["subjects"]:
                    st.html(chips(list(of["subjects"])))


def chips(names: list[str]) -> str:
    """Subjects as small marks, as HTML; what all names begin with is said once."""
    start = charts.beginning(names)
    look = "display:inline-block;border:1px solid currentColor;border-radius:.6em;padding:0 .4em;margin:.1em;font-size:.75rem;opacity:.85"
    marks = "".join(f'<span style="{look}">{html.escape(n.removeprefix(start))}</span>' for n in names)
    said = f'<div style="font-size:.75rem;opacity:.7">{html.escape(start)}…</div>' if start else ""
    return f'{said}<div style="max-height:12rem;overflow-y:auto">{marks}</div>'


# ------------------------------------------------------------------ clips


def clips(c: Corpus) -> None:
    """A list of clips, and one of them: its face, spectrogram, sound, votes, and where it came from."""
    left, right = st.columns([5, 7], gap="large")
    with left:
        row = _list(c)
    with right:
        if row is None:
            st.info("No clip is like that: choose another emotion or subject, or empty the search.", icon=":material/search_off:")
        else:
            _one(c, row)


def _list(c: Corpus) -> int | None:
    """Filters and a table; the row that is chosen."""
    query_params.follow("emotion", f"emotion {c.stem}", "", lambda k: k if k in c.emotions else None)
    query_params.follow("subject", f"subject {c.stem}", "", lambda k: k if k in c.subjects else None)
    a, b, d = st.columns(3, gap="small")
    key = f"emotion {c.stem}"
    emotion = a.selectbox(
        "Emotion", ["", *c.emotions], format_func=lambda k: k or "all", key=key, on_change=query_params.keep, args=("emotion", key)
    )
    key = f"subject {c.stem}"
    everyone = ["", *c.subjects]
    subject = b.selectbox(
        "Subject",
        everyone,
        format_func=lambda k: k or ("all" if c.subjects else "unknown"),
        key=key,
        disabled=not c.subjects,
        on_change=query_params.keep,
        args=("subject", key),
    )
    text = d.text_input("Name holds", key=f"search {c.stem}", persist_state="session")
    rows = corpora.chosen(c, emotion, subject, text)
    asked = np.nonzero(c.clip == st.query_params.get("clip", ""))[0]
    row = int(asked[0]) if len(asked) else None
    if not len(rows):
        return None
    pages, start, above = -(-len(rows) // corpora.PAGE), 0, st.container()
    st.caption(f"{len(rows):,} of {len(c.clip):,} clips. A click at the left of a row opens the clip.")
    if pages > 1:
        about = f"{corpora.PAGE} clips are on a page."
        page = st.number_input(f"Page of {pages}", 1, pages, key=f"page {c.stem} {emotion} {subject} {text}", help=about)
        start = corpora.PAGE * (page - 1)
    shown = rows[start : start + corpora.PAGE]
    key = f"clips {c.stem} {emotion} {subject} {text} {start}"
    picked = above.dataframe(
        corpora.table(c, shown),
        hide_index=True,
        height=400,
        row_height=44 if c.faces else None,
        key=key,
        on_select="rerun",
        selection_mode="single-row",
        alt="clips; choose one by its row",
        column_config={"Face": st.column_config.ImageColumn(width=52), "Clip": st.column_config.TextColumn(width="medium")},
    )["selection"]["rows"]
    if picked and picked != st.session_state.get(f"last {key}"):
        row = int(shown[picked[0]])
        query_params.write("clip", c.clip[row])
    st.session_state[f"last {key}"] = picked
    return row if row is not None else int(rows[0])


def _one(c: Corpus, row: int) -> None:
    name, emotion, drawn = str(c.clip[row]), str(c.emotion[row]), splits.is_drawn(c.meta["name"])
    st.html(f"<b>{html.escape(name)}</b> · {theme.dot(html.escape(emotion))}")
    with st.spinner("Opening the clip …"):
        own = corpora.original(c, row)
    face, frame, facts = st.columns([3, 5 if own.frame is not None else 0.01, 5], gap="small")
    with face:
        x = corpora.face(c, row) if c.face_of[row] >= 0 else None
        if isinstance(x, np.ndarray):
            st.image(np.kron(x, np.ones((8, 8), np.uint8)), output_format="PNG", width="stretch", alt=f"aligned face of {name}")
            st.caption("Aligned, 28×28: all that the networks see")
        else:
            st.caption(theme.escaped(x) if x else "This clip has no face.")
    with frame:
        if own.frame is not None:
            st.image(own.frame, width="stretch", output_format="JPEG", alt=f"the frame in the middle of {name}")
            st.caption("The frame in the middle of the recording" if not drawn else "The frame in the middle, drawn again")
    with facts:
        who = str(c.subject[row]) if c.known[row] else "unknown"
        known = {"subject": who, "sex": str(c.sex[row]) or "unknown"} | own.facts
        lines = "".join(f"<div><span style='opacity:.7'>{html.escape(k)}</span> {html.escape(v)}</div>" for k, v in known.items())
        st.html(f"<div style='font-size:.875rem;overflow-wrap:anywhere'>{lines}{_votes(c, row, emotion)}</div>")
    if own.note:
        st.caption(f":material/folder_off: {theme.escaped(own.note)}")
    if c.voice_of[row] < 0:
        st.caption("This clip has no voice.")
        return
    y = corpora.voice(c, row)
    if isinstance(y, str):
        st.error(theme.escaped(y), icon=":material/error:")
        return
    figure = charts.spectrogram(y, c.meta["ref_db"], c.logmel, height=200)
    st.plotly_chart(figure, key="clip", config=charts.STILL, alt=f"spectrogram of {name}")
    a, b = st.columns(2, gap="small")
    with a:
        st.caption(f"What is left of the voice in {c.logmel.bands} bands: made from the spectrogram")
        st.audio(corpora.sound(y, c.meta["ref_db"]), "audio/wav", alt="sound made from the spectrogram")
    if own.wav:
        with b:
            st.caption("The whole recording" if not drawn else "The whole voice, synthesised again")
            st.audio(own.wav, "audio/wav", alt="the clip's own sound")


def _votes(c: Corpus, row: int, meant: str) -> str:
    """What the raters said, as HTML."""
    words = {"voice": "who heard", "face": "who saw", "both": "who did both"}
    lines = []
    for what, vote in corpora.said(c, row).items():
        tied = vote.split("|")
        shown = " = ".join(theme.dot(html.escape(v)) for v in tied) + (" (tied)" if len(tied) > 1 else "") if vote else "nobody voted"
        shown += " ≠ meant" if vote and vote != meant else ""
        lines.append(f"<div><span style='opacity:.7'>raters {words[what]}</span> {shown}</div>")
    return "".join(lines)


# ------------------------------------------------------------------ what was left out


def left_out(c: Corpus) -> None:
    """Why clips are missing."""
    if not c.left_out and not c.remarks:
        st.success("Nothing was left out: every clip of the source is here.", icon=":material/check_circle:")
        return
    if c.left_out:
        groups: dict[str, list[tuple[str, str]]] = {}
        for clip, reason in c.left_out.items():
            groups.setdefault(_kind(reason, clip), []).append((clip, reason))
        n = len(c.left_out)
        st.markdown(f"**{n:,} of {n + len(c.clip):,} clips** could not be used. Runs never see them.")
        for kind, members in sorted(groups.items(), key=lambda g: -len(g[1])):
            with st.expander(f"{len(members):,} × {theme.escaped(kind)}", icon=":material/block:", expanded=len(groups) == 1):
                names, reasons = zip(*members)
                high = min(300, 38 + 35 * len(members))
                st.dataframe({"Clip": names, "Reason": reasons}, hide_index=True, height=high, alt="clips left out")
    if c.remarks:
        st.markdown("**Kept, with a remark**: pictures in which no landmarks were found are aligned as the others are on average.")
        st.dataframe({"Emotion": list(c.remarks), "Pictures": list(c.remarks.values())}, hide_index=True, alt="pictures without landmarks")


def _kind(reason: str, clip: str) -> str:
    """A reason without what belongs to one clip alone."""
    kind = re.sub(r"^(NoFaceError|MediaError|CorpusError): ", "", reason).replace(clip, "the clip")
    kind = re.sub(r"^[^\s:]*" + re.escape(clip.rsplit("/", 1)[-1].split("-", 1)[-1]) + r"[^\s:]*:? ?", "", kind)
    return re.sub(r"\d+(\.\d+)?", "…", kind.removeprefix("the clip: "))[:160] or "no reason"
