"""One item of the gallery in full: its face, its real voice, what each condition made of it; and whether that is a copy."""

from __future__ import annotations

import html

import numpy as np
import streamlit as st

from core.inference import selection
from core.media import spectrograms
from ui import theme
from ui.gallery import voices
from ui.gallery.voices import GallerySet
from ui.widgets import charts, contact_sheet, players, spectrogram

VIEW_LABELS = {"listen": "Listen", "copy": "A copy?"}


def show_heading(s: GallerySet, i: int) -> None:
    """Face, emotion, who it is, what the face classifier sees."""
    r, classes = s.real, s.classes
    lines = [
        f"<b>{theme.emotion_html(html.escape(classes[r.label[i]]))}</b>"
        + (f" · {html.escape(r.subject[i])}" if r.subject[i] else "")
    ]
    if r.clip[i]:
        lines.append(
            f"<span style='opacity:.7;overflow-wrap:anywhere'>{html.escape(r.clip[i])}</span>"
        )
    k = int(r.seen[i])
    lines.append(
        f"The face classifier sees {theme.emotion_html(classes[k])} {r.o[i, k]:.0%} {'✓' if k == r.label[i] else '✕'}"
    )
    lines.append(f"credibility {r.credibility[i]:.2f} · confidence {r.confidence[i]:.2f}")
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        if len(r.face):
            st.image(
                np.kron(r.face[i], np.ones((4, 4), np.uint8)),
                width=100,
                output_format="PNG",
                alt="the aligned face, 28 by 28 pixels",
            )
        st.html(
            f"<div style='font-size:.875rem;line-height:1.5'>{'<br>'.join(lines)}</div>",
            width="stretch",
        )


def show_voices(s: GallerySet, i: int) -> None:
    """The real voice, and each condition's: spectrogram, players, verdicts."""
    names = (["real"] if s.real.voice_row[i] >= 0 else []) + list(s.made)
    for k in range(0, len(names), 2):
        for column, name in zip(st.columns(2, gap="small"), names[k : k + 2]):
            with column:
                show_real(s, i) if name == "real" else show_generated(s, i, name)


def _show_spectrogram(s: GallerySet, y: np.ndarray, key: str, words: str) -> None:
    spectrogram.show_canvas(y, s.ref_db, s.config.logmel, key, words, 164)


def show_real(s: GallerySet, i: int) -> None:
    """A: the recording, where its source is here. B: the same through the run's mel bands, as generated voices are heard."""
    r, j = s.real, int(s.real.voice_row[i])
    y, run_id = r.voices.y[j], next(iter(s.members.values()))
    whose = "of the same clip" if r.paired else "of the same emotion"
    about = (
        "Face and voice are of one clip."
        if r.paired
        else "Faces and voices are of different people here and meet by emotion."
    )
    st.markdown(f"**Real voice** {whose}", help=about)
    _show_spectrogram(s, y, "chart real", "spectrogram of the real voice")
    again = voices.to_audio(run_id, y, what=spectrograms.RESYNTHESIS_COMMENT)
    players.show_recording(voices.load_recording(s, str(r.voices.clip[j])), again, s.config.logmel)
    _show_verdicts(
        s, i, voices.classify_voice(run_id, y), "" if r.paired else str(r.voices.subject[j])
    )


def show_generated(s: GallerySet, i: int, condition: str) -> None:
    """C: a voice that G made of the face, at the level of A and B."""
    one, run_id = s.made[condition], s.members[condition]
    y = np.asarray(one.y[i], np.float32)
    players.show_heading(condition, s.classes[int(one.c[i].argmax())] if one.c.shape[1] else "")
    _show_spectrogram(s, y, f"chart {condition}", f"generated spectrogram, {condition}")
    players.show_generated(
        voices.to_audio(run_id, y, what=spectrograms.GENERATED_COMMENT), condition
    )
    _show_verdicts(s, i, {"Q": one.Q[i], "scorer": one.scorer[i]})


def _show_verdicts(s: GallerySet, i: int, o: dict[str, np.ndarray], speaker: str = "") -> None:
    label = int(s.real.label[i])
    words = [html.escape(speaker)] * bool(speaker)
    words += [
        voices.verdict_html(o["scorer"], label, s.classes, "scorer"),
        voices.verdict_html(o["Q"], label, s.classes, "Q"),
    ]
    st.html(f"<div style='font-size:.8125rem'>{' · '.join(words)}</div>")


# ------------------------------------------------------------------ is it a copy?


def show_nearest(s: GallerySet, i: int, condition: str) -> None:
    """The generated voice beside the most similar one that G learnt from, and how near real voices of new people come to those."""
    r, one = s.real, s.made[condition]
    if one.near[i] < 0:
        st.info(
            "Whether a voice is a copy can be seen where the training voices are on this machine, and they are not.",
            icon=":material/folder_off:",
        )
        return
    j, d = int(one.near[i]), float(one.near_db[i])
    left, right = st.columns(2, gap="small")
    with left:
        st.markdown(f"**{theme.CONDITION_TEXTS[condition][0]}** · generated")
        y = np.asarray(one.y[i], np.float32)
        _show_spectrogram(s, y, "chart generated", "the generated spectrogram")
        st.audio(
            voices.to_audio(s.members[condition], y, what=spectrograms.GENERATED_COMMENT).wav,
            "audio/wav",
            alt="the generated voice",
        )
    with right:
        whose = f"{theme.emotion_html(s.classes[r.trained.label[j]])} · {html.escape(str(r.trained.clip[j]))}"
        st.markdown(
            "**Nearest training voice** · real",
            help="The most similar of all voices that the generator learnt from.",
        )
        _show_spectrogram(s, r.trained.y[j], "chart near", "the most similar training voice")
        again = voices.to_audio(
            s.members[condition], r.trained.y[j], what=spectrograms.RESYNTHESIS_COMMENT
        )
        st.audio(again.wav, "audio/wav", alt="the most similar training voice")
        st.html(f"<div style='font-size:.8125rem;overflow-wrap:anywhere'>{whose}</div>")
    own = {c: float(m.near_db[i]) for c, m in s.made.items()}
    figure = contact_sheet.distance_histogram(r.real_nearest_db, own)
    st.plotly_chart(
        figure,
        key="distances",
        config=charts.NO_TOOLBAR_CONFIG,
        alt="distances of real voices to training voices, and of the generated",
    )
    low, middle, high = np.quantile(r.real_nearest_db, [0.05, 0.5, 0.95])
    st.markdown(
        f"It is **{d:.1f} dB** from that voice. Real voices of S4, whose speakers G never met, are {middle:.1f} dB from their nearest in "
        f"the median (nine in ten between {low:.1f} and {high:.1f}); {selection.share_closer(r.real_nearest_db, d):.0%} of them come as near as this."
    )
    about = (
        "Distance: the root mean square difference of two spectrograms over all cells, the least over shifts in time by up to an eighth. "
        "A copy would be near 0 dB. Smooth pictures lie nearer to all others, so a generated voice may come a little closer than real ones."
    )
    st.caption(about)


ABOUT = """
- **Each row** is a face of 28×28 pixels, a real voice, and the voice that each condition's generator made of that face. With clips that
  hold both, the real voice is the face's own; where faces and voices come from different people, it is one of the same emotion.
- **A, B, C.** The real voice as recorded (A), the same after the run's mel bands and back (B), the generated one (C). C can never sound
  better than B: compare these two. All are at their own level.
- **The verdicts** are of two networks trained on real voices: the scorer, whose features FID and IS are measured on, and Q, which held the
  generator to its emotion. Q knows what it taught; the scorer was never asked.
- **Nothing is picked.** Faces of S4 belong to people whom no network met, and noise and faces are those of the run's FID.
- **A copy?** The most similar of all training voices stands beside the generated one, with its distance in dB.
"""
