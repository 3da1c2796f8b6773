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


def follow(name: str, default, admit) -> dict:
    """A widget's place in the address: what it needs of `ui.session.query_params`, as arguments."""
    query_params.follow(name, f"reverse {name}", default, admit)
    return {"key": f"reverse {name}", "on_change": query_params.keep, "args": (name, f"reverse {name}")}


def whole(most: int, least: int = 0):
    return lambda k: int(k) if k.isascii() and k.isdecimal() and len(k) < 10 and least <= int(k) <= most else None


# ------------------------------------------------------------------ which run

done, others = reverse.found()
if not done:
    reverse.under_way(others)
    reverse.no_run()
    st.stop()
go = follow("run", next(iter(done)), lambda k: k if k in done else None)
run_id = choice.selectbox("Trained run", list(done), format_func=lambda k: reverse.label(done[k]), label_visibility="collapsed", **go)
reverse.under_way([r for r in others if r["state"] in ("running", "queued", "failed")])
try:
    run = cache.opened(run_id)
except ValueError as error:
    st.error(theme.escaped(str(error)), icon=":material/error:")
    st.stop()
classes, s = run.classes, run.config.logmel

# ------------------------------------------------------------------ which voice

left, middle, right = st.columns([3, 4, 4], gap="medium")
with left:
    kinds = ["Example", "Upload", "Microphone"]
    kind = st.segmented_control("Voice from", kinds, default="Example", required=True, key="reverse kind", persist_state="session")
    given = None
    if kind == "Example":
        first = "happy" if "happy" in classes else classes[0]
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            emotion = st.selectbox("Voice meant as", classes, **follow("voice", first, lambda k: k if k in classes else None))
            number = whole(9999)(st.query_params.get("take", "")) or 0
            about = "The next voice of this emotion, of other people by turns."
            go = {"on_click": query_params.write, "args": ("take", number + 1), "key": "another voice", "help": about}
            st.button("Another", icon=":material/record_voice_over:", **go)
    elif kind == "Upload":
        about = "wav, mp3, flac, ogg, m4a, or a video with sound. The first minute is read."
        given = st.file_uploader("Sound or clip with a voice", key="reverse upload", help=about)
    else:
        given = st.audio_input("Say something with feeling, for two seconds", key="reverse microphone")
if kind != "Example" and given is None:
    middle.info("The voice will appear here. Nothing leaves this machine.", icon=":material/graphic_eq:")
    st.stop()
with middle:
    try:
        if given is None:
            voice = reverse.example(run_id, emotion, number)
        else:
            name = uploads.plain(given.name)
            voice = wave = uploads.heard(given.file_id, given.name, given.getbuffer())
            if not isinstance(wave, str):
                length, at = len(wave) / s.rate, 0.0
                if length > 1.2:
                    about = "The second around this moment is what the networks hear. It starts in the middle."
                    with left:
                        at = st.slider("Heard around (s)", 0.5, length - 0.5, length / 2, 0.1, key=f"at {given.file_id}", help=about)
                voice = reverse.brought(run_id, name, wave, at)
    except ValueError as error:
        voice = str(error)
if isinstance(voice, str):
    middle.error(theme.escaped(voice), icon=":material/error:")
    st.stop()

said = reverse.explain(run_id, voice.y)
with middle:
    picture = charts.spectrogram(voice.y, run.ref_db, s, height=200)
    st.plotly_chart(picture, key="reverse spectrogram", config=charts.STILL, alt="spectrogram of the second that the networks hear")
with left if given is None else middle:
    st.audio(voice.wav, "audio/wav", alt="the second of voice that the networks hear")
    if given is None:
        whose = f"Back from {s.bands} mel bands" if voice.again else "Its middle second"
        about = "None of these people is known to the run (S4)."
        st.caption(f"`{voice.name}` · {whose} · {number % voice.of + 1} of {voice.of}", help=about)
    else:
        st.caption(f"{theme.escaped(voice.name)}: its level was changed by {voice.gain:+.1f} dB, to that of the voices of the run.")
with right:
    bars = charts.beliefs(classes, said.softmax, said.p, height=200)
    st.plotly_chart(bars, key="reverse beliefs", config=charts.STILL, alt="softmax and p-value of each emotion")
    words = f"The voice classifier hears **{classes[int(said.softmax.argmax())]}**, credibility {said.credibility:.2f}"
    about = f"p-values from {len(run.label_cal):,} calibration voices. For a voice from elsewhere no error rate is promised."
    st.caption(words, help=about)

# ------------------------------------------------------------------ its faces

guess, kind_of_c = classes[int(said.softmax.argmax())], run.config.gan.condition
told, across, names = "", reverse.ACROSS, {"classifier": "the softmax", "cp": "the p-values", "none": "nothing"}
with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
    if kind_of_c == "label":
        options = {"all": f"all {len(classes)} emotions, side by side", "guess": f"{guess} – the voice classifier's first choice"}
        options |= {k: k for k in classes}
        go = follow("emotion", "all", lambda k: k if k in options else None)
        told = st.selectbox("Emotion that the generator is told", list(options), format_func=options.get, width=300, **go)
    else:
        st.markdown(f"This generator is told **{names[kind_of_c]}** of the voice.")
    seed = st.number_input(
        "Seed", 0, 10**9 - 1, width=140, help="Of the noise z; the others count up.", **follow("seed", 0, whole(10**9 - 1))
    )
    rows = st.number_input("Rows", 1, 4, width=110, **follow("rows", 1, whole(4, 1)))
    if told == "all":
        emotions, across, seeds = list(classes), len(classes), range(seed, seed + rows)
    else:
        emotions = [told if told in classes else None]
        seeds = range(seed, seed + across * rows)
    after = {"on_click": query_params.write, "args": ("seed", seeds.stop % 10**9)}
    st.button("Other faces", key="other faces", icon=":material/casino:", help="The next seeds: the same voice, other noise.", **after)
    made = reverse.faces(run_id, voice.y, emotions, seeds)
    stem, more = f"faces-{run_id}-{seed}", {"on_click": "ignore", "icon": ":material/download:"}
    st.download_button("png", lambda: reverse.picture(made, across), f"{stem}.png", "image/png", help="All of them, enlarged.", **more)
    about = "28×28 numbers from 0 to 255 for each face, in the order of the page."
    st.download_button("npy", lambda: reverse.array(made), f"{stem}.npy", "application/octet-stream", help=about, **more)
    about = "What was told, seed and verdict of each face."
    st.download_button("csv", lambda: reverse.listing(run_id, made, classes), f"{stem}.csv", "text/csv", help=about, **more)
if voice.face is None:
    reverse.sheet(made, classes, across)
else:
    own_side, sheet_side = st.columns([1, across], gap="medium")
    with own_side:
        reverse.own(run_id, voice, classes)
    with sheet_side:
        reverse.sheet(made, classes, across)
st.caption(reverse.tally(run.run, made, classes))
st.subheader("About this run", divider="gray")
run_summary.about(run.run)
