"""Train: choose an experiment, start it, watch it. A training runs in a process of its own and outlives this page."""

import streamlit as st

from core.config import CONDITIONS, PRESETS, replace
from core.data import preparation, splits
from core.data.corpora import CorpusError
from core.experiments import jobs
from core.files import BusyError, StopRequested
from ui import theme
from ui.session import cache, corpora, query_params
from ui.train import progress, queue, settings

PRESET_DESCRIPTIONS = {
    "smoke": "The whole path in under a minute, to see it work. Its figures mean nothing.",
    "demo": "Invented faces and voices, drawn on demand. Some minutes.",
    "fer2013-ravdess": "Real faces (FER2013) and real voices (RAVDESS), paired by emotion. About an hour on two cores.",
    "fine": "The same with 64 mel bands instead of the paper's 28: voices that sound better. Longer.",
    "paper": "CREMA-D at the paper's width and learning rates. Needs a GPU and a day.",
    "studio": "CREMA-D at the paper's width, by our method. Needs a GPU and some hours.",
}
GENERATOR_LABELS = {"encdec": "EncDec (dense)", "unet": "U-Net", "conv": "Convolutional (ours)"}

st.title("Train")
st.markdown(
    "The whole paper on one configuration: sets, face classifier, conformal prediction, GAN, figures. Closing the browser does not stop it."
)
settings_side, job_side = st.columns([4, 9], gap="large")

# ------------------------------------------------------------------ a new experiment

with settings_side:
    st.subheader("New training")
    query_params.restore_widget("preset", "preset", "demo", lambda k: k if k in PRESETS else None)
    preset = st.selectbox(
        "Preset",
        list(PRESETS),
        key="preset",
        on_change=query_params.save_widget,
        args=("preset", "preset"),
    )
    st.caption(PRESET_DESCRIPTIONS[preset])
    config = PRESETS[preset]
    key, about = (
        f"{preset} condition",
        "What the generator is told beside the face: label, the face classifier's softmax, p-values, or nothing.",
    )
    query_params.restore_widget(
        "condition", key, config.gan.condition, lambda k: k if k in CONDITIONS else None
    )
    go = {"on_change": query_params.save_widget, "args": ("condition", key)}
    condition = st.segmented_control(
        "Condition", CONDITIONS, required=True, key=key, help=about, **go
    )
    key, at = f"{preset} generator", list(GENERATOR_LABELS).index(config.gan.generator)
    generator = st.selectbox(
        "Generator",
        list(GENERATOR_LABELS),
        at,
        format_func=GENERATOR_LABELS.get,
        key=key,
        persist_state="session",
    )
    a, b = st.columns(2)
    steps = a.number_input(
        "Steps",
        1,
        10**6,
        config.gan.steps,
        key=f"{preset} steps",
        persist_state="session",
        help="Training steps of G, D and Q.",
    )
    seed = b.number_input(
        "Seed",
        0,
        10**6,
        config.seed,
        key=f"{preset} seed",
        persist_state="session",
        help="Of weights, noise and pairs.",
    )
    cards = cache.gpus()
    devices = ["auto", "cpu", *(["cuda"] if cards else [])]
    device = st.segmented_control(
        "Device", devices, default="auto", required=True, key="device", persist_state="session"
    )
    st.caption(
        "NVIDIA card: " + "; ".join(cards)
        if cards
        else "No NVIDIA card was found: *auto* is the CPU."
    )
    settings_popover = st.popover(
        "All other settings",
        icon=":material/tune:",
        width="stretch",
        key="settings",
        on_change="rerun",
    )
    with settings_popover:
        config = (settings.show_form if settings_popover.open else settings.last_config)(
            config, preset
        )
    config = replace(
        config, seed=seed, gan={"condition": condition, "generator": generator, "steps": steps}
    )

    names = dict.fromkeys(
        n for n in (config.data.faces, config.data.voices, config.data.f_s_corpus) if n
    )
    demo_corpora = splits.demo_corpora(config.data)
    missing_corpora = [
        n for n in names if n not in demo_corpora and not splits.corpus_path(n).exists()
    ]
    mismatch = corpora.band_mismatch(config)
    if missing_corpora:
        st.warning(
            "**Not prepared: "
            + " and ".join(missing_corpora)
            + ".** Once, in a terminal, with the corpus as published:",
            icon=":material/folder_off:",
        )
        st.code(
            "\n".join(map(splits.prepare_command, missing_corpora)),
            language="bash",
            wrap_lines=True,
        )
        query = {
            "part": "bring",
            "bands": str(max(splits.parse_name(n)[1] for n in missing_corpora)),
        }
        st.page_link(
            "pages/data.py",
            label="Or on the Data page",
            icon=":material/database:",
            query_params=query,
        )
    elif mismatch:
        st.warning(
            theme.escape_markdown(mismatch) + ". Both are under *All other settings*.",
            icon=":material/graphic_eq:",
        )
    elif not all(splits.corpus_path(n, config.data.demo_takes).exists() for n in demo_corpora):
        st.caption(":material/brush: The demo corpus will be drawn first: nothing is downloaded.")
    else:
        st.caption(":material/check_circle: Corpus ready: " + " × ".join(names))
    has_too_few_classes = len(config.data.classes) < 2
    if has_too_few_classes:
        st.warning(
            "Choose two emotions or more, under *All other settings*.", icon=":material/rule:"
        )
    rows = cache.run_rows()
    is_busy = any(r["state"] in cache.LIVE_STATES or r["state"] == "paused" for r in rows)
    start_clicked = st.button(
        "Add to the queue" if is_busy else "Start",
        type="primary",
        icon=":material/playlist_add:" if is_busy else ":material/play_arrow:",
        disabled=bool(missing_corpora or mismatch) or has_too_few_classes,
        width="stretch",
        key="start",
    )
    about = "Label, classifier and CP with these settings, one after the other."
    words = {
        "icon": ":material/playlist_add:",
        "disabled": bool(missing_corpora or mismatch) or has_too_few_classes,
        "width": "stretch",
        "help": about,
    }
    start_all_clicked = st.button("Train all three conditions", key="start all", **words)
    if start_clicked or start_all_clicked:
        try:
            for name in demo_corpora:
                bar = st.progress(0.0, "Drawing the demo corpus …")
                preparation.prepare_corpus(
                    name,
                    None,
                    tick=progress.demo_progress_callback(bar),
                    takes=config.data.demo_takes,
                )
            selected = [c for c in CONDITIONS if c != "none"] if start_all_clicked else [condition]
            run_ids = [jobs.start(replace(config, gan={"condition": c}), device) for c in selected]
            query_params.set_value("run", run_ids[0])
            query_params.set_value("at", None)
            st.rerun()
        except (CorpusError, ValueError, OSError, BusyError, StopRequested) as error:
            st.error(theme.escape_markdown(str(error)), icon=":material/error:")

# ------------------------------------------------------------------ trainings, running and past

with job_side:
    if not rows:
        st.subheader("No run yet")
        st.info(
            "Choose a preset on the left and press *Start*. The demo needs no download.",
            icon=":material/arrow_back:",
        )
        st.stop()
    row_by_run, states = {r["run"]: r for r in rows}, {r["run"]: r["state"] for r in rows}
    live_runs = [r["run"] for r in rows if r["state"] in cache.LIVE_STATES]
    default_run = next(
        (r["run"] for r in rows if r["state"] == "running"), (live_runs or list(row_by_run))[0]
    )
    query_params.restore_widget(
        "run", "train run", default_run, lambda k: k if k in row_by_run else None
    )
    go = {"on_change": query_params.save_widget, "args": ("run", "train run")}
    selected = st.selectbox(
        "Run",
        list(row_by_run),
        format_func=lambda k: progress.run_label(row_by_run[k]),
        key="train run",
        **go,
    )

    @st.fragment(run_every=2 if live_runs else None)
    def show_job() -> None:
        rows = cache.run_rows()
        row = next((r for r in rows if r["run"] == selected), None)
        if row is None or {r["run"]: r["state"] for r in rows} != states:
            st.rerun()  # the list above and the button on the left show the states too
        progress.show_state(row, rows, device)
        queue.show_entries(rows, selected)
        if row["state"] == "done":
            turned = cache.run_config(selected).gan.direction == "voice-face"
            where, words = (
                ("reverse", "Draw faces with this run")
                if turned
                else ("listen", "Listen with this run")
            )
            st.page_link(
                f"pages/{where}.py",
                label=words,
                icon=":material/arrow_forward:",
                query_params={"run": selected},
            )
            progress.show_results(row)
        progress.show_course(row)
        progress.show_log(row)

    show_job()
