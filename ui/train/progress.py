"""One training, live or past: its state, progress, curves, log and results."""

from __future__ import annotations

import re

import numpy as np
import streamlit as st

from core.cli.progress import format_duration
from core.config.settings import Config, classifier_settings
from core.evaluation import results
from core.evaluation.results import Results, Table
from core.experiments import jobs
from core.runs import diagnosis, store
from ui import theme
from ui.session import cache
from ui.session.cache import LIVE_STATES
from ui.train import checkpoints, curves, queue, samples
from ui.widgets import charts

STAGES = {  # stages of a run in their order: prefix of its phase -> text
    "starting": "Starting: the process loads torch",
    "sets": "Building the sets S1–S4",
    "fit f_S": "Fitting the face classifier f_S on S1",
    "fit f_T": "Fitting the voice baseline f_T on S1",
    "fit Q": "Fitting Q on S1",
    "fit scorer": "Fitting the scorer of IS and FID",
    "train G": "Training the generator on S3",
    "sample": "Generating samples for the figures",
    "score": "Filling the augmentation table on S4",
}


def run_label(row: dict) -> str:
    """A run's name in a list."""
    title = f"{row['title']} · " if row["title"] else ""
    return f"{title}{row['run']} · {row['state']}" + (" · shipped" if row["shipped"] else "")


def show_state(row: dict, rows: list[dict], device: str) -> None:
    """A run's state, progress, error, and the buttons that its state allows."""
    left, right = st.columns([5, 4], vertical_alignment="center")
    left.markdown(theme.state_badges(row["state"]))
    with right, st.container(horizontal=True, horizontal_alignment="right"):
        show_buttons(row, device)
    state, phase = row["state"], row["phase"] or ""
    at = "before the generator's training began"
    if row["step"]:
        at = f"at step {row['step']:,} of {row['steps']:,}"
    if jobs.is_waiting(row) and state == "queued":
        st.info(f"In the queue. {queue.waiting_text(row, rows)}", icon=":material/hourglass_top:")
    elif state in LIVE_STATES:
        show_stage(row, phase)
        if silence := jobs.describe_silence(row):
            st.warning(theme.escape_markdown(silence), icon=":material/hourglass_disabled:")
    elif state == "paused":
        words = f"Paused {at}. *Resume training* continues from exactly there."
        st.info(words, icon=":material/pause_circle:")
    elif state == "stopped":
        words = f"Stopped {at}. *Resume training* continues from the last checkpoint."
        st.info(words, icon=":material/stop_circle:")
    if row["error"]:
        st.error(theme.escape_markdown(row["error"]), icon=":material/error:")
    for words in trouble(row):
        st.warning(theme.escape_markdown(words), icon=":material/troubleshoot:")
    if state == "failed":
        st.caption(
            "The log below has the details. *Resume training* tries again from the last "
            "checkpoint; another setting is another run."
        )


def trouble(row: dict) -> list[str]:
    """What goes wrong in a run that is not done: sets that are too small, a collapse of G."""
    if row["state"] == "done":
        return []
    config, curves = cache.run_config(row["run"]), store.load_curves(row["run"])
    return diagnosis.training_warnings(config, checkpoints.sets_table(row), curves)


def show_buttons(row: dict, device: str) -> None:
    """The buttons that a run's state allows: pause, resume, stop, kill."""
    run, state = row["run"], row["state"]
    is_ending = state in LIVE_STATES and row["phase"] in jobs.ENDING_PHASES
    is_waiting = jobs.is_waiting(row)
    if state in LIVE_STATES and not is_waiting:
        about = (
            "Saves its state and frees the machine; it keeps its place, and the queue waits for it."
        )
        look = {"icon": ":material/pause:", "key": "pause", "disabled": is_ending}
        st.button("Pause training", help=about, on_click=jobs.pause, args=(run,), **look)
    look = {"icon": ":material/resume:", "key": "resume", "type": "primary"}
    if state in ("paused", "stopped", "failed") and st.button("Resume training", **look):
        try:
            jobs.resume(run, device)
            st.rerun()
        except (ValueError, OSError) as error:  # no corpus, or a damaged configuration
            st.error(theme.escape_markdown(str(error)))
    if jobs.is_overdue(row):
        about = "It does not answer. Killed, it can be resumed from its last checkpoint."
        look = {"icon": ":material/dangerous:", "key": "kill"}
        st.button("End it now", help=about, on_click=jobs.kill, args=(run,), **look)
    elif state in LIVE_STATES or state == "paused":
        words = "Take out of the queue" if is_waiting and state == "queued" else "Stop training"
        about = "Its state is saved and it can be resumed; the next in the queue begins."
        look = {"icon": ":material/stop_circle:", "key": "stop", "disabled": is_ending}
        st.button(words, help=about, on_click=jobs.stop, args=(run,), **look)


def show_stage(row: dict, phase: str) -> None:
    """A progress bar of the run's stage, with its rate and the time left."""
    if phase in jobs.ENDING_PHASES:
        st.progress(0.0, f"{phase.capitalize()}: its state is being saved …")
        return
    if row.get("place") is not None and jobs.is_waiting(row):
        st.progress(0.0, "Waiting in the queue")
        return
    # a phase is a name and, while it is counted, "done/total"
    counted = re.fullmatch(r"(.*) (\d+)/(\d+)", phase)
    name, done, total = counted.groups() if counted else (phase, 0, 0)
    done, total = int(done), int(total)
    stage = next((k for k in STAGES if name.startswith(k)), "starting")
    place = list(STAGES).index(stage) + 1
    words = f"Stage {place} of {len(STAGES)}: {STAGES[stage]}"
    words += f" ({name[6:]})" if stage == "score" else ""
    if not total:
        st.progress(0.0, f"{words} …")
        return
    words += f" · {done:,} of {total:,} {'samples' if stage == 'sample' else 'steps'}"
    if row["rate"] and done < total:
        batch = cache.run_config(row["run"]).gan.batch if stage == "train G" else 1
        words += f" · {row['rate']:,.0f} samples/s" if batch > 1 else ""
        seconds, after = (total - done) * batch / row["rate"], len(STAGES) - place
        words += f" · {format_duration(seconds)} left in this stage, "
        words += f"{after} to come" if after else "the last"
    st.progress(min(1.0, done / max(1, total)), words)


def show_course(row: dict, rows: list[dict]) -> None:
    """Curves of a training and, at the checkpoint that a slider chooses, its samples."""
    lines = store.load_curves(row["run"])
    st.header("Course of the training")
    step = checkpoints.choose_step(row, lines)
    if not lines:
        st.caption("The curves begin with the generator's training, after the classifiers.")
        return
    if step is not None:
        st.markdown(checkpoints.checkpoint_text(row, step, lines, cache.run_config(row["run"])))
    curves.show_curves(row, lines, step)
    show_samples(row, rows, step)


def show_samples(row: dict, rows: list[dict], step: int | None) -> None:
    """The samples of one checkpoint, the scorer's verdicts on them, and their embedding."""
    st.header("Samples")
    if step is None:
        st.caption(
            "One sample of each emotion, at every checkpoint; the first comes with the "
            "generator's training."
        )
        return
    config = cache.run_config(row["run"])
    shown = cache.checkpoint_samples(checkpoints.samples_by_step(row["run"])[step])
    names = [config.data.classes[int(k)] for k in shown["label"]]
    if shown["y"].shape[1:] == (config.logmel.columns, config.logmel.bands):
        samples.show_voices(row, rows, step, names)
    else:
        checkpoints.show_faces(shown["y"], names, step)
    checkpoints.show_verdicts(shown, config, row)


def show_results(row: dict) -> None:
    """Results of a finished run: measures of samples, augmentation table, confusion matrices."""
    run = cache.run_by_id(row["run"])
    found, table = run.json("results"), run.json("table")
    source, target = checkpoints.source_and_target(cache.run_config(row["run"]))
    st.header("Results")
    st.caption(
        f"On people whom nothing was trained on (S4). Labels: {found['labels']} · "
        f"{len(found['classes'])} emotions · chance {found['chance']:.1%}."
    )
    _show_quality(found, source, target)
    _show_augmentation(found, table, cache.run_config(row["run"]))
    rows = {k: results.row_confusion(found, table, k) for k in results.row_names(found, table)}
    counts = {f"{source}s (f_S)": (np.array(found[source]["confusion"]), 1)}
    counts |= {k: v for k, v in rows.items() if v is not None}
    look = {"icon": ":material/grid_on:", "key": "matrices", "on_change": "rerun"}
    with st.expander("Confusion matrices", **look) as matrices:
        if matrices.open:  # a chart of four tables is slow to draw
            titled = {charts.matrix_title(k, *v): v[0] for k, v in counts.items()}
            figure = charts.fit(charts.confusion_matrices(titled, found["classes"]))
            alt = f"confusion matrices of the {source} classifier and of each row of the table"
            show = {"config": charts.NO_TOOLBAR_CONFIG, "alt": alt}
            st.plotly_chart(figure, key="confusions", **show)


def _show_quality(found: Results, source: str, target: str) -> None:
    """The measures of generated samples, each beside the real ones' value."""
    real, text = f"real {target}s", results.quality_text
    shown = []
    for name, better in checkpoints.BETTER_DIRECTION.items():
        about = f"Of generated {target}s; {better} is better."
        shown.append((name, text(found, name), text(found, f"{name} real"), about))
    about = f"How often the judge finds the {source}'s emotion, in %."
    share = [text(found, k, 0, 100) for k in ("recognised", "recognised real")]
    shown.append(("Recognised, %", *share, about))
    about = f"Share of {real} that have a generated one near them, for the judge, in %."
    share = [text(found, k, 0, 100) for k in ("coverage", "coverage real")]
    shown.append(("Coverage, %", *share, about))
    about = (
        f"How much of a {target} the noise decides, compared with how {real} differ. Near 0: "
        f"always the same {target} for a {source}."
    )
    shown.append(("Diversity", text(found, "diversity"), "1", about))
    plain = {"delta_color": "off", "delta_arrow": "off"}
    for column, (name, value, known, about) in zip(st.columns(6, gap="small"), shown):
        column.metric(name, value, f"{real} {known}", help=about, **plain)
    q = found["quality"]
    st.caption(
        f"N = {q['N']}, judge {q['scorer']}: another judge gives other figures, so they are not "
        f"comparable with the paper's. {results.withdrawal_note(found)}"
    )


def _show_augmentation(found: Results, table: Table, config: Config) -> None:
    """The augmentation table as Markdown, with what a difference is worth, and notes."""
    source, target = checkpoints.source_and_target(config)
    f_s, of_f_s = found[source]["accuracy"], classifier_settings(config, source)
    learnt_from = theme.escape_markdown(config.data.f_s_corpus) or of_f_s.learns_from
    lines = [f"| {target.capitalize()} classifier trained on | N | Accuracy on real {target}s |"]
    lines.append("|---|---:|---:|")
    for name in results.row_names(found, table):
        a, n = results.row_accuracy(found, table, name), results.row_size(found, table, name)
        lines.append(f"| {name} | {n:,} | {a.text} |")
    test = f"{found[f'N test {source}s']} {source}s"
    lines.append(f"| *f_S: {source}s, trained on {learnt_from}* | | *{f_s:.1%} of {test}* |")
    st.markdown("\n".join(lines))
    st.caption(results.noise_text(found, table))
    for note in found["notes"]:
        st.caption(theme.escape_markdown(note))


def show_log(row: dict) -> None:
    with st.expander("Log", icon=":material/terminal:", expanded=row["state"] == "failed"):
        path = cache.run_by_id(row["run"]).directory / "log.txt"
        if not path.exists():
            st.caption("There is no log: only a training that this page has started writes one.")
            return
        st.code(jobs.log_tail(row["run"]) or "Nothing yet.", language=None, height=260)
        whole = lambda: path.read_text(errors="replace")  # noqa: E731
        look = {"icon": ":material/download:", "on_click": "ignore", "key": "log file"}
        st.download_button("The whole log", whole, f"{row['run']}.log.txt", "text/plain", **look)
