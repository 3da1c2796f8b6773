"""Train: choose an experiment, start it, watch it. A training runs in a process of its own and outlives this page."""

import streamlit as st

from core.config import CONDITIONS, PRESETS, replace
from core.data import preparation, splits
from core.data.corpora import CorpusError
from core.experiments import jobs
from core.files import Busy, Stopped
from ui import theme
from ui.session import cache, corpora, query_params
from ui.train import progress, queue, settings

ABOUT = {
    "smoke": "The whole path in under a minute, to see it work. Its figures mean nothing.",
    "demo": "Invented faces and voices, drawn on demand. Some minutes.",
    "fer2013-ravdess": "Real faces (FER2013) and real voices (RAVDESS), paired by emotion. About an hour on two cores.",
    "fine": "The same with 64 mel bands instead of the paper's 28: voices that sound better. Longer.",
    "paper": "CREMA-D at the paper's width and learning rates. Needs a GPU and a day.",
    "studio": "CREMA-D at the paper's width, by our method. Needs a GPU and some hours.",
}
GENERATORS = {"encdec": "EncDec (dense)", "unet": "U-Net", "conv": "Convolutional (ours)"}

st.title("Train")
st.markdown(
    "The whole paper on one configuration: sets, face classifier, conformal prediction, GAN, figures. Closing the browser does not stop it."
)
settings_side, job_side = st.columns([4, 9], gap="large")

# ------------------------------------------------------------------ a new experiment

with settings_side:
    st.subheader("New training")
    query_params.follow("preset", "preset", "demo", lambda k: k if k in PRESETS else None)
    preset = st.selectbox("Preset", list(PRESETS), key="preset", on_change=query_params.keep, args=("preset", "preset"))
    st.caption(ABOUT[preset])
    config = PRESETS[preset]
    key, about = (
        f"{preset} condition",
        "What the generator is told beside the face: label, the face classifier's softmax, p-values, or nothing.",
    )
    query_params.follow("condition", key, config.gan.condition, lambda k: k if k in CONDITIONS else None)
    go = {"on_change": query_params.keep, "args": ("condition", key)}
    condition = st.segmented_control("Condition", CONDITIONS, required=True, key=key, help=about, **go)
    key, at = f"{preset} generator", list(GENERATORS).index(config.gan.generator)
    generator = st.selectbox("Generator", list(GENERATORS), at, format_func=GENERATORS.get, key=key, persist_state="session")
    a, b = st.columns(2)
    steps = a.number_input(
        "Steps", 1, 10**6, config.gan.steps, key=f"{preset} steps", persist_state="session", help="Training steps of G, D and Q."
    )
    seed = b.number_input("Seed", 0, 10**6, config.seed, key=f"{preset} seed", persist_state="session", help="Of weights, noise and pairs.")
    cards = cache.cards()
    devices = ["auto", "cpu", *(["cuda"] if cards else [])]
    device = st.segmented_control("Device", devices, default="auto", required=True, key="device", persist_state="session")
    st.caption("NVIDIA card: " + "; ".join(cards) if cards else "No NVIDIA card was found: *auto* is the CPU.")
    more = st.popover("All other settings", icon=":material/tune:", width="stretch", key="settings", on_change="rerun")
    with more:
        config = (settings.form if more.open else settings.kept)(config, preset)
    config = replace(config, seed=seed, gan={"condition": condition, "generator": generator, "steps": steps})

    names = dict.fromkeys(n for n in (config.data.faces, config.data.voices, config.data.f_s_corpus) if n)
    drawn = splits.drawn(config.data)
    missing = [n for n in names if n not in drawn and not splits.path_of(n).exists()]
    misfit = corpora.misfit(config)
    if missing:
        st.warning(
            "**Not prepared: " + " and ".join(missing) + ".** Once, in a terminal, with the corpus as published:",
            icon=":material/folder_off:",
        )
        st.code("\n".join(map(splits.command, missing)), language="bash", wrap_lines=True)
        query = {"part": "bring", "bands": str(max(splits.clips_of(n)[1] for n in missing))}
        st.page_link("pages/data.py", label="Or on the Data page", icon=":material/database:", query_params=query)
    elif misfit:
        st.warning(theme.escaped(misfit) + ". Both are under *All other settings*.", icon=":material/graphic_eq:")
    elif not all(splits.path_of(n, config.data.demo_takes).exists() for n in drawn):
        st.caption(":material/brush: The demo corpus will be drawn first: nothing is downloaded.")
    else:
        st.caption(":material/check_circle: Corpus ready: " + " × ".join(names))
    few = len(config.data.classes) < 2
    if few:
        st.warning("Choose two emotions or more, under *All other settings*.", icon=":material/rule:")
    rows = cache.rows()
    busy = any(r["state"] in cache.LIVE or r["state"] == "paused" for r in rows)
    one = st.button(
        "Add to the queue" if busy else "Start",
        type="primary",
        icon=":material/playlist_add:" if busy else ":material/play_arrow:",
        disabled=bool(missing or misfit) or few,
        width="stretch",
        key="start",
    )
    about = "Label, classifier and CP with these settings, one after the other."
    words = {"icon": ":material/playlist_add:", "disabled": bool(missing or misfit) or few, "width": "stretch", "help": about}
    three = st.button("Train all three conditions", key="start all", **words)
    if one or three:
        try:
            for name in drawn:
                bar = st.progress(0.0, "Drawing the demo corpus …")
                preparation.prepare(name, None, tick=progress.ticking(bar), takes=config.data.demo_takes)
            chosen = [c for c in CONDITIONS if c != "none"] if three else [condition]
            started = [jobs.start(replace(config, gan={"condition": c}), device) for c in chosen]
            query_params.write("run", started[0])
            query_params.write("at", None)
            st.rerun()
        except (CorpusError, ValueError, OSError, Busy, Stopped) as error:
            st.error(theme.escaped(str(error)), icon=":material/error:")

# ------------------------------------------------------------------ trainings, running and past

with job_side:
    if not rows:
        st.subheader("No run yet")
        st.info("Choose a preset on the left and press *Start*. The demo needs no download.", icon=":material/arrow_back:")
        st.stop()
    of, states = {r["run"]: r for r in rows}, {r["run"]: r["state"] for r in rows}
    live = [r["run"] for r in rows if r["state"] in cache.LIVE]
    first = next((r["run"] for r in rows if r["state"] == "running"), (live or list(of))[0])
    query_params.follow("run", "train run", first, lambda k: k if k in of else None)
    go = {"on_change": query_params.keep, "args": ("run", "train run")}
    chosen = st.selectbox("Run", list(of), format_func=lambda k: progress.label(of[k]), key="train run", **go)

    @st.fragment(run_every=2 if live else None)
    def job() -> None:
        rows = cache.rows()
        row = next((r for r in rows if r["run"] == chosen), None)
        if row is None or {r["run"]: r["state"] for r in rows} != states:
            st.rerun()  # the list above and the button on the left show the states too
        progress.head(row, rows, device)
        queue.show(rows, chosen)
        if row["state"] == "done":
            turned = cache.config(chosen).gan.direction == "voice-face"
            where, words = ("reverse", "Draw faces with this run") if turned else ("listen", "Listen with this run")
            st.page_link(f"pages/{where}.py", label=words, icon=":material/arrow_forward:", query_params={"run": chosen})
            progress.results(row)
        progress.course(row)
        progress.log(row)

    job()
