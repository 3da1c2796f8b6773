"""The quiz "Real or generated?": ten voices, one after the other.

The game's state lives in the visitor's session, never in the URL.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import streamlit as st

from core.files import UserError
from core.inference.gallery import selection
from core.inference.gallery.selection import Round, Score
from ui import theme
from ui.gallery import voices
from ui.gallery.voices import GallerySet
from ui.widgets import players, spectrogram

ANSWER_LABELS = {False: "Real", True: "Generated"}
ANSWER_ICONS = {False: ":material/record_voice_over:", True: ":material/memory:"}
MAX_CHANCE = 0.06  # a score that guessing reaches more rarely counts as a heard difference


def _game_state(family: str) -> dict[str, Any]:
    """The visitor's game on a family of runs.

    Its keys: `seed`; `answers` so far (True: generated); `open`, whether the last answer is being
    revealed; `past`, the scores of earlier games.
    """
    fresh = {"seed": secrets.randbelow(2**31), "answers": [], "open": False, "past": []}
    return st.session_state.setdefault(f"quiz {family}", fresh)


def _record_answer(family: str, number: int, answer: bool) -> None:
    game = _game_state(family)
    # A second click on the same question is ignored.
    if len(game["answers"]) == number and not game["open"]:
        game |= {"answers": [*game["answers"], answer], "open": True}


def _advance_game(family: str) -> None:
    _game_state(family)["open"] = False


def _restart_game(family: str, right: int | None) -> None:
    game = _game_state(family)
    past = [*game["past"], right] if right is not None else game["past"]
    game |= {"seed": secrets.randbelow(2**31), "answers": [], "open": False, "past": past}


def show_game(s: GallerySet, family: str) -> None:
    """The quiz: a question, its answer, or the result."""
    game = _game_state(family)
    try:
        questions = selection.make_rounds(s.real, list(s.generated), game["seed"])
    except UserError:
        words = (
            "The quiz needs real voices to compare with, and this run's are not on this machine."
        )
        st.info(words, icon=":material/folder_off:")
        return
    answers = game["answers"]
    score = selection.score_answers(questions, answers, s.real.label)
    is_over = len(answers) == len(questions)
    left, right = st.columns([5, 3], gap="large")
    with right:
        _show_score(s, questions, answers, score, game["past"])
        if answers:
            full = score.right if is_over else None
            go = {"on_click": _restart_game, "args": (family, full), "key": "quiz again"}
            st.button("Start again", icon=":material/restart_alt:", **go)
    with left:
        if game["open"]:
            _show_answer(s, questions[len(answers) - 1], answers[-1])
            words = "See the result" if is_over else "Next voice"
            go = {"on_click": _advance_game, "args": (family,), "key": "quiz next"}
            st.button(words, icon=":material/arrow_forward:", type="primary", **go)
        elif not is_over:
            _show_question(s, questions[len(answers)], len(answers), len(questions), family)
        else:
            _show_result(s, score, len(questions))


def question_voice(s: GallerySet, q: Round) -> np.ndarray:
    """The voice of a question; a real one is rounded to float16 as generated ones are."""
    if q.is_generated:
        y = s.generated[q.condition].y[q.item]
    else:
        y = s.real.voices.y[s.real.voice_row[q.item]].astype(np.float16)
    return np.asarray(y, np.float32)


def _show_question(s: GallerySet, q: Round, number: int, of: int, family: str) -> None:
    what = " from this face?" if len(s.real.face) else "?"
    st.markdown(f"**Voice {number + 1} of {of}.** Is it real, or did a generator make it{what}")
    with st.container(horizontal=True, gap="medium", vertical_alignment="center"):
        if len(s.real.face):
            players.show_pixels(s.real.face[q.item], 6, 140, "the face")
        with st.container(width="stretch"):
            wav = voices.to_audio(s.members[q.condition], question_voice(s, q)).wav
            st.audio(wav, "audio/wav", alt="the voice to judge")
            with st.container(horizontal=True):
                for answer, label in ANSWER_LABELS.items():
                    go = {"on_click": _record_answer, "args": (family, number, answer)}
                    look = {"icon": ANSWER_ICONS[answer], "width": "stretch"}
                    st.button(label, key=f"quiz {label} {number}", **look, **go)
    st.caption(
        f"Both kinds went through the same {s.config.logmel.bands} mel bands and back, so that "
        "hiss and missing words give nothing away."
    )


def _show_answer(s: GallerySet, q: Round, answer: bool) -> None:
    r, label = s.real, s.classes[s.real.label[q.item]]
    truth = ANSWER_LABELS[q.is_generated].lower()
    if answer == q.is_generated:
        st.success(f"Right: it was {truth}.", icon=":material/check_circle:")
    else:
        st.error(f"No: it was {truth}.", icon=":material/cancel:")
    whose = "the clip's own voice" if r.paired else "another person's voice of the same emotion"
    both = f"Here are both: {whose}, and the generated one."
    st.html(f"The emotion was {theme.emotion_html(label)}. {both}")
    title = f"Generated · {theme.CONDITION_TEXTS[q.condition][0]}"
    pair = (("Real", False, "real"), (title, True, "generated"))
    for column, (words, is_generated, key) in zip(st.columns(2, gap="small"), pair):
        with column:
            y = question_voice(s, Round(q.item, q.condition, is_generated))
            mark = " ← you heard this" if is_generated == q.is_generated else ""
            st.markdown(f"**{words}**{mark}")
            place = f"quiz chart {key}", f"spectrogram, {key}", 164
            spectrogram.show_canvas(y, s.ref_db, s.config.logmel, *place)
            wav = voices.to_audio(s.members[q.condition], y).wav
            st.audio(wav, "audio/wav", alt=f"{key} voice")


def _show_score(
    s: GallerySet, questions: list[Round], answers: list[bool], score: Score, past: list[int]
) -> None:
    marks = ["●" if q.is_generated == a else "✕" for q, a in zip(questions, answers)]
    marks += ["○"] * (len(questions) - len(answers))
    a, b, c = st.columns(3)
    a.metric("Right", f"{score.right} of {len(answers)}", help="Guessing alone gets half of them.")
    b.metric("Streak", score.streak, help="Right answers in a row.")
    c.metric("Longest", score.longest_streak, help="The longest streak of this game.")
    st.markdown(" ".join(marks), help="● right · ✕ wrong · ○ to come")
    wrong = [(k, n, of) for k, (n, of) in score.errors_by_emotion.items() if n]
    if wrong:
        rows = "".join(
            f"<div>{theme.emotion_html(s.classes[k])} · {n} of {of}</div>"
            for k, n, of in sorted(wrong, key=lambda row: -row[1])
        )
        st.html(f"<div style='font-size:.875rem'>What fooled you: {rows}</div>")
    if past:
        scores = ", ".join(f"{n} of {len(questions)}" for n in past)
        st.caption(f"Earlier games of this session: {scores}")


def _show_result(s: GallerySet, score: Score, n: int) -> None:
    st.header(f"{score.right} of {n}")
    st.progress(score.right / n)
    verdict = "So that could be luck: play again, or listen with headphones."
    if score.chance < MAX_CHANCE:
        verdict = "You do hear a difference."
    st.markdown(
        f"Somebody who only guesses gets {score.right} or more right in **{score.chance:.0%}** "
        f"of all games. {verdict}"
    )
    errors = []
    if n_real := score.generated_as_real:
        errors.append(f"took **{n_real}** generated voices for real")
    if n_generated := score.real_as_generated:
        errors.append(f"took **{n_generated}** real ones for generated")
    st.markdown("You " + " and ".join(errors) + "." if errors else "Nothing fooled you.")
    most = max(score.errors_by_emotion, key=lambda k: score.errors_by_emotion[k][0], default=None)
    if most is not None and score.errors_by_emotion[most][0]:
        emotion = theme.emotion_html(s.classes[most])
        st.html(f"The emotion that fooled you most: <b>{emotion}</b>")
