"""Listen: a face goes in, and for each of the paper's conditions a voice comes out."""

import streamlit as st
from core.media.faces.landmarker import ModelMissing

from ui import listen
from ui.session import cache, query_params
from ui.widgets import charts, players, run_summary, uploads

title, choice = st.columns([3, 1], gap="medium", vertical_alignment="center")
title.title("Listen: the voice that goes with a face")
st.markdown(
    "Choose a face. Generators draw one second of emotional voice for it; each is told something else about the emotion.  \n"
    ":small[:material/info: **Not this person's voice**, no words, acted emotions; it says nothing about what a person feels. "
    ":material/lock: Your clip stays on this machine and is deleted after the session.]"
)

# ------------------------------------------------------------------ which run

families = cache.families()
if not families:
    run_summary.show_no_run()
    st.stop()
family_id_by_run = {run: f.id for f in families for run in f.members.values()}
family_by_id = {f.id: f for f in families}
query_params.restore_widget("run", "listen run", families[0].id, family_id_by_run.get)
with choice:
    shown, go = (
        lambda k: f"Run: {family_by_id[k].label}",
        {"on_change": query_params.save_widget, "args": ("run", "listen run")},
    )
    st.selectbox(
        "Trained run",
        list(family_by_id),
        format_func=shown,
        key="listen run",
        label_visibility="collapsed",
        **go,
    )
family = family_by_id[st.session_state["listen run"]]

# ------------------------------------------------------------------ which face

left, middle, right = st.columns([3, 4, 4], gap="medium")
with left:
    kind = st.segmented_control(
        "Face from",
        ["Example", "Upload", "Webcam"],
        default="Example",
        required=True,
        key="kind",
        persist_state="session",
    )
    upload = None
    if kind == "Example":
        key = st.radio(
            "Example",
            list(uploads.EXAMPLES),
            format_func=uploads.EXAMPLES.get,
            key="example",
            persist_state="session",
        )
    elif kind == "Upload":
        what = "mp4, mov, webm, flv, avi, mpg, jpg, png and more. The first minute is read."
        upload = st.file_uploader("Video or picture that shows a face", key="upload", help=what)
    else:
        upload = st.camera_input("Look straight into the camera", key="webcam")
if kind != "Example" and upload is None:
    middle.info(
        "The face will appear here. Nothing leaves this machine.",
        icon=":material/familiar_face_and_zone:",
    )
    st.stop()
try:
    with middle:
        place, bar = (
            st.empty(),
            st.empty(),
        )  # of the face, which is shown while its film is still read, and of how far that is
        if upload is None:
            clip, analysed_clip = uploads.load_example_clip(key)
        else:
            key = upload.file_id
            clip, analysed_clip = uploads.analyse_upload(
                upload, st.session_state.get(f"person {key}", 0), place, bar
            )
        run = cache.load_run(family.id)
except (ModelMissing, ValueError) as error:
    place.error(str(error), icon=":material/error:")
    st.stop()
if isinstance(analysed_clip, str):
    place.error(analysed_clip, icon=":material/error:")
    if clip:
        middle.image(
            clip.frames[len(clip.frames) // 2],
            width=300,
            caption="What was read: the frame in the middle",
        )
    st.stop()

with left:
    if analysed_clip.people > 1:
        people, name = (
            list(range(analysed_clip.people)),
            lambda i: f"{i + 1} (largest)" if i == 0 else f"{i + 1}",
        )
        st.segmented_control(
            "Person", people, default=0, required=True, key=f"person {key}", format_func=name
        )
    frame, usable_frames = analysed_clip.middle, [int(i) for i in analysed_clip.found.nonzero()[0]]
    if len(usable_frames) > 1:
        frame_key = f"frame {key} {st.session_state.get(f'person {key}', 0)}"
        seconds, about = (
            lambda i: f"{analysed_clip.times[i]:.2f} s",
            "Only frames that show a face can be chosen. It starts in the middle.",
        )
        frame = st.select_slider(
            "Frame at",
            usable_frames,
            analysed_clip.middle,
            format_func=seconds,
            key=frame_key,
            help=about,
        )
    if analysed_clip.notes:
        st.caption(" · ".join(analysed_clip.notes))
x, s = analysed_clip.aligned[frame], run.config.logmel
explanation = cache.explain_face(family.id, x)
with place.container():
    players.show_face(analysed_clip, frame)
with middle:
    run_summary.show_certainty(run.classes, explanation)
with right:
    bars = charts.softmax_and_p_values(run.classes, explanation.softmax, explanation.p)
    st.plotly_chart(
        bars,
        key="beliefs",
        config=charts.NO_TOOLBAR_CONFIG,
        alt="softmax and p-value of each emotion",
    )
    st.caption(
        f"p-values from {len(run.label_cal):,} calibration faces. An uploaded face comes from elsewhere: no error rate is promised for it."
    )

# ------------------------------------------------------------------ its voices

predicted_emotion = run.classes[int(explanation.softmax.argmax())]
query_params.restore_widget("emotion", "emotion", "", lambda k: k if k in run.classes else None)
query_params.restore_widget(
    "seed", "seed", 0, lambda k: int(k) if k.isdecimal() and len(k) < 10 else None
)
left, right = st.columns([1, 2], gap="medium", vertical_alignment="bottom")
with left:
    shown, go = (
        lambda k: k or f"{predicted_emotion} – the face classifier's first choice",
        {"on_change": query_params.save_widget, "args": ("emotion", "emotion")},
    )
    st.selectbox(
        "Emotion for the label", ["", *run.classes], format_func=shown, key="emotion", **go
    )
with right, st.container(horizontal=True, vertical_alignment="bottom"):
    go = {"on_change": query_params.save_widget, "args": ("seed", "seed")}
    seed = st.number_input(
        "Seed",
        0,
        10**9 - 1,
        key="seed",
        width=140,
        help="Of the noise and of the sound's phase.",
        **go,
    )
    about, go = (
        "The next seed: the same face, other noise.",
        {"on_click": query_params.set_value, "args": ("seed", seed + 1)},
    )
    st.button("Another voice", icon=":material/casino:", help=about, **go)
    length, about = (
        "One second",
        "A voice as long as the film, up to 20 s: its emotion follows the face, its noise stays the same.",
    )
    if cache.count_windows(family.id, analysed_clip) > 1:
        more = {"required": True, "key": "length", "persist_state": "session", "help": about}
        length = st.segmented_control(
            "Voice for", ["One second", "Whole clip"], default="One second", **more
        )
    about = "For comparison: the same spectrograms made sound by plain Griffin-Lim, without a network. Thinner and hoarser."
    plain = st.toggle("Griffin-Lim too", key="plain", persist_state="session", help=about)

is_whole_clip, clip_key = (
    length == "Whole clip",
    f"{key} {st.session_state.get(f'person {key}', 0)}",
)
columns = None
stem = f"{uploads.safe_file_name(clip.name).rsplit('.', 1)[0]}-{family.name}-{seed}"
places = (
    [st.container() for _ in family.shown]
    if is_whole_clip
    else st.columns(len(family.shown), gap="medium")
)
for place, condition in zip(places, family.shown):
    with place:
        run_id, emotion = (
            family.members.get(condition),
            (st.session_state["emotion"] or None) if condition == "label" else None,
        )
        if run_id is None:
            run_summary.show_untrained_condition(condition, family.name)
        elif is_whole_clip:
            one = cache.generate_long_voice(run_id, clip_key, analysed_clip, emotion, seed)
            columns, other = (
                len(one.long_voice.y),
                cache.griffin_lim_audio(run_id, one.long_voice.y, seed) if plain else None,
            )
            listen.show_long_voice(condition, one, run.classes, run.ref_db, s, stem, other)
        else:
            one = cache.generate_voice(run_id, x, emotion, seed)
            players.show_voice(
                condition,
                one,
                run.classes,
                run.ref_db,
                s,
                stem,
                cache.griffin_lim_audio(run_id, one.y, seed) if plain else None,
            )

st.subheader("The clip's own voice, for comparison", divider="gray")
if analysed_clip.waveform is None:
    st.caption("This clip has no sound. It needs none: a voice is generated from the face alone.")
else:
    players.show_own_voice(
        cache.own_voice(family.id, key, analysed_clip.waveform, columns),
        run.classes,
        run.ref_db,
        s,
        is_whole_clip,
    )
st.subheader("About this run", divider="gray")
run_summary.show_results(run.run)
