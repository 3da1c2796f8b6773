"""One item of the gallery: face, real voice, each condition's voice, and the nearest copy."""

from __future__ import annotations

import html

import numpy as np
import streamlit as st

from core.conformal import credibility
from core.inference.gallery import selection
from core.media import spectrograms
from ui import theme
from ui.gallery import voices
from ui.gallery.voices import GallerySet
from ui.session import cache, query_params
from ui.widgets import charts, contact_sheet, players, spectrogram

VIEW_LABELS = {"listen": "Listen", "copy": "A copy?"}
SMALL_TEXT = "font-size:.8125rem"
VERDICT_LABELS = {  # of `selection.VERDICTS`
    "any": "any verdict",
    "right": "judge and Q right",
    "scorer-right": "judge right",
    "scorer-wrong": "judge wrong",
    "q-right": "Q right",
    "q-wrong": "Q wrong",
    "apart": "judge and Q disagree",
}
ORDER_LABELS = {  # of `selection.ORDERS`
    "mixed": "shuffled",
    "set": "as in the set",
    "credible": "most credible face first",
    "strange": "least credible face first",
    "sure": "judge surest of the emotion",
    "unsure": "judge least sure of it",
    "copy": "nearest to a training voice",
    "typical": "most like real voices (FID's features)",
    "odd": "least like real voices",
}
ABOUT = """
- **Each row** is a face of 28×28 pixels, a real voice, and the voice that each condition's
  generator made of that face. With clips that hold both, the real voice is the face's own; where
  faces and voices come from different people, it is one of the same emotion.
- **A, B, C.** The real voice as recorded (A), the same after the run's mel bands and back (B), the
  generated one (C). C can never sound better than B: compare these two. All are at their own level.
- **The verdicts** are of two networks trained on real voices: the judge (the scorer, whose features
  FID and IS are measured on) never met G, and Q was G's teacher. Q knows what it taught; the judge
  is independent.
- **No cherry-picking.** Faces of S4 belong to people that no network was trained on, and noise and
  faces are those of the run's FID.
- **A copy?** The most similar of all training voices stands beside the generated one, with its
  distance in dB.
"""


def item_text(s: GallerySet, items: np.ndarray, at: int, condition: str) -> str:
    """An item in words: its place, emotion, person, and what the judge hears in one voice."""
    i, classes = int(items[at]), s.classes
    label, heard = int(s.real.label[i]), int(s.generated[condition].scorer[i].argmax())
    words = [f"{at + 1} of {len(items)}", classes[label], str(s.real.subject[i])]
    heard_as = f"heard as {classes[heard]} {'✓' if heard == label else '✕'}"
    words.append(f"{theme.CONDITION_TEXTS[condition][0]} {heard_as}")
    return " · ".join(filter(None, words))


def choose_item(s: GallerySet, items: np.ndarray, at: int, condition: str) -> None:
    """A list of all items and buttons to the neighbours of the open one: the sheet without a mouse.

    `at` is the open one's place in `items`.
    """
    key, open_row = "gallery item", lambda k: query_params.set_value("item", int(s.real.row[k]))
    st.session_state[key] = int(items[at])
    places = {int(i): k for k, i in enumerate(items)}
    words = lambda i: item_text(s, items, places[i], condition)  # noqa: E731
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        for label, by, icon in (("Previous", -1, "chevron_left"), ("Next", 1, "chevron_right")):
            is_end = not 0 <= at + by < len(items)
            go = {"on_click": open_row, "args": (items[0 if is_end else at + by],)}
            look = {"icon": f":material/{icon}:", "key": f"{label.lower()} item"}
            st.button(label, disabled=is_end, **look, **go)
            if by < 0:
                go = {"on_change": lambda: open_row(st.session_state[key]), "key": key}
                look = {"format_func": words, "label_visibility": "collapsed", "width": "stretch"}
                st.selectbox("Face and voices", list(places), **look, **go)


def rate_text(s: GallerySet, items: np.ndarray, condition: str) -> str:
    """How many of a condition's voices the judge hears as the face's emotion, in words."""
    heard = s.generated[condition].scorer[items].argmax(axis=1)
    right, name = int((heard == s.real.label[items]).sum()), theme.CONDITION_TEXTS[condition][0]
    chance = len(items) / len(s.classes)
    return (
        f"{name}: the judge hears the face's emotion in **{right} of {len(items)}** "
        f"(chance {chance:.0f})."
    )


def show_heading(s: GallerySet, i: int) -> None:
    """The face, its emotion and subject, and the face classifier's verdict."""
    r, classes = s.real, s.classes
    label = classes[r.label[i]]
    subject = f" · {html.escape(r.subject[i])}" if r.subject[i] else ""
    lines = [f"<b>{theme.emotion_html(label)}</b>{subject}"]
    if r.clip[i]:
        style = "opacity:.7;overflow-wrap:anywhere"
        lines.append(f"<span style='{style}'>{html.escape(r.clip[i])}</span>")
    lines.append(players.verdict_html("The face classifier sees", r.o[i], classes, label))
    scale = cache.credibility_scale(next(iter(s.members.values())))
    lines.append(f"credibility {credibility.describe(scale, float(r.credibility[i]))}")
    lines.append(f"confidence {r.confidence[i]:.2f}")
    style = "font-size:.875rem;line-height:1.5"
    facts = f"<div style='{style}'>{'<br>'.join(lines)}</div>"
    if not len(r.face):
        st.html(facts)
        return
    picture, words = st.columns([2, 5], gap="small", vertical_alignment="center")
    with picture:
        players.show_pixels(r.face[i], 4, 100)
    words.html(facts)


def show_voices(s: GallerySet, i: int) -> None:
    """The real voice and each condition's: spectrogram, players, verdicts."""
    names = (["real"] if s.real.voice_row[i] >= 0 else []) + list(s.generated)
    for k in range(0, len(names), 2):
        for column, name in zip(st.columns(2, gap="small"), names[k : k + 2]):
            with column:
                show_real(s, i) if name == "real" else show_generated(s, i, name)


def _show_spectrogram(s: GallerySet, y: np.ndarray, key: str, alt: str) -> None:
    spectrogram.show_canvas(y, s.ref_db, s.config.logmel, key, alt, 164)


def show_real(s: GallerySet, i: int) -> None:
    """A: the recording, where its source is here. B: its spectrogram, inverted."""
    r, j = s.real, int(s.real.voice_row[i])
    y, run_id = r.voices.y[j], next(iter(s.members.values()))
    whose, about = "of the same clip", "Face and voice are of one clip."
    if not r.paired:
        whose = "of the same emotion"
        about = "Faces and voices are of different people here; the emotion pairs them."
    st.markdown(f"**Real voice** {whose}", help=about)
    _show_spectrogram(s, y, "chart real", "spectrogram of the real voice")
    again = voices.to_audio(run_id, y, 0, spectrograms.RESYNTHESIS_COMMENT)
    players.show_recording(voices.load_recording(s, str(r.voices.clip[j])), again, s.config.logmel)
    speaker = "" if r.paired else str(r.voices.subject[j])
    _show_verdicts(s, i, voices.classify_voice(run_id, y), speaker)


def show_generated(s: GallerySet, i: int, condition: str) -> None:
    """C: the voice that G made of the face, at the level of A and B."""
    one, run_id = s.generated[condition], s.members[condition]
    y = np.asarray(one.y[i], np.float32)
    players.show_heading(condition, s.classes[int(one.c[i].argmax())] if one.c.shape[1] else "")
    _show_spectrogram(s, y, f"chart {condition}", f"generated spectrogram, {condition}")
    sound = voices.to_audio(run_id, y, 0, spectrograms.GENERATED_COMMENT)
    players.show_generated(sound, condition, "C" if s.real.voice_row[i] >= 0 else "")
    _show_verdicts(s, i, {"Q": one.Q[i], "scorer": one.scorer[i]})


def _show_verdicts(s: GallerySet, i: int, o: dict[str, np.ndarray], speaker: str = "") -> None:
    label = s.classes[int(s.real.label[i])]
    words = [html.escape(speaker)] * bool(speaker)
    words += [
        players.verdict_html(name, o[who], s.classes, label)
        for who, name in players.VERDICT_NAMES.items()
    ]
    st.html(f"<div style='{SMALL_TEXT}'>{' · '.join(words)}</div>")


# ------------------------------------------------------------------ the nearest training voice


def show_nearest(s: GallerySet, i: int, condition: str) -> None:
    """The generated voice beside the most similar training voice, and all voices' distances."""
    r, one, run_id = s.real, s.generated[condition], s.members[condition]
    if one.near[i] < 0:
        words = (
            "The training voices are not on this machine, so nobody can look here whether a voice "
            "is a copy of one."
        )
        st.info(words, icon=":material/folder_off:")
        return
    j, d = int(one.near[i]), float(one.near_db[i])
    left, right = st.columns(2, gap="small")
    with left:
        st.markdown(f"**{theme.CONDITION_TEXTS[condition][0]}** · generated")
        y = np.asarray(one.y[i], np.float32)
        _show_spectrogram(s, y, "chart generated", "the generated spectrogram")
        wav = voices.to_audio(run_id, y, 0, spectrograms.GENERATED_COMMENT).wav
        st.audio(wav, "audio/wav", alt="the generated voice")
    with right:
        about = "The most similar of all voices that the generator was trained on."
        st.markdown("**Nearest training voice** · real", help=about)
        y, alt = r.trained.y[j], "the most similar training voice"
        _show_spectrogram(s, y, "chart near", alt)
        wav = voices.to_audio(run_id, y, 0, spectrograms.RESYNTHESIS_COMMENT).wav
        st.audio(wav, "audio/wav", alt=alt)
        emotion = theme.emotion_html(s.classes[r.trained.label[j]])
        whose = f"{emotion} · {html.escape(str(r.trained.clip[j]))}"
        st.html(f"<div style='{SMALL_TEXT};overflow-wrap:anywhere'>{whose}</div>")
    own = {c: float(m.near_db[i]) for c, m in s.generated.items()}
    figure = contact_sheet.distance_histogram(r.real_nearest_db, own)
    alt = "distances of real and of generated voices to training voices"
    st.plotly_chart(figure, key="distances", config=charts.NO_TOOLBAR_CONFIG, alt=alt)
    low, middle, high = np.quantile(r.real_nearest_db, [0.05, 0.5, 0.95])
    share = selection.share_closer(r.real_nearest_db, d)
    st.markdown(
        f"It is **{d:.1f} dB** from that voice. Real voices of S4, whose speakers are not in the "
        f"training set, are {middle:.1f} dB from their nearest in the median (nine in ten between "
        f"{low:.1f} and {high:.1f}); {share:.0%} of them come as near as this."
    )
    st.caption(
        "Distance: the root mean square difference of two spectrograms over all cells, the least "
        "over shifts in time by up to an eighth. A copy would be near 0 dB. Smooth spectrograms "
        "lie nearer to all others, so a generated voice may come a little closer than real ones."
    )
