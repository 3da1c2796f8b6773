"""Reverse: a voice goes in, and faces come out that show its emotion (§4.5, Fig. 7b)."""

import streamlit as st

from core.conformal import credibility, predictor
from core.files import UserError
from ui import reverse, theme
from ui.session import cache, query_params
from ui.widgets import charts, choices, players, run_summary, uploads

MAX_SEED, MAX_TAKE, MAX_ROWS = 10**9 - 1, 9999, 4
MIN_SLIDER_SECONDS = 1.2  # a shorter sound has no moment to choose
EXAMPLE_EMOTION = "sad"  # the shipped run hears the first voice of this emotion as it is meant
CONDITION_TEXTS = {"classifier": "the softmax", "cp": "the p-values", "none": "nothing"}

title, choice, about_side = st.columns([6, 3, 2], gap="medium", vertical_alignment="center")
title.title("Reverse: a face that goes with a voice")
with about_side.popover("What am I looking at?", icon=":material/help:", type="tertiary"):
    st.markdown(reverse.ABOUT)
st.markdown(
    "Choose one second of voice. A generator that is told the emotion draws 28×28 faces for it: "
    "the paper's other direction, in its *supervised* case (§4.5, §4.7).  \n"
    ":small[:material/info: **Nobody's face**: it is invented, and says nothing of how a speaker "
    "looks or feels. "
    ":material/lock: Your sound stays on this machine and is deleted after the session.]"
)


def option_args(name: str, options, default: str) -> dict:
    return choices.option_args(name, f"reverse {name}", options, default)


def integer_args(name: str, default: int, low: int, high: int) -> dict:
    return choices.integer_args(name, f"reverse {name}", default, low, high)


# ------------------------------------------------------------------ the run

finished_runs, unfinished_runs = reverse.list_runs()
if not finished_runs:
    reverse.show_unfinished_runs(unfinished_runs)
    reverse.show_no_run()
    st.stop()
labels = {k: reverse.run_label(row) for k, row in finished_runs.items()}
args = option_args("run", labels, next(iter(labels)))
run_id = choice.selectbox("Trained run", label_visibility="collapsed", **args)
urgent = [r for r in unfinished_runs if r["state"] in ("running", "queued", "failed")]
reverse.show_unfinished_runs(urgent)
try:
    run = cache.load_run(run_id)
except UserError as error:
    st.error(theme.escape_markdown(str(error)), icon=":material/error:")
    st.stop()
classes, s = run.classes, run.config.logmel

# ------------------------------------------------------------------ the voice

left, middle, right = st.columns([3, 4, 4], gap="medium")
with left:
    kinds = ["Example", "Upload", "Microphone"]
    clip = last.tracked.clip if (last := uploads.last_clip()) else None
    if clip and clip.waveform is not None:
        kinds.append(uploads.LAST_LABEL)
    more = {"default": "Example", "required": True, "persist_state": "session"}
    kind = st.segmented_control("Voice from", kinds, key="reverse kind", **more)
    upload = None
    if kind == "Example":
        default_emotion = EXAMPLE_EMOTION if EXAMPLE_EMOTION in classes else classes[0]
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            args = option_args("voice", classes, default_emotion)
            emotion = st.selectbox("Emotion of the voice", **args)
            take = choices.parse_integer(st.query_params.get("take", ""), 0, MAX_TAKE) or 0
            about = "The next voice of this emotion, of another person."
            go = {"on_click": query_params.set_value, "args": ("take", take + 1)}
            more = {"key": "another voice", "help": about}
            st.button("Another", icon=":material/record_voice_over:", **more, **go)
    elif kind == "Upload":
        about = "wav, mp3, flac, ogg, m4a, or a video with sound. The first minute is read."
        upload = st.file_uploader("Sound or clip with a voice", key="reverse upload", help=about)
    elif kind == "Microphone":
        words = "Say something with feeling, for two seconds"
        upload = st.audio_input(words, key="reverse microphone")
if kind in ("Upload", "Microphone") and upload is None:
    words = "The voice will appear here. Nothing leaves this machine."
    middle.info(words, icon=":material/graphic_eq:")
    st.stop()
with middle:
    try:
        if kind == "Example":
            voice = reverse.load_example_voice(run_id, emotion, take)
        else:
            key, name = (last.key, clip.name) if upload is None else (upload.file_id, upload.name)
            name = uploads.safe_file_name(name)
            if upload is None:
                voice = wave = clip.waveform
            else:
                voice = wave = uploads.read_waveform(key, upload.name, upload.getbuffer())
            if not isinstance(wave, str):
                length, at = len(wave) / s.rate, 0.0
                if length > MIN_SLIDER_SECONDS:
                    about = (
                        "The networks get the second around this moment. It starts in the middle."
                    )
                    span = 0.5, length - 0.5, length / 2, 0.1
                    more = {"key": f"at {key}", "help": about}
                    at = left.slider("Heard around (s)", *span, **more)
                voice = reverse.load_visitor_voice(run_id, name, wave, at)
    except UserError as error:
        voice = str(error)
if isinstance(voice, str):
    middle.error(theme.escape_markdown(voice), icon=":material/error:")
    st.stop()

explanation = reverse.explain_voice(run_id, voice.y)
first_choice = classes[int(explanation.softmax.argmax())]
with middle:
    picture = charts.spectrogram(voice.y, run.ref_db, s, height=200)
    alt = "spectrogram of the second that the networks get"
    st.plotly_chart(picture, key="reverse spectrogram", config=charts.NO_TOOLBAR_CONFIG, alt=alt)
with left if kind == "Example" else middle:
    st.audio(voice.wav, "audio/wav", alt="the second of voice that the networks get")
    if kind == "Example":
        origin = f"Back from {s.bands} mel bands" if voice.again else "Its middle second"
        about = "The run was trained on none of these people (S4)."
        st.caption(f"`{voice.name}` · {origin} · {take % voice.of + 1} of {voice.of}", help=about)
    else:
        st.caption(
            f"{theme.escape_markdown(voice.name)}: its level was changed by {voice.gain:+.1f} dB, "
            "to that of the voices of the run."
        )
with right:
    bars = charts.softmax_and_p_values(classes, explanation.softmax, explanation.p, height=200)
    alt = "softmax and p-value of each emotion"
    st.plotly_chart(bars, key="reverse beliefs", config=charts.NO_TOOLBAR_CONFIG, alt=alt)
    words = f"The voice classifier hears **{first_choice}**"
    about = (
        f"{predictor.describe(run.predictor, 'voices')} For a voice from elsewhere no error rate "
        f"is promised. Credibility: {credibility.MEANING}"
    )
    sure = credibility.describe(run.credibility, explanation.credibility, "test voices")
    st.caption(f"{words}, credibility {sure}", help=about)

# ------------------------------------------------------------------ its faces

chosen_emotion, column_count = "", reverse.FACES_PER_ROW
with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
    if run.config.gan.condition == "label":
        options = {
            "all": f"all {len(classes)} emotions, side by side",
            "guess": f"{first_choice} – the voice classifier's first choice",
        }
        args = option_args("emotion", options | {k: k for k in classes}, "all")
        chosen_emotion = st.selectbox("Emotion that the generator is told", width=300, **args)
    else:
        condition = CONDITION_TEXTS[run.config.gan.condition]
        st.markdown(f"This generator is told **{condition}** of the voice.")
    about = "Random seed of the noise z; further faces take the next seeds."
    seed = st.number_input("Seed", width=140, help=about, **integer_args("seed", 0, 0, MAX_SEED))
    rows = st.number_input("Rows", width=110, **integer_args("rows", 1, 1, MAX_ROWS))
    if chosen_emotion == "all":
        emotions, column_count, seeds = tuple(classes), len(classes), range(seed, seed + rows)
    else:
        emotions = (chosen_emotion if chosen_emotion in classes else None,)
        seeds = range(seed, seed + column_count * rows)
    go = {"on_click": query_params.set_value, "args": ("seed", seeds.stop % (MAX_SEED + 1))}
    about = "The next seeds: the same voice, other noise."
    st.button("Other faces", key="other faces", icon=":material/casino:", help=about, **go)
    faces = reverse.generate_faces(run_id, voice.y, emotions, tuple(seeds))
    stem = f"faces-{run_id}-{seed}"
    png = lambda: reverse.faces_png(faces, column_count)  # noqa: E731
    players.download("png", png, f"{stem}.png", help="All of them, enlarged.")
    about = "28×28 numbers from 0 to 255 for each face, in the order of the page."
    players.download("npy", lambda: reverse.faces_npy(faces), f"{stem}.npy", help=about)
    about = "Told emotion, seed and verdict of each face."
    lines = lambda: reverse.faces_csv(run_id, faces, classes)  # noqa: E731
    players.download("csv", lines, f"{stem}.csv", help=about)
if voice.face is None:
    reverse.show_faces(faces, classes, column_count)
else:
    own_side, sheet_side = st.columns([1, column_count], gap="medium")
    with own_side:
        reverse.show_own_face(run_id, voice, classes)
    with sheet_side:
        reverse.show_faces(faces, classes, column_count)
st.caption(reverse.tally_text(run.run, faces, classes))
st.header("About this run", divider="gray")
run_summary.show_results(run.run)
