"""The page Listen: voices as long as their clip, and how often a voice is heard as meant."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from core.config.settings import LogMel
from core.data import prepared_corpora
from ui import theme
from ui.session import cache, query_params
from ui.session.cache import GeneratedLongVoice, RunFamily, cache_by_run, cache_with_progress
from ui.widgets import players, spectrogram, uploads

if TYPE_CHECKING:
    from core.inference.generation import Audio

# Heard as meant with it: the runs of real faces on the photograph, those of demo on the drawn clip.
# The run `listening` gives the photograph a voice with a clear pitch (LOG.md).
FIRST_SEED = 323
PLOT_MARGINS = 46, 50  # pixels left and right of a spectrogram, for its axis and scale
WHOLE_CLIP = "Whole clip"
WHOLE_CLIP_NOTE = (
    "These are the verdicts on the one frame that is shown. The voices of the whole clip follow "
    "the face from window to window: see *told* below each."
)
DRAWS, DRAWS_PER_CALL = 40, 8
SHARE_FACES = 4  # drawn people whose voices say how much the face decides
FACE_SHARE_HELP = (
    "Share of the variance of this run's voices that remains when condition and noise stay the "
    "same (4 drawn people, 4 draws of the noise). One run, no spread."
)
MIN_NAMED_SHARE = 0.15  # an emotion below this share of every window is not in the legend


def families_to_hear() -> list[RunFamily]:
    """The runs to choose from; those that were made to be heard come first."""
    return sorted(cache.families(), key=lambda f: not cache.run_config(f.id).data.listening)


def draw_first_voices() -> None:
    """Draw what the page opens with before its first visitor comes.

    Raises UserError where a file of the run is missing or damaged.
    """
    for family in families_to_hear()[:1]:
        _, seen = uploads.load_example_clip(next(iter(uploads.EXAMPLES)))
        face, judged = seen.aligned[seen.middle], cache.judged_faces(seen)
        for run_id in family.members.values():
            cache.example_voice(run_id, face, None, FIRST_SEED, judged)


def show_long_voice(
    condition: str,
    one: GeneratedLongVoice,
    classes: Sequence[str],
    ref_db: float,
    s: LogMel,
    stem: str,
    letter: str = "",
    plain: Audio | None = None,
) -> None:
    """One condition's voice of a whole clip; `plain` is the same by plain Griffin-Lim."""
    p = one.long_voice
    strongest = {classes[k] for k in p.c.argmax(axis=1)} if p.c.shape[1] else set()
    label = strongest.pop() if len(strongest) == 1 else "each face's own"
    with st.container(border=True):
        left, right = st.columns([8, 3], gap="medium", vertical_alignment="center")
        with left:
            players.show_heading(condition, label)
            alt = f"generated spectrogram of the whole clip, {condition}"
            spectrogram.show_canvas(p.y, ref_db, s, f"chart whole {condition}", alt, 190)
            st.html(windows_html(one.facts, classes))
        with right:
            players.show_generated(one.sound, f"{condition}, of the whole clip", letter, plain)
            st.markdown(agreement_text(one.facts))
            seconds = f"{len(one.sound.wave) / s.rate:.1f} s"
            more = " Longer clips have a voice for their first 20 s." if p.is_truncated else ""
            st.caption(f"{seconds}, {len(p.starts)} windows with one noise.{more}")
            facts = lambda: json.dumps(one.facts, indent=1, ensure_ascii=False)  # noqa: E731
            names = f"{stem}-{condition}-whole", f"whole {condition}"
            players.show_downloads(one.sound, p.y, *names, facts)


def windows_html(facts: Sequence[dict], classes: Sequence[str]) -> str:
    """The told condition over time, and below it the scorer's softmax, as HTML.

    Each window is a bar, which the emotions' colours divide by their shares.
    """
    left, right = PLOT_MARGINS
    rows = [("heard by the scorer", "heard")]  # key of a window's record, word on the page
    if facts[0]["c"]:
        rows.insert(0, ("c", "told"))
    named = [
        k
        for k in classes
        if any(w[of][k] > MIN_NAMED_SHARE * sum(w[of].values()) for w in facts for of, _ in rows)
    ]
    legend = " &nbsp; ".join(theme.emotion_html(k) for k in named)
    bars = "".join(_windows_row_html(facts, classes, of, word) for of, word in rows)
    place = f"margin:.25rem {right}px 0 {left}px;font-size:.8125rem"
    return f"{bars}<div style='{place}'>{legend}</div>"


def _windows_row_html(facts: Sequence[dict], classes: Sequence[str], of: str, word: str) -> str:
    left, right = PLOT_MARGINS
    bars = []
    for w in facts:
        values, total = w[of], max(sum(w[of].values()), 1e-9)
        parts = "".join(
            f"<div style='height:{100 * values[k] / total:.1f}%;"
            f"background:{theme.emotion_colour(k)}'></div>"
            for k in reversed(classes)
        )
        best = sorted(values, key=values.__getitem__)[:-4:-1]
        words = f"{w['from']:.2f} to {w['to']:.2f} s, face at {w['time']:.2f} s: {word} "
        words += ", ".join(f"{k} {values[k]:.2f}" for k in best)
        width = f"flex:{w['to'] - w['from']:.3f} 0 0"
        style = f"{width};display:flex;flex-direction:column;height:100%"
        bars.append(f"<div title='{html.escape(words, quote=True)}' style='{style}'>{parts}</div>")
    row = f"margin-bottom:3px;margin-right:{right}px;font-size:.8125rem"
    strip = "flex:1;height:20px;display:flex;border-radius:4px;overflow:hidden"
    label = f"role='img' aria-label='what was {word} when'"
    return (
        f"<div style='display:flex;align-items:center;{row}'>"
        f"<div style='width:{left}px;flex:none'>{word}</div>"
        f"<div {label} style='{strip}'>{''.join(bars)}</div></div>"
    )


def agreement_text(facts: Sequence[dict]) -> str:
    """Sentence on the windows in which the judge hears the told emotion; "" if none was told."""
    if not facts[0]["c"]:
        return ""
    pairs = ((w["c"], w["heard by the scorer"]) for w in facts)
    alike = sum(max(c, key=c.get) == max(heard, key=heard.get) for c, heard in pairs)
    return f"The judge hears the emotion that was told in **{alike} of {len(facts)}** windows."


LISTENING_NOTE = (
    "Made to be heard: it learnt from all people but the test people. Runs of the paper's "
    "three conditions are in the list above, too."
)

# ------------------------------------------------------------------ many draws of one voice


def choose_run_of_example(families: Sequence[RunFamily]) -> None:
    """Callback of the example: a drawn face goes to a run on drawn faces, a photograph does not."""
    is_drawn = st.session_state["example"].startswith("drawn")
    for family in families:
        if prepared_corpora.is_demo(cache.run_config(family.id).data.faces) == is_drawn:
            query_params.set_value("run", family.id)
            return


@cache_with_progress(120, scope="session")
def heard_emotions(
    directory: Path, x: np.ndarray, c: np.ndarray, _report: Callable[[int], None]
) -> np.ndarray:
    """(DRAWS,) what the judge hears in voices of one face and condition that differ in noise.

    The first is that of seed 0. `_report` is called with the number of voices drawn so far.
    """
    from core.inference import generation

    run, heard = cache.load_run(directory.name), []
    for seed in range(0, DRAWS, DRAWS_PER_CALL):
        _report(seed)
        y = generation.generate_voices(run, x, c, seed, DRAWS_PER_CALL)
        heard.append(generation.classify_samples(run, y)["scorer"].argmax(axis=1))
    return np.concatenate(heard)


@cache_by_run(24)
def face_share(directory: Path) -> float:
    """The face's share of how a run's voices differ, over drawn people with an emotion each."""
    from core.data.demo import actors, expressions
    from core.inference import conditions

    run, takes = cache.load_run(directory.name), actors.list_takes(1)
    people = {(t.actor, t.emotion): t for t in takes}
    emotions = [k for k in run.classes if any(e == k for _, e in people)]
    chosen = [(i + 1, emotions[i % len(emotions)]) for i in range(SHARE_FACES)]
    x = np.stack([expressions.aligned_face(people[key], 0.6) for key in chosen])
    if run.config.gan.condition == "label":
        indices = [run.classes.index(emotion) for _, emotion in chosen]
        c = np.stack([conditions.of_emotion(run.config, k) for k in indices])
    else:
        c = conditions.of_faces(run, x)
    return conditions.face_share(run, x, c)


def face_share_text(share: float) -> str:
    """Who decides how a run's voices differ, in words."""
    shown = "less than 1" if share < 0.01 else f"{100 * share:.0f}"
    return f"Here the face decides {shown} %, the emotion and the noise the rest."


def show_rate(run_id: str, x: np.ndarray, c: np.ndarray, first_choice: str) -> None:
    """How often the judge hears a voice of this face and condition as it is meant.

    A flow takes seconds for that many voices, so it waits for a click and shows its progress.
    """
    classes = cache.run_config(run_id).data.classes
    meant = int(c.argmax()) if len(c) else classes.index(first_choice)
    place = st.empty()
    report = lambda done: None  # noqa: E731
    if cache.run_config(run_id).gan.generator == "flow":
        asked = st.session_state.setdefault("asked draws", set())
        voice = (run_id, x.tobytes(), c.tobytes())
        words = f"How often is it heard as meant? {DRAWS} draws"
        go = {"on_click": asked.add, "args": (voice,), "icon": ":material/casino:"}
        if voice not in asked:
            place.button(words, key=f"draws {run_id}", **go)
            return
        bar = place.progress
        report = lambda done: bar(done / DRAWS, f"{done} of {DRAWS} voices drawn")  # noqa: E731
    place.html(rate_html(heard_emotions(run_id, x, c, report), meant, classes))
    if cache.run_config(run_id).gan.use_source:
        st.caption(face_share_text(face_share(run_id)), help=FACE_SHARE_HELP)


def rate_html(heard: np.ndarray, meant: int, classes: Sequence[str]) -> str:
    """The verdicts (n,) on many voices as a sentence and a strip of dots, full where as meant."""
    n, right = len(heard), int((heard == meant).sum())
    emotion = theme.emotion_html(classes[meant])
    counts = ", ".join(
        f"{classes[k]} {m}"
        for k, m in sorted(enumerate(np.bincount(heard)), key=lambda p: -p[1])
        if m
    )
    dots = ""
    for draw, k in enumerate(heard.tolist(), 1):
        colour = theme.emotion_colour(classes[k])
        fill = colour if k == meant else "transparent"
        title = html.escape(f"draw {draw}: heard as {classes[k]}", quote=True)
        style = f"width:10px;height:10px;border-radius:50%;border:2px solid {colour}"
        dots += f"<span title='{title}' style='{style};background:{fill}'></span>"
    label = html.escape(f"what the judge hears in {n} draws: {counts}", quote=True)
    strip = "display:flex;flex-wrap:wrap;gap:3px;margin-top:.25rem"
    words = f"heard as {emotion} in <b>{right} of {n}</b> draws (chance {n / len(classes):.0f})"
    return (
        f"<div style='font-size:.875rem'>{words}"
        f"<div role='img' aria-label='{label}' style='{strip}'>{dots}</div></div>"
    )
