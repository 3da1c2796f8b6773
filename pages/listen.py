"""Listen: a face goes in, and for each of the paper's conditions a voice comes out."""

import streamlit as st

from core.conformal import predictor
from core.files import UserError
from ui import film, listen
from ui.session import cache, query_params
from ui.widgets import charts, choices, players, run_summary, uploads

MAX_SEED = 10**9 - 1

title, choice = st.columns([3, 1], gap="medium", vertical_alignment="center")
title.title("Listen: the voice that goes with a face")
st.markdown(
    "Choose a face. A generator, or three that are each told something else about the emotion, "
    "draws one second of emotional voice for it.  \n"
    ":small[:material/info: **Not this person's voice**, at most scraps of words, acted emotions; "
    "it says nothing about what a person feels. "
    ":material/lock: Your clip stays on this machine and is deleted after the session.]"
)

# ------------------------------------------------------------------ the run

families = listen.families_to_hear()
if not families:
    run_summary.show_no_run()
    st.stop()
with choice:
    family = choices.choose_family(families, "listen run", "Run: ", label_visibility="collapsed")

# ------------------------------------------------------------------ the face

left, middle, right = st.columns([3, 4, 4], gap="medium")
persistent = {"persist_state": "session"}
with left:
    kinds = ["Example", "Upload", "Webcam"]
    last = uploads.last_clip()
    kinds += [uploads.LAST_LABEL] if last else []
    more = {"default": "Example", "required": True, "key": "kind", **persistent}
    kind = st.segmented_control("Face from", kinds, **more)
    upload = None
    if kind == "Example":
        go = {"on_change": listen.choose_run_of_example, "args": (families,)}
        more = {"format_func": uploads.EXAMPLES.get, "key": "example", **persistent}
        key = st.radio("Example", list(uploads.EXAMPLES), **more, **go)
    elif kind == "Upload":
        about = "mp4, mov, webm, flv, avi, mpg, jpg, png and more. The first minute is read."
        upload = st.file_uploader("Video or picture that shows a face", key="upload", help=about)
    elif kind == "Webcam":
        upload = st.camera_input("Look straight into the camera", key="webcam")
    if last and kind != "Example" and upload is None:
        uploads.show_last_name(last)
is_last = kind != "Example" and upload is None
if is_last and last is None:
    words = "The face will appear here. Nothing leaves this machine."
    middle.info(words, icon=":material/familiar_face_and_zone:")
    st.stop()
try:
    with middle:
        place, bar = st.empty(), st.empty()  # the face and the progress, while a clip is read
        if kind == "Example":
            clip, analysed_clip = uploads.load_example_clip(key)
        else:
            key = last.key if is_last else upload.file_id
            person = st.session_state.get(f"person {key}", 0)
            if is_last:
                clip, analysed_clip = uploads.analyse_last(last, person)
            else:
                clip, analysed_clip = uploads.analyse_upload(upload, person, place, bar)
        run = cache.load_run(family.id)
except UserError as error:
    place.error(str(error), icon=":material/error:")
    st.stop()
if isinstance(analysed_clip, str):
    place.error(analysed_clip, icon=":material/error:")
    if clip:
        words = "What was read: the frame in the middle"
        middle.image(clip.frames[len(clip.frames) // 2], width=300, caption=words)
    st.stop()

with left:
    if analysed_clip.people > 1:
        people = list(range(analysed_clip.people))
        name = lambda i: f"{i + 1}" + " (largest)" * (i == 0)  # noqa: E731
        more = {"default": 0, "required": True, "key": f"person {key}", "format_func": name}
        more |= persistent
        st.segmented_control("Person", people, **more)
    clip_key = f"{key} {st.session_state.get(f'person {key}', 0)}"
    chosen, usable_frames = None, [int(i) for i in analysed_clip.found.nonzero()[0]]
    if len(usable_frames) > 1:
        times = {None: "the whole film"}
        times |= {i: f"{analysed_clip.times[i]:.2f} s" for i in usable_frames}
        about = (
            "The whole film: the mean over its frames says how the face looks, and the generator "
            "is given the frame in the middle. Or one frame for both."
        )
        more = {"format_func": times.get, "key": f"frame {clip_key}", "help": about}
        more |= persistent
        chosen = st.select_slider("Frame at", [None, *usable_frames], None, **more)
    frame = analysed_clip.middle if chosen is None else chosen
    if kind != "Example":
        uploads.keep_frame(frame)
    if analysed_clip.notes:
        st.caption(" · ".join(analysed_clip.notes))
x, s = analysed_clip.aligned[frame], run.config.logmel
judged = cache.judged_faces(analysed_clip, chosen)
explanation = cache.explain_film(family.id, judged)
with place.container():
    players.show_face(analysed_clip, frame)
with middle:
    run_summary.show_certainty(run.classes, explanation, run.credibility)
with right:
    about = run.classes, explanation.softmax, explanation.p
    bars = charts.softmax_and_p_values(*about, height=205)
    alt = "softmax and p-value of each emotion"
    st.plotly_chart(bars, key="beliefs", config=charts.NO_TOOLBAR_CONFIG, alt=alt)
    st.caption(
        f"{predictor.describe(run.predictor)} An uploaded face comes from elsewhere: no error "
        "rate is promised for it."
    )
    if run.config.data.listening:
        st.caption(listen.LISTENING_NOTE)

# ------------------------------------------------------------------ its voices

first_choice = run.classes[int(explanation.softmax.argmax())]
can_be_whole = cache.count_windows(family.id, analysed_clip) > 1
is_whole_clip = can_be_whole and st.session_state.get("length") == listen.WHOLE_CLIP
emotions = {"": f"{first_choice} – the face classifier's first choice"}
if is_whole_clip:
    emotions[""] = "the face classifier's first choice in each window"
    middle.caption(listen.WHOLE_CLIP_NOTE)
emotions |= {k: k for k in run.classes}
left, right = st.columns([1, 2], gap="medium", vertical_alignment="bottom")
with left:
    args = choices.option_args("emotion", "emotion", emotions, "")
    chosen_emotion = st.selectbox("Emotion for the label", **args)
with right, st.container(horizontal=True, vertical_alignment="bottom"):
    about = (
        "Random seed of the noise and of the sound's phase. The page opens with one whose voices "
        "are heard as meant; below each you can count how often that is so."
    )
    seed_args = choices.integer_args("seed", "seed", listen.FIRST_SEED, 0, MAX_SEED)
    seed = st.number_input("Seed", width=140, help=about, **seed_args)
    about = "The next seed: the same face, other noise."
    go = {"on_click": query_params.set_value, "args": ("seed", seed + 1)}
    st.button("Another voice", icon=":material/casino:", help=about, **go)
    if can_be_whole:
        about = (
            "A voice as long as the film, up to 20 s: its emotion follows the face, its noise "
            "stays the same."
        )
        more = {"required": True, "key": "length", "help": about, **persistent}
        lengths = ["One second", listen.WHOLE_CLIP]
        st.segmented_control("Voice for", lengths, default=lengths[0], **more)
    about = (
        "For comparison: the same spectrograms inverted by plain Griffin-Lim, without a network. "
        "Thinner and hoarser."
    )
    plain = st.toggle("Griffin-Lim too", key="plain", help=about, **persistent)

draw = cache.example_voice if kind == "Example" else cache.generate_voice
columns, letter = None, "C" if analysed_clip.waveform is not None else ""
drawn = []  # what is drawn often, once all voices can be heard: place, run, condition
stem = f"{uploads.safe_file_name(clip.name).rsplit('.', 1)[0]}-{family.name}-{seed}"
# a run to be heard has one condition; its voice gets half the width
conditions = list(family.members) if run.config.data.listening else family.shown
if is_whole_clip:
    places = [st.container() for _ in conditions]
else:
    places = st.columns(max(2, len(conditions)), gap="medium")
for place, condition in zip(places, conditions):
    with place:
        run_id = family.members.get(condition)
        emotion = (chosen_emotion or None) if condition == "label" else None
        if run_id is None:
            run_summary.show_untrained_condition(condition, family.name)
            continue
        if is_whole_clip:
            one = cache.generate_long_voice(run_id, clip_key, analysed_clip, emotion, seed)
            y, show = one.long_voice.y, listen.show_long_voice
            columns = len(y)
        else:
            one = draw(run_id, x, emotion, seed, judged)
            y, show = one.y, players.show_voice
        other = cache.griffin_lim_audio(run_id, y, seed) if plain else None
        under_verdict = show(condition, one, run.classes, run.ref_db, s, stem, letter, other)
        if not is_whole_clip:
            drawn.append((under_verdict, run_id, one.c))

if not clip.is_still:
    st.header("The clip speaks", divider="gray")
    content = upload.getvalue if upload else lambda: film.clip_content(key, clip)
    voice = chosen_emotion or None, seed, stem
    film.show_film(family, clip, analysed_clip, clip_key, content, *voice)
st.header("The clip's own voice, for comparison", divider="gray")
if analysed_clip.waveform is None:
    st.caption("This clip has no sound. It needs none: a voice is generated from the face alone.")
else:
    own = cache.own_voice(family.id, key, analysed_clip.waveform, columns)
    players.show_own_voice(own, run.classes, run.ref_db, s, is_whole_clip)
st.header("About this run", divider="gray")
run_summary.show_results(run.run)
for place, run_id, c in drawn:
    with place:
        listen.show_rate(run_id, x, c, first_choice)
