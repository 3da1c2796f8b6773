"""Real or generated? Ten voices, one after the other; the game lives in the visitor's session, and nothing of it in the address."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import streamlit as st

from core.inference import selection
from core.inference.selection import Round, Score
from ui import theme
from ui.gallery import voices
from ui.gallery.voices import GallerySet
from ui.widgets import spectrogram

ANSWER_LABELS = {False: "Real", True: "Generated"}


def _game_state(family: str) -> dict[str, Any]:
    """The visitor's game on a family of runs: seed, answers so far (True: "generated"), whether the last is being revealed, past scores."""
    fresh = {"seed": secrets.randbelow(2**31), "answers": [], "open": False, "past": []}
    return st.session_state.setdefault(f"quiz {family}", fresh)


def _record_answer(family: str, number: int, said: bool) -> None:
    game = _game_state(family)
    if (
        len(game["answers"]) == number and not game["open"]
    ):  # a second click on the same question is none
        game |= {"answers": [*game["answers"], said], "open": True}


def _advance_game(family: str) -> None:
    _game_state(family)["open"] = False


def _restart_game(family: str, right: int | None) -> None:
    game = _game_state(family)
    past = [*game["past"], right] if right is not None else game["past"]
    game |= {"seed": secrets.randbelow(2**31), "answers": [], "open": False, "past": past}


def show_game(s: GallerySet, family: str) -> None:
    """The quiz: a question, what it was, or the result."""
    game = _game_state(family)
    try:
        questions = selection.make_rounds(s.real, list(s.made), game["seed"])
    except ValueError:
        st.info(
            "The quiz needs real voices to compare with, and this run's are not on this machine.",
            icon=":material/folder_off:",
        )
        return
    answers = game["answers"]
    score = selection.score_answers(questions, answers, s.real.label)
    left, right = st.columns([5, 3], gap="large")
    with right:
        _show_score(s, questions, answers, score, game["past"])
        if answers:
            full = score.right if len(answers) == len(questions) else None
            st.button(
                "Start again",
                icon=":material/restart_alt:",
                key="quiz again",
                on_click=_restart_game,
                args=(family, full),
            )
    with left:
        if game["open"]:
            _show_answer(s, questions[len(answers) - 1], answers[-1])
            last = len(answers) == len(questions)
            words = "See the result" if last else "Next voice"
            st.button(
                words,
                icon=":material/arrow_forward:",
                type="primary",
                key="quiz next",
                on_click=_advance_game,
                args=(family,),
            )
        elif len(answers) < len(questions):
            _show_question(s, questions[len(answers)], len(answers), len(questions), family)
        else:
            _show_result(s, score, len(questions))


def _question_voice(s: GallerySet, q: Round) -> np.ndarray:
    """The voice of a question, both kinds in the same numbers."""
    y = (
        s.made[q.condition].y[q.item]
        if q.is_generated
        else s.real.voices.y[s.real.voice_row[q.item]].astype(np.float16)
    )
    return np.asarray(y, np.float32)


def _show_question(s: GallerySet, q: Round, number: int, of: int, family: str) -> None:
    what = "Is it real, or did a generator make it" + (
        " from this face?" if len(s.real.face) else "?"
    )
    st.markdown(f"**Voice {number + 1} of {of}.** {what}")
    with st.container(horizontal=True, gap="medium", vertical_alignment="center"):
        if len(s.real.face):
            st.image(
                np.kron(s.real.face[q.item], np.ones((6, 6), np.uint8)),
                width=140,
                output_format="PNG",
                alt="the face",
            )
        with st.container(width="stretch"):
            st.audio(
                voices.to_audio(s.members[q.condition], _question_voice(s, q)).wav,
                "audio/wav",
                alt="the voice to judge",
            )
            with st.container(horizontal=True):
                for said, icon in (
                    (False, ":material/record_voice_over:"),
                    (True, ":material/memory:"),
                ):
                    go = {
                        "on_click": _record_answer,
                        "args": (family, number, said),
                        "width": "stretch",
                    }
                    st.button(
                        ANSWER_LABELS[said],
                        icon=icon,
                        key=f"quiz {ANSWER_LABELS[said]} {number}",
                        **go,
                    )
    bands = f"the same {s.config.logmel.bands} mel bands"
    st.caption(
        f"Both kinds went through {bands} and back, so that hiss and missing words give nothing away."
    )


def _show_answer(s: GallerySet, q: Round, said: bool) -> None:
    r, label = s.real, s.classes[s.real.label[q.item]]
    if said == q.is_generated:
        st.success(
            f"Right: it was {ANSWER_LABELS[q.is_generated].lower()}.",
            icon=":material/check_circle:",
        )
    else:
        st.error(f"No: it was {ANSWER_LABELS[q.is_generated].lower()}.", icon=":material/cancel:")
    whose = "the clip's own voice" if r.paired else "another person's voice of the same emotion"
    st.html(
        f"The emotion was {theme.emotion_html(label)}. Here are both: {whose}, and the generated one."
    )
    pair = (
        ("Real", False, "real"),
        (f"Generated · {theme.CONDITION_TEXTS[q.condition][0]}", True, "generated"),
    )
    for column, (words, made, key) in zip(st.columns(2, gap="small"), pair):
        with column:
            y = _question_voice(s, Round(q.item, q.condition, made))
            st.markdown(f"**{words}**" + (" ← you heard this" if made == q.is_generated else ""))
            spectrogram.show_canvas(
                y, s.ref_db, s.config.logmel, f"quiz chart {key}", f"spectrogram, {key}", 164
            )
            st.audio(
                voices.to_audio(s.members[q.condition], y).wav, "audio/wav", alt=f"{key} voice"
            )


def _show_score(
    s: GallerySet, questions: list[Round], answers: list[bool], score: Score, past: list[int]
) -> None:
    marks = ["●" if q.is_generated == a else "✕" for q, a in zip(questions, answers)] + ["○"] * (
        len(questions) - len(answers)
    )
    a, b, c = st.columns(3)
    a.metric("Right", f"{score.right} of {len(answers)}", help="Guessing alone gets half of them.")
    b.metric("Streak", score.streak, help="Right answers in a row.")
    c.metric("Longest", score.longest_streak, help="The longest streak of this game.")
    st.markdown(f"{' '.join(marks)}", help="● right · ✕ wrong · ○ to come")
    wrong = {k: v for k, v in score.errors_by_emotion.items() if v[0]}
    if wrong:
        rows = "".join(
            f"<div>{theme.emotion_html(s.classes[k])} · {n} of {of}</div>"
            for k, (n, of) in sorted(wrong.items(), key=lambda v: -v[1][0])
        )
        st.html(f"<div style='font-size:.875rem'>What fooled you: {rows}</div>")
    if past:
        st.caption(
            "Earlier games of this session: " + ", ".join(f"{n} of {len(questions)}" for n in past)
        )


def _show_result(s: GallerySet, score: Score, n: int) -> None:
    st.subheader(f"{score.right} of {n}")
    st.progress(score.right / n)
    st.markdown(
        f"Somebody who only guesses gets {score.right} or more right in **{score.chance:.0%}** of all games. "
        + (
            "You do hear a difference."
            if score.chance < 0.06
            else "So that could be luck: play again, or listen with headphones."
        )
    )
    said = [f"took **{score.generated_as_real}** generated voices for real"] * bool(
        score.generated_as_real
    )
    said += [f"took **{score.real_as_generated}** real ones for generated"] * bool(
        score.real_as_generated
    )
    st.markdown("You " + " and ".join(said) + "." if said else "Nothing fooled you.")
    most = max(score.errors_by_emotion, key=lambda k: score.errors_by_emotion[k][0], default=None)
    if most is not None and score.errors_by_emotion[most][0]:
        st.html(f"The emotion that fooled you most: <b>{theme.emotion_html(s.classes[most])}</b>")
