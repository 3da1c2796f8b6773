"""Reverse: a voice goes in, and faces come out that show its emotion (§4.5, Fig. 7b)."""

import streamlit as st

from ui import reverse, theme
from ui.session import cache, query_params
from ui.widgets import charts, run_summary, uploads

title, choice, about_side = st.columns([6, 3, 2], gap="medium", vertical_alignment="center")
title.title("Reverse: a face that goes with a voice")
with about_side.popover("What am I looking at?", icon=":material/help:", type="tertiary"):
    st.markdown(reverse.ABOUT)
st.markdown(
    "Choose one second of voice. A generator that is told the emotion draws 28×28 faces for it: "
    "the paper's other direction, in its *supervised* case (§4.5, §4.7).  \n"
    ":small[:material/info: **Nobody's face**: it is invented, and says nothing of how a speaker looks or feels. "
    ":material/lock: Your sound stays on this machine and is deleted after the session.]"
)


def linked_args(name: str, default, admit) -> dict:
    """A widget's place in the address: what it needs of `ui.session.query_params`, as arguments."""
    query_params.restore_widget(name, f"reverse {name}", default, admit)
    return {
        "key": f"reverse {name}",
        "on_change": query_params.save_widget,
        "args": (name, f"reverse {name}"),
    }


def integer_parser(most: int, least: int = 0):
    return lambda k: (
        int(k)
        if k.isascii() and k.isdecimal() and len(k) < 10 and least <= int(k) <= most
        else None
    )


# ------------------------------------------------------------------ which run

finished_runs, unfinished_runs = reverse.list_runs()
if not finished_runs:
    reverse.show_unfinished_runs(unfinished_runs)
    reverse.show_no_run()
    st.stop()
go = linked_args("run", next(iter(finished_runs)), lambda k: k if k in finished_runs else None)
run_id = choice.selectbox(
    "Trained run",
    list(finished_runs),
    format_func=lambda k: reverse.run_label(finished_runs[k]),
    label_visibility="collapsed",
    **go,
)
reverse.show_unfinished_runs(
    [r for r in unfinished_runs if r["state"] in ("running", "queued", "failed")]
)
try:
    run = cache.load_run(run_id)
except ValueError as error:
    st.error(theme.escape_markdown(str(error)), icon=":material/error:")
    st.stop()
classes, s = run.classes, run.config.logmel

# ------------------------------------------------------------------ which voice

left, middle, right = st.columns([3, 4, 4], gap="medium")
with left:
    kinds = ["Example", "Upload", "Microphone"]
    kind = st.segmented_control(
        "Voice from",
        kinds,
        default="Example",
        required=True,
        key="reverse kind",
        persist_state="session",
    )
    upload = None
    if kind == "Example":
        default_emotion = "happy" if "happy" in classes else classes[0]
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            emotion = st.selectbox(
                "Voice meant as",
                classes,
                **linked_args("voice", default_emotion, lambda k: k if k in classes else None),
            )
            take = integer_parser(9999)(st.query_params.get("take", "")) or 0
            about = "The next voice of this emotion, of other people by turns."
            go = {
                "on_click": query_params.set_value,
                "args": ("take", take + 1),
                "key": "another voice",
                "help": about,
            }
            st.button("Another", icon=":material/record_voice_over:", **go)
    elif kind == "Upload":
        about = "wav, mp3, flac, ogg, m4a, or a video with sound. The first minute is read."
        upload = st.file_uploader("Sound or clip with a voice", key="reverse upload", help=about)
    else:
        upload = st.audio_input(
            "Say something with feeling, for two seconds", key="reverse microphone"
        )
if kind != "Example" and upload is None:
    middle.info(
        "The voice will appear here. Nothing leaves this machine.", icon=":material/graphic_eq:"
    )
    st.stop()
with middle:
    try:
        if upload is None:
            voice = reverse.load_example_voice(run_id, emotion, take)
        else:
            name = uploads.safe_file_name(upload.name)
            voice = wave = uploads.read_waveform(upload.file_id, upload.name, upload.getbuffer())
            if not isinstance(wave, str):
                length, at = len(wave) / s.rate, 0.0
                if length > 1.2:
                    about = "The second around this moment is what the networks hear. It starts in the middle."
                    with left:
                        at = st.slider(
                            "Heard around (s)",
                            0.5,
                            length - 0.5,
                            length / 2,
                            0.1,
                            key=f"at {upload.file_id}",
                            help=about,
                        )
                voice = reverse.load_visitor_voice(run_id, name, wave, at)
    except ValueError as error:
        voice = str(error)
if isinstance(voice, str):
    middle.error(theme.escape_markdown(voice), icon=":material/error:")
    st.stop()

explanation = reverse.explain_voice(run_id, voice.y)
with middle:
    picture = charts.spectrogram(voice.y, run.ref_db, s, height=200)
    st.plotly_chart(
        picture,
        key="reverse spectrogram",
        config=charts.NO_TOOLBAR_CONFIG,
        alt="spectrogram of the second that the networks hear",
    )
with left if upload is None else middle:
    st.audio(voice.wav, "audio/wav", alt="the second of voice that the networks hear")
    if upload is None:
        origin_text = f"Back from {s.bands} mel bands" if voice.again else "Its middle second"
        about = "None of these people is known to the run (S4)."
        st.caption(
            f"`{voice.name}` · {origin_text} · {take % voice.of + 1} of {voice.of}", help=about
        )
    else:
        st.caption(
            f"{theme.escape_markdown(voice.name)}: its level was changed by {voice.gain:+.1f} dB, to that of the voices of the run."
        )
with right:
    bars = charts.softmax_and_p_values(classes, explanation.softmax, explanation.p, height=200)
    st.plotly_chart(
        bars,
        key="reverse beliefs",
        config=charts.NO_TOOLBAR_CONFIG,
        alt="softmax and p-value of each emotion",
    )
    words = f"The voice classifier hears **{classes[int(explanation.softmax.argmax())]}**, credibility {explanation.credibility:.2f}"
    about = f"p-values from {len(run.label_cal):,} calibration voices. For a voice from elsewhere no error rate is promised."
    st.caption(words, help=about)

# ------------------------------------------------------------------ its faces

predicted_emotion, kind_of_c = classes[int(explanation.softmax.argmax())], run.config.gan.condition
emotion_choice, column_count, condition_texts = (
    "",
    reverse.FACES_PER_ROW,
    {"classifier": "the softmax", "cp": "the p-values", "none": "nothing"},
)
with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
    if kind_of_c == "label":
        options = {
            "all": f"all {len(classes)} emotions, side by side",
            "guess": f"{predicted_emotion} – the voice classifier's first choice",
        }
        options |= {k: k for k in classes}
        go = linked_args("emotion", "all", lambda k: k if k in options else None)
        emotion_choice = st.selectbox(
            "Emotion that the generator is told",
            list(options),
            format_func=options.get,
            width=300,
            **go,
        )
    else:
        st.markdown(f"This generator is told **{condition_texts[kind_of_c]}** of the voice.")
    seed = st.number_input(
        "Seed",
        0,
        10**9 - 1,
        width=140,
        help="Of the noise z; the others count up.",
        **linked_args("seed", 0, integer_parser(10**9 - 1)),
    )
    rows = st.number_input("Rows", 1, 4, width=110, **linked_args("rows", 1, integer_parser(4, 1)))
    if emotion_choice == "all":
        emotions, column_count, seeds = list(classes), len(classes), range(seed, seed + rows)
    else:
        emotions = [emotion_choice if emotion_choice in classes else None]
        seeds = range(seed, seed + column_count * rows)
    seed_args = {"on_click": query_params.set_value, "args": ("seed", seeds.stop % 10**9)}
    st.button(
        "Other faces",
        key="other faces",
        icon=":material/casino:",
        help="The next seeds: the same voice, other noise.",
        **seed_args,
    )
    faces = reverse.generate_faces(run_id, voice.y, emotions, seeds)
    stem, more = f"faces-{run_id}-{seed}", {"on_click": "ignore", "icon": ":material/download:"}
    st.download_button(
        "png",
        lambda: reverse.faces_png(faces, column_count),
        f"{stem}.png",
        "image/png",
        help="All of them, enlarged.",
        **more,
    )
    about = "28×28 numbers from 0 to 255 for each face, in the order of the page."
    st.download_button(
        "npy",
        lambda: reverse.faces_npy(faces),
        f"{stem}.npy",
        "application/octet-stream",
        help=about,
        **more,
    )
    about = "What was told, seed and verdict of each face."
    st.download_button(
        "csv",
        lambda: reverse.faces_csv(run_id, faces, classes),
        f"{stem}.csv",
        "text/csv",
        help=about,
        **more,
    )
if voice.face is None:
    reverse.show_faces(faces, classes, column_count)
else:
    own_side, sheet_side = st.columns([1, column_count], gap="medium")
    with own_side:
        reverse.show_own_face(run_id, voice, classes)
    with sheet_side:
        reverse.show_faces(faces, classes, column_count)
st.caption(reverse.tally_text(run.run, faces, classes))
st.subheader("About this run", divider="gray")
run_summary.show_results(run.run)
