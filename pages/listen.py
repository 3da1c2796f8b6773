"""Listen: a face goes in, and for each of the paper's conditions a voice comes out."""

import streamlit as st

from core.faces import ModelMissing
from ui import access, address, charts, players, summary, visitor

st.title("Listen: the voice that goes with a face")
st.markdown(
    "Choose a face. A generator draws one second of emotional voice for it, three times: each time it is told something else about the emotion.  \n"
    ":small[:material/info: **Not this person's voice**, no words, acted emotions; it says nothing about what a person feels. "
    ":material/lock: Your clip stays on this machine and is deleted after the session.]"
)

# ------------------------------------------------------------------ which run

families = access.families()
if not families:
    summary.no_run()
    st.stop()
of_run = {run: f.id for f in families for run in f.members.values()}
named = {f.id: f for f in families}
address.follow("run", "listen run", families[0].id, of_run.get)

# ------------------------------------------------------------------ which face

left, middle, right = st.columns([3, 4, 4], gap="medium")
with left:
    kind = st.segmented_control(
        "Face from", ["Example", "Upload", "Webcam"], default="Example", required=True, key="kind", persist_state="session"
    )
    if kind == "Example":
        choice = st.radio("Example", list(visitor.EXAMPLES), format_func=visitor.EXAMPLES.get, key="example", persist_state="session")
        given = None
    elif kind == "Upload":
        given = st.file_uploader(
            "Video or picture with a face, at most 200 MB",
            key="upload",
            help="mp4, mov, webm, flv, avi, mpg, jpg, png and more; the first minute is read.",
        )
    else:
        given = st.camera_input("Look straight into the camera", key="webcam")
    st.selectbox(
        "Trained run",
        list(named),
        format_func=lambda k: named[k].label,
        key="listen run",
        on_change=address.keep,
        args=("run", "listen run"),
    )

family = named[st.session_state["listen run"]]
try:
    with middle:
        if kind == "Example":
            key, (clip, seen) = choice, visitor.example(choice)
        elif given is None:
            st.info("Your face will appear here. Nothing is sent anywhere.", icon=":material/familiar_face_and_zone:")
            st.stop()
        else:
            key, clip = given.file_id, visitor.decoded(given.file_id, given.name, given.getbuffer())
            person = st.session_state.get(f"person {key}", 0)
            seen = clip if isinstance(clip, str) else visitor.looked_at(key, person, clip)
except ModelMissing as error:
    st.error(str(error), icon=":material/download:")
    st.stop()
if isinstance(seen, str):
    with middle:
        st.error(seen, icon=":material/error:")
        if not isinstance(clip, str):
            st.image(clip.frames[len(clip.frames) // 2], width=300, caption="What was read: the clip's middle frame")
    st.stop()

usable = [int(i) for i in seen.found.nonzero()[0]]
with left:
    if seen.people > 1:
        st.segmented_control(
            "Person",
            range(seen.people),
            default=0,
            required=True,
            key=f"person {key}",
            format_func=lambda i: f"{i + 1}" + (" (largest)" if not i else ""),
        )
with middle:
    at = seen.middle
    if len(usable) > 1:
        at = st.select_slider(
            "Frame (s); only frames with a face can be chosen",
            usable,
            value=seen.middle,
            format_func=lambda i: f"{seen.times[i]:.2f} s",
            key=f"frame {key} {st.session_state.get(f'person {key}', 0)}",
        )
    picture, face = st.columns([5, 3], gap="small")
    with picture:
        players.frame(seen, at)
    with face:
        players.aligned(seen.aligned[at], 120)
        st.caption("Aligned, 28×28: all that the networks see")
    if seen.notes:
        st.caption(" · ".join(seen.notes))

# ------------------------------------------------------------------ what is made of it

run = access.opened(family.id)
x, s = seen.aligned[at], run.config.logmel
said = access.explain(family.id, x)
with right:
    st.plotly_chart(
        charts.beliefs(run.classes, said.softmax, said.p), key="beliefs", config=charts.STILL, alt="softmax and p-values of each emotion"
    )
    summary.certainty(run.classes, said, len(run.label_cal))

first = run.classes[int(said.softmax.argmax())]
emotions, seeds = st.columns([3, 8], gap="medium", vertical_alignment="bottom")
address.follow("emotion", "emotion", "", lambda k: k if k in run.classes else None)
address.follow("seed", "seed", 0, lambda k: int(k) if k.isdecimal() and len(k) < 10 else None)
with emotions:
    emotion = st.selectbox(
        "Emotion for the label condition",
        ["", *run.classes],
        format_func=lambda k: k or f"{first}, the face classifier's first choice",
        key="emotion",
        on_change=address.keep,
        args=("emotion", "emotion"),
    )
with seeds, st.container(horizontal=True, vertical_alignment="bottom"):
    seed = st.number_input(
        "Seed", 0, 10**9 - 1, key="seed", on_change=address.keep, args=("seed", "seed"), width=140, help="Of the noise z and of the phase."
    )
    st.button(
        "Another voice",
        icon=":material/casino:",
        on_click=lambda: address.write("seed", seed + 1),
        help="The next seed: other noise, same face.",
    )

for column, (condition, run_id) in zip(st.columns(max(3, len(family.members)), gap="medium"), family.members.items()):
    with column:
        one = access.generate(run_id, x, (emotion or None) if condition == "label" else None, seed)
        players.voice(condition, one, run.classes, run.ref_db, s, f"{visitor.plain(clip.name).rsplit('.', 1)[0]}-{family.name}-{seed}")

st.divider()
st.subheader("The clip's own voice, for comparison")
if seen.waveform is None:
    st.caption("This clip has no sound. It needs none: a voice is generated from the face alone.")
else:
    players.own(access.own_voice(family.id, key, seen.waveform), run.classes, run.ref_db, s)

st.divider()
summary.run_line(run.run)
