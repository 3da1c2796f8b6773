"""Train: choose an experiment, start it, watch it. Its process goes on when the page is closed."""

import streamlit as st

from core.config.presets import PRESETS
from core.config.settings import CONDITIONS, replace
from ui import theme
from ui.session import cache
from ui.train import launch, progress, queue, settings
from ui.widgets import choices

PRESET_DESCRIPTIONS = {
    "stage": (
        "To be watched: invented people, drawn at once. A new point, picture and sound every few "
        "seconds, and voices heard as meant within a minute on two cores."
    ),
    "smoke": "The whole path in under a minute, to see it work. Its figures mean nothing.",
    "demo": "Invented faces and voices, drawn on demand. Some minutes.",
    "fer2013-ravdess": (
        "Real faces (FER2013) and real voices (RAVDESS), paired by emotion. About an hour on two "
        "cores."
    ),
    "listening": (
        "To be heard: a flow (ours) that learns from every window of all people but the test "
        "people's. Prepare RAVDESS with --crops 7. About an hour on two cores."
    ),
    "fine": ("As fer2013-ravdess with 64 mel bands, which carry more of a voice. Longer."),
    "surrogate-pairs": (
        "Faces of FER2013 and voices of RAVDESS joined into clips that share an emotion and no "
        "person, for the experiment with few labels. About an hour on two cores."
    ),
    "paper": (
        "CREMA-D by the paper's method at its width: Adagrad for all networks, Q trained beside D "
        "on S3's labels. Needs a GPU and some hours."
    ),
    "ravdess": "The same on RAVDESS, its own faces and voices. Needs a GPU.",
    "studio": "CREMA-D by our method, compact networks. Needs a GPU and some hours.",
}
GENERATOR_LABELS = {
    **{"encdec": "EncDec (dense)", "unet": "U-Net", "conv": "Convolutional (ours)"},
    "flow": "Flow matching (ours, no GAN)",
}
MAX_STEPS = MAX_SEED = 10**6

st.title("Train")
st.markdown(
    "The whole paper on one configuration: sets, face classifier, conformal prediction, GAN, "
    "figures. Closing the browser does not stop it."
)
settings_side, job_side = st.columns([4, 9], gap="large")

# ------------------------------------------------------------------ a new experiment

keep, wide = {"persist_state": "session"}, {"width": "stretch"}
with settings_side:
    st.header("New training")
    # smoke shows that all parts work and nothing more: it is for those who know its name
    known = [k for k in PRESETS if k != "smoke" or st.query_params.get("preset") == k]
    preset = st.selectbox("Preset", **choices.option_args("preset", "preset", known, "stage"))
    st.caption(PRESET_DESCRIPTIONS[preset])
    config = PRESETS[preset]
    about = (
        "What the generator gets beside the face: label, the face classifier's softmax, p-values, "
        "or nothing."
    )
    bound = choices.option_args(
        "condition", f"{preset} condition", CONDITIONS, config.gan.condition
    )
    name = lambda k: theme.CONDITION_TEXTS[k][0]  # noqa: E731
    bound["format_func"] = name
    condition = st.segmented_control("Condition", required=True, help=about, **bound)
    names = list(GENERATOR_LABELS)
    look = {"format_func": GENERATOR_LABELS.get, "key": f"{preset} generator"}
    generator = st.selectbox("Generator", names, names.index(config.gan.generator), **look, **keep)
    a, b = st.columns(2)
    look = {"key": f"{preset} steps", "help": "Training steps of the generator."}
    steps = a.number_input("Steps", 1, MAX_STEPS, config.gan.steps, **look, **keep)
    look = {"key": f"{preset} seed", "help": "Seed of weights, noise and pairs."}
    seed = b.number_input("Seed", 0, MAX_SEED, config.seed, **look, **keep)
    start_place = st.container()  # above what is rarely changed, so that it is seen at once
    cards = cache.gpus()
    devices = ["auto", "cpu", *(["cuda"] if cards else [])]
    look = {"default": "auto", "required": True, "key": "device"}
    device = st.segmented_control("Device", devices, **look, **keep)
    no_card = "No NVIDIA card was found: *auto* is the CPU."
    st.caption("NVIDIA card: " + "; ".join(cards) if cards else no_card)
    look = {"icon": ":material/tune:", "key": "settings", "on_change": "rerun"}
    popover = st.popover("All other settings", **look, **wide)
    with popover:
        read_settings = settings.show_form if popover.open else settings.last_config
        config = read_settings(config, preset)
    gan = {"condition": condition, "generator": generator, "steps": steps}
    config = replace(config, seed=seed, gan=gan)

    rows = cache.run_rows()
    with start_place:
        buttons = st.container()
        can_start = launch.show_corpus_state(config)
    with buttons:
        launch.show_start_buttons(config, rows, device, can_start)

# ------------------------------------------------------------------ trainings, running and past

with job_side:
    asked = st.query_params.get("run")
    labels = {
        r["run"]: progress.run_label(r) for r in rows if not r["archived"] or r["run"] == asked
    }
    if not labels:
        st.header("No run yet")
        words = "Choose a preset on the left and press *Start*. The demo needs no download."
        st.info(words, icon=":material/arrow_back:")
        st.stop()
    states = {r["run"]: r["state"] for r in rows}
    live_runs = [run for run, state in states.items() if state in cache.LIVE_STATES]
    running = [run for run, state in states.items() if state == "running"]
    bound = choices.option_args("run", "train run", labels, [*running, *live_runs, *labels][0])
    run_id = st.selectbox("Run", **bound)

    @st.fragment(run_every=2 if live_runs else None)
    def show_job() -> None:
        rows = cache.run_rows()
        row = next((r for r in rows if r["run"] == run_id), None)
        if row is None or {r["run"]: r["state"] for r in rows} != states:
            st.rerun()  # the list above and the button on the left show the states too
        progress.show_state(row, rows, device)
        queue.show_entries(rows, run_id)
        if row["state"] == "done":
            page, words = "listen", "Listen with this run"
            if cache.run_config(run_id).gan.direction == "voice-face":
                page, words = "reverse", "Draw faces with this run"
            go = {"icon": ":material/arrow_forward:", "query_params": {"run": run_id}}
            st.page_link(f"pages/{page}.py", label=words, **go)
            progress.show_results(row)
        if not row["fault"]:
            progress.show_course(row, rows)
        progress.show_log(row)

    show_job()
