"""One training, live or past: state, progress, curves, samples, log, results."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import streamlit as st

from core import jobs, runs
from ui import access, charts, theme

LIVE = ("queued", "running")
STAGES = {  # what a run is doing, in its order -> the same in words
    "starting": "Starting: the process loads torch",
    "sets": "Making the sets S1–S4",
    "fit f_S": "Fitting the face classifier f_S on S1",
    "fit f_T": "Fitting the voice baseline f_T on S1",
    "fit Q": "Fitting Q on S1",
    "fit scorer": "Fitting the scorer of IS and FID",
    "train G, D, Q": "Training G and D on S3",
    "score": "Filling the augmentation table on S4",
}
LOSSES = ("loss/G", "loss/adversarial", "loss/l1", "loss/class", "loss/D")
QUALITY = {"FID": "lower", "KID": "lower", "IS": "higher"}


def label(row: dict) -> str:
    """A run in a list."""
    return f"{row['run']} · {row['state']}" + (" · shipped" if row["shipped"] else "")


def head(row: dict, device: str) -> None:
    """State machine, progress, what went wrong, and the buttons that fit."""
    state, phase = row["state"], row["phase"] or ""
    left, right = st.columns([5, 2], vertical_alignment="center")
    left.markdown(theme.states(state))
    with right, st.container(horizontal=True, horizontal_alignment="right"):
        if state in LIVE:
            about = "Saves its state; it can be resumed."
            st.button(
                "Stop training",
                icon=":material/stop_circle:",
                key="stop",
                disabled=phase == "stopping",
                help=about,
                on_click=jobs.stop,
                args=(row["run"],),
            )
        if state in ("stopped", "failed") and st.button("Resume training", icon=":material/resume:", key="resume", type="primary"):
            try:
                jobs.resume(row["run"], device)
                st.rerun()
            except ValueError as error:  # the corpus is gone, or the configuration is damaged
                st.error(str(error))
    if state in LIVE:
        progress(row, phase)
    elif state == "stopped":
        at = f"at step {row['step']:,} of {row['steps']:,}" if row["step"] else "before the generator's training began"
        st.info(f"Stopped {at}. *Resume training* goes on from the last checkpoint.", icon=":material/pause_circle:")
    if row["error"]:
        st.error(row["error"], icon=":material/error:")


def progress(row: dict, phase: str) -> None:
    """A bar for the stage that the run is in, with its rate and the time left."""
    if phase == "stopping":
        st.progress(0.0, "Stopping: its state is being saved …")
        return
    found = re.fullmatch(r"(.*) (\d+)/(\d+)", phase)
    name, done, total = found.groups() if found else (phase, 0, 0)
    stage = next((k for k in STAGES if name.startswith(k)), "starting")
    words = f"Stage {list(STAGES).index(stage) + 1} of {len(STAGES)}: {STAGES[stage]}" + (f" ({name[6:]})" if stage == "score" else "")
    if not total:
        st.progress(0.0, f"{words} …")
        return
    words += f" · {int(done):,} of {int(total):,} steps"
    if stage == "train G, D, Q" and row["rate"]:
        left = (int(total) - int(done)) * access.config(row["run"]).gan.batch / row["rate"]
        words += f" · {row['rate']:,.0f} samples/s · {duration(left)} left in this stage"
    st.progress(min(1.0, int(done) / max(1, int(total))), words)


def ticking(bar) -> Callable[[int, int], None]:
    """Shows on a progress bar how much of the demo corpus is drawn."""

    def tick(done: int, total: int) -> None:
        if done % 8 == 0 or done == total:
            bar.progress(done / total, f"Drawing the demo corpus: {done:,} of {total:,} clips")

    return tick


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def curves(row: dict) -> None:
    """Losses and the quality figures over the steps."""
    lines = runs.metrics(row["run"])
    st.subheader("Curves")
    if not lines:
        st.caption("They begin with the generator's training, after the classifiers.")
        return
    st.caption(
        "Measured on S2's faces; the dashed lines are S2's real voices, which the scorer was trained on too, so they look better than new "
        "people's would. S4 is looked at once, at the end."
    )
    steps, show = row["steps"], {"config": charts.STILL}
    st.plotly_chart(
        charts.curves(lines, "loss", LOSSES, steps=steps), key="losses", alt="losses of G, its terms, and of D, over the steps", **show
    )
    for column, (name, better) in zip(st.columns(3, gap="small"), QUALITY.items()):
        figure = charts.curves(lines, f"{name} ({better} is better)", (name,), f"{name} real", steps)
        column.plotly_chart(figure, key=f"curve {name}", alt=f"{name} over the training steps", **show)


def samples(row: dict) -> None:
    """The same faces' samples at every checkpoint."""
    run = access.run(row["run"])
    paths = {int(p.stem.split("-")[1]): p for p in sorted((run.directory / "samples").glob("step-*.npz"))}
    st.subheader("Samples")
    if not paths:
        st.caption("One face of each emotion, at every checkpoint; the first comes with the first evaluation.")
        return
    steps, key = list(paths), f"step {row['run']}"
    if st.session_state.get(key) in (None, st.session_state.get(f"last {key}")) or st.session_state[key] not in steps:
        st.session_state[key] = steps[-1]  # follows the newest, until another is chosen
    st.session_state[f"last {key}"] = steps[-1]
    step = steps[0]
    if len(steps) > 1:
        step = st.select_slider("Checkpoint (training step)", steps, key=key)
    config, voices = run.config, run.json("corpus").get("voices", {})
    shown = access.grid(paths[step])
    names = [config.data.classes[int(k)] for k in shown["label"]]
    st.caption(f"One face of each emotion in S2, the same faces and noise at every step. Step {step:,}.")
    figure = charts.grid(shown["y"].astype(np.float32), names, voices.get("ref_db", 0.0), config.logmel)
    st.plotly_chart(figure, key="grid", config=charts.STILL, alt="generated spectrograms, one for each emotion")


def results(row: dict) -> None:
    """What a finished run has come to."""
    found = access.run(row["run"]).json("results")
    q, n, chance = found["quality"], found["N test voices"], found["chance"]
    st.subheader("Results")
    st.caption(
        f"On people whom nothing was trained on (S4). Labels: {found['labels']} · {len(found['classes'])} emotions · chance {chance:.1%}."
    )
    metrics = st.columns(6, gap="small")
    plain = {"delta_color": "off", "delta_arrow": "off"}
    for column, (name, better) in zip(metrics, QUALITY.items()):
        column.metric(
            name, f"{q[name]:.2f}", f"real voices {q[f'{name} real']:.2f}", help=f"Of generated voices; {better} is better.", **plain
        )
    known = f"real voices {q['recognised real']:.0%}"
    metrics[3].metric("Recognised", f"{q['recognised']:.0%}", known, help="How often the scorer hears the face's emotion.", **plain)
    if "coverage" in q:
        about = "Share of real voices that have a generated one near them, for the scorer."
        metrics[4].metric("Coverage", f"{q['coverage']:.0%}", f"real voices {q['coverage real']:.0%}", help=about, **plain)
        about = "How much of a voice the noise decides, against how real voices differ. Near 0: always the same voice for a face."
        metrics[5].metric("Diversity", f"{q['diversity']:.2f}", "real voices 1", help=about, **plain)
    st.caption(f"N = {q['N']}, scorer {q['scorer']}: another scorer gives other figures, so they are not comparable with the paper's.")
    table = ["| Voice classifier trained on | N | Accuracy on real voices |", "|---|---:|---:|"]
    table += [f"| {name} | {t['N train']:,} | {t['accuracy']:.1%} |" for name, t in found["augmentation"].items()]
    table += [f"| *f_S: faces, trained on S1* | | *{found['face']['accuracy']:.1%} of {found['N test faces']} faces* |"]
    st.markdown("\n".join(table))
    error = 100 * math.sqrt(chance * (1 - chance) / n)
    st.caption(f"N = {n} test voices: one standard error is {error:.1f} points at chance, so small differences are noise.")
    for note in found["notes"]:
        st.caption(note)
    tables = {"faces (f_S)": found["face"]["confusion"]} | {k: t["confusion"] for k, t in found["augmentation"].items()}
    figure = charts.confusions({k: np.array(v) for k, v in tables.items()}, found["classes"])
    with st.expander("Confusion matrices", icon=":material/grid_on:", expanded=True):
        st.plotly_chart(
            figure, key="confusions", config=charts.STILL, alt="confusion matrices of the face classifier and of each row of the table"
        )


def log(row: dict) -> None:
    with st.expander("Log", icon=":material/terminal:", expanded=row["state"] == "failed"):
        st.code(jobs.log_tail(row["run"]) or "There is no log.", language=None, height=260)
