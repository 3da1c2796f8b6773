"""One training, live or past: state, progress, curves, samples, log, results."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from core import runs
from core.cli.progress import format_duration
from core.data.corpora import CorpusError
from core.experiments import jobs
from ui import theme
from ui.session import cache
from ui.session.cache import LIVE_STATES
from ui.train import checkpoints, queue
from ui.widgets import charts
from ui.widgets.charts import TrainingCurves

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


def run_label(row: dict) -> str:
    """A run in a list."""
    return f"{row['run']} · {row['state']}" + (" · shipped" if row["shipped"] else "")


def show_state(row: dict, rows: list[dict], device: str) -> None:
    """State machine, progress, what went wrong, and the buttons that fit."""
    left, right = st.columns([5, 4], vertical_alignment="center")
    left.markdown(theme.state_badges(row["state"]))
    with right, st.container(horizontal=True, horizontal_alignment="right"):
        show_buttons(row, device)
    state, phase = row["state"], row["phase"] or ""
    at = (
        f"at step {row['step']:,} of {row['steps']:,}"
        if row["step"]
        else "before the generator's training began"
    )
    if jobs.is_waiting(row) and state == "queued":
        st.info(f"In the queue. {queue.waiting_text(row, rows)}", icon=":material/hourglass_top:")
    elif state in LIVE_STATES:
        show_stage(row, phase)
    elif state == "paused":
        st.info(
            f"Paused {at}. *Resume training* goes on from there, to the bit.",
            icon=":material/pause_circle:",
        )
    elif state == "stopped":
        st.info(
            f"Stopped {at}. *Resume training* goes on from the last checkpoint.",
            icon=":material/stop_circle:",
        )
    if row["error"]:
        st.error(theme.escape_markdown(row["error"]), icon=":material/error:")
    if state == "failed":
        st.caption(
            "The log below has the rest. *Resume training* tries again from the last checkpoint; another setting is another run."
        )


def show_buttons(row: dict, device: str) -> None:
    """What can be done to a run in the state that it is in."""
    run, state = row["run"], row["state"]
    asked = state in LIVE_STATES and row["phase"] in jobs.ENDING_PHASES
    if state in LIVE_STATES and not jobs.is_waiting(row):
        about = (
            "Saves its state and frees the machine; it keeps its place, and the queue waits for it."
        )
        st.button(
            "Pause training",
            icon=":material/pause:",
            key="pause",
            disabled=asked,
            help=about,
            on_click=jobs.pause,
            args=(run,),
        )
    if state in ("paused", "stopped", "failed") and st.button(
        "Resume training", icon=":material/resume:", key="resume", type="primary"
    ):
        try:
            jobs.resume(run, device)
            st.rerun()
        except (
            CorpusError,
            ValueError,
            OSError,
        ) as error:  # the corpus is gone, or the configuration is damaged
            st.error(theme.escape_markdown(str(error)))
    if jobs.is_overdue(row):
        about = "It does not answer. Killed, it can be resumed from its last checkpoint."
        st.button(
            "End it now",
            icon=":material/dangerous:",
            key="kill",
            help=about,
            on_click=jobs.kill,
            args=(run,),
        )
    elif state in LIVE_STATES or state == "paused":
        words = (
            "Take out of the queue"
            if jobs.is_waiting(row) and state == "queued"
            else "Stop training"
        )
        about = "Its state is saved and it can be resumed; the next in the queue begins."
        st.button(
            words,
            icon=":material/stop_circle:",
            key="stop",
            disabled=asked,
            help=about,
            on_click=jobs.stop,
            args=(run,),
        )


def show_stage(row: dict, phase: str) -> None:
    """A bar for the stage that the run is in, with its rate and the time left."""
    if phase in jobs.ENDING_PHASES:
        st.progress(0.0, f"{phase.capitalize()}: its state is being saved …")
        return
    if row.get("place") is not None and jobs.is_waiting(row):
        st.progress(0.0, "In the queue: its turn comes")
        return
    found = re.fullmatch(r"(.*) (\d+)/(\d+)", phase)
    name, done, total = found.groups() if found else (phase, 0, 0)
    stage = next((k for k in STAGES if name.startswith(k)), "starting")
    words = f"Stage {list(STAGES).index(stage) + 1} of {len(STAGES)}: {STAGES[stage]}" + (
        f" ({name[6:]})" if stage == "score" else ""
    )
    if not total:
        st.progress(0.0, f"{words} …")
        return
    words += f" · {int(done):,} of {int(total):,} steps"
    if row["rate"] and int(done) < int(total):
        batch = cache.run_config(row["run"]).gan.batch if stage == "train G, D, Q" else 1
        words += f" · {row['rate']:,.0f} samples/s" if batch > 1 else ""
        after = len(STAGES) - 1 - list(STAGES).index(stage)
        words += (
            f" · {format_duration((int(total) - int(done)) * batch / row['rate'])} left in this stage, "
            + ("the last" if not after else f"{after} to come")
        )
    st.progress(min(1.0, int(done) / max(1, int(total))), words)


def demo_progress_callback(bar) -> Callable[[int, int], None]:
    """Shows on a progress bar how much of the demo corpus is drawn."""

    def tick(done: int, total: int) -> None:
        if done % 8 == 0 or done == total:
            bar.progress(done / total, f"Drawing the demo corpus: {done:,} of {total:,} clips")

    return tick


def show_course(row: dict) -> None:
    """What is watched while training, under one slider: the curves and, at the chosen checkpoint, samples, verdicts and their places."""
    lines = runs.load_curves(row["run"])
    st.subheader("Course of the training")
    step = checkpoints.choose_step(row, lines)
    if not lines:
        st.caption("The curves begin with the generator's training, after the classifiers.")
        return
    if step is not None:
        st.markdown(checkpoints.checkpoint_text(row, step, lines, cache.run_config(row["run"])))
    show_curves(row, lines, step)
    checkpoints.show_samples(row, step)


def show_curves(row: dict, lines: TrainingCurves, step: int | None) -> None:
    """Losses and the quality figures over the steps."""
    steps, top, show = (
        row["steps"],
        checkpoints.best_step(row, lines),
        {"config": charts.NO_TOOLBAR_CONFIG},
    )
    made = checkpoints.source_and_target(cache.run_config(row["run"]))[1]
    st.plotly_chart(
        _curve_figure(_to_arrays(lines, LOSSES), "loss", LOSSES, "", steps, step, None),
        key="losses",
        alt="losses of G, its terms, and of D, over the steps",
        **show,
    )
    for column, (name, better) in zip(
        st.columns(3, gap="small"), checkpoints.BETTER_DIRECTION.items()
    ):
        real = f"{name} real"
        figure = _curve_figure(
            _to_arrays(lines, (name, real)),
            f"{name} ({better} is better)",
            (name,),
            real,
            steps,
            step,
            top,
            f"real {made}s",
        )
        column.plotly_chart(
            figure, key=f"curve {name}", alt=f"{name} over the training steps", **show
        )
    star = (
        f" ★ the best step on S2, {top[0]:,} (by {top[1]}), which need not be the last."
        if top
        else ""
    )
    st.caption(
        f"Measured on S2; the dashed lines are S2's real {made}s, which the scorer was trained on too, so they look better than "
        f"new people's would. S4 is looked at once, at the end.{star}"
    )


def _to_arrays(
    lines: TrainingCurves, names: tuple[str, ...]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Some of the lines as arrays, which are told apart sooner than lists."""
    return {
        name: (np.array(lines[name][0]), np.array(lines[name][1]))
        for name in names
        if name in lines
    }


@charts.cache_figure
def _curve_figure(
    arrays: dict[str, tuple[np.ndarray, np.ndarray]],
    title: str,
    names: tuple[str, ...],
    reference: str,
    steps: int,
    step: int | None,
    top: tuple[int, str] | None,
    known: str = "",
) -> go.Figure:
    """The lines `names`, with the chosen step and, on the first of them, the best one."""
    lines = {name: (x.tolist(), y.tolist()) for name, (x, y) in arrays.items()}
    return checkpoints.mark_steps(
        charts.training_curves(lines, title, names, reference, steps, known=known),
        lines.get(names[0], ([], [])),
        step,
        top,
    )


def show_results(row: dict) -> None:
    """What a finished run has come to."""
    found, (given, made) = (
        cache.run_by_id(row["run"]).json("results"),
        checkpoints.source_and_target(cache.run_config(row["run"])),
    )
    q, n, chance = found["quality"], found[f"N test {made}s"], found["chance"]
    st.subheader("Results")
    st.caption(
        f"On people whom nothing was trained on (S4). Labels: {found['labels']} · {len(found['classes'])} emotions · chance {chance:.1%}."
    )
    metrics = st.columns(6, gap="small")
    plain = {"delta_color": "off", "delta_arrow": "off"}
    for column, (name, better) in zip(metrics, checkpoints.BETTER_DIRECTION.items()):
        column.metric(
            name,
            f"{q[name]:.2f}",
            f"real {made}s {q[f'{name} real']:.2f}",
            help=f"Of generated {made}s; {better} is better.",
            **plain,
        )
    known = f"real {made}s {q['recognised real']:.0%}"
    metrics[3].metric(
        "Recognised",
        f"{q['recognised']:.0%}",
        known,
        help=f"How often the scorer finds the {given}'s emotion.",
        **plain,
    )
    if "coverage" in q:
        about = f"Share of real {made}s that have a generated one near them, for the scorer."
        metrics[4].metric(
            "Coverage",
            f"{q['coverage']:.0%}",
            f"real {made}s {q['coverage real']:.0%}",
            help=about,
            **plain,
        )
        about = f"How much of a {made} the noise decides, against how real {made}s differ. Near 0: always the same {made} for a {given}."
        metrics[5].metric(
            "Diversity", f"{q['diversity']:.2f}", f"real {made}s 1", help=about, **plain
        )
    st.caption(
        f"N = {q['N']}, scorer {q['scorer']}: another scorer gives other figures, so they are not comparable with the paper's."
    )
    table = [
        f"| {made.capitalize()} classifier trained on | N | Accuracy on real {made}s |",
        "|---|---:|---:|",
    ]
    table += [
        f"| {name} | {t['N train']:,} | {t['accuracy']:.1%} |"
        for name, t in found["augmentation"].items()
    ]
    table += [
        f"| *f_S: {given}s, trained on S1* | | *{found[given]['accuracy']:.1%} of {found[f'N test {given}s']} {given}s* |"
    ]
    st.markdown("\n".join(table))
    error = 100 * math.sqrt(chance * (1 - chance) / n)
    st.caption(
        f"N = {n} test {made}s: one standard error is {error:.1f} points at chance, so small differences are noise."
    )
    for note in found["notes"]:
        st.caption(note)
    tables = {f"{given}s (f_S)": found[given]["confusion"]} | {
        k: t["confusion"] for k, t in found["augmentation"].items()
    }
    alt = f"confusion matrices of the {given} classifier and of each row of the table"
    with st.expander(
        "Confusion matrices", icon=":material/grid_on:", key="matrices", on_change="rerun"
    ) as matrices:
        if matrices.open:  # four tables of numbers are a chart that is slow to draw
            figure = charts.confusion_matrices(
                {k: np.array(v) for k, v in tables.items()}, found["classes"]
            )
            st.plotly_chart(figure, key="confusions", config=charts.NO_TOOLBAR_CONFIG, alt=alt)


def show_log(row: dict) -> None:
    with st.expander("Log", icon=":material/terminal:", expanded=row["state"] == "failed"):
        path = cache.run_by_id(row["run"]).directory / "log.txt"
        if not path.exists():
            st.caption("There is no log: it comes with a training that this page has started.")
            return
        st.code(jobs.log_tail(row["run"]) or "Nothing yet.", language=None, height=260)
        whole = lambda: path.read_text(errors="replace")  # noqa: E731  (read when it is asked for)
        go = {"icon": ":material/download:", "on_click": "ignore", "key": "log file"}
        st.download_button("The whole log", whole, f"{row['run']}.log.txt", "text/plain", **go)
