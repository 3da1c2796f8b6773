"""Checkpoints of a run: the slider that chooses one, its faces, the verdicts and the embedding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from core.config.settings import Config
from core.evaluation import comparison
from core.files import UserError
from ui import theme
from ui.session import cache, query_params
from ui.widgets import charts
from ui.widgets.charts import TrainingCurves

BETTER_DIRECTION = {"FID": "lower", "KID": "lower", "IS": "higher"}  # measures of samples
FRAME_MARGIN = (
    0.35  # margin of the embedding's axes on each side, as a share of the real ones' extent
)
PERCEPTION_VERBS = {"voice": "heard", "face": "seen"}
OLD_CHECKPOINT_NOTE = (
    "This run's checkpoints hold samples only. A run that is trained now keeps this too, "
    "at every checkpoint."
)


def samples_by_step(run_id: str) -> dict[int, Path]:
    """Training step -> path of the checkpoint's samples, in order."""
    folder = cache.run_by_id(run_id).directory / "samples"
    return {int(p.stem.split("-")[1]): p for p in sorted(folder.glob("step-*.npz"))}


def source_and_target(config: Config) -> tuple[str, str]:
    """Input and output of a run's generator, each "face" or "voice"."""
    return ("voice", "face") if config.gan.direction == "voice-face" else ("face", "voice")


def best_step(
    row: dict, lines: TrainingCurves, among: Sequence[int] | None = None
) -> tuple[int, str] | None:
    """The best step on S2, of those in `among` or of all, and the measure that it is best by."""
    quality = cache.run_by_id(row["run"]).json("results").get("quality", {})
    features = [*lines.get("features", ([], []))[1], quality.get("features")]
    candidates = dict(lines)
    if among is not None:
        for name in ("FID", "KID"):
            points = [(s, v) for s, v in zip(*lines.get(name, ([], []))) if s in among]
            candidates[name] = [s for s, _ in points], [v for _, v in points]
    return comparison.best_step(candidates, features[0])


def choose_step(row: dict, lines: TrainingCurves) -> int | None:
    """A slider over the checkpoints, and buttons to the best and the newest; None without any.

    It follows the newest checkpoint until another is chosen, which the URL then keeps as `at`.
    """
    steps, key = list(samples_by_step(row["run"])), f"step {row['run']}"
    if not steps:
        return None
    text = st.query_params.get("at", "")
    st.session_state[key] = int(text) if text.isdecimal() and int(text) in steps else steps[-1]
    if len(steps) == 1:
        return steps[0]
    top = best_step(row, lines, steps)
    bar, *buttons = st.columns([7, 2, 2], vertical_alignment="bottom", gap="small")
    save = lambda: _save_step(st.session_state[key], steps)  # noqa: E731
    step = bar.select_slider("Checkpoint (training step)", steps, key=key, on_change=save)
    go = {"on_click": _save_step, "width": "stretch"}
    if top:
        about = (
            f"Lowest {top[1]} on S2 among these checkpoints. S2 alone chooses; S4 is used once, "
            "at the end, with the last step's G."
        )
        look = {"key": "best", "icon": ":material/star:", "disabled": step == top[0]}
        buttons[0].button(f"Best: {top[0]:,}", help=about, args=(top[0], steps), **look, **go)
    about = "Go on following the newest checkpoint."
    look = {"key": "newest", "icon": ":material/last_page:", "disabled": step == steps[-1]}
    buttons[1].button("Newest", help=about, args=(steps[-1], steps), **look, **go)
    return step


def _save_step(step: int, steps: list[int]) -> None:
    query_params.set_value("at", None if step == steps[-1] else step)


def sets_table(row: dict) -> dict:
    """Clips and subjects of a run's sets; {} where they are unknown."""
    try:
        return {} if row["fault"] else cache.run_by_id(row["run"]).json("sets")
    except UserError:  # being written, or cut
        return {}


def checkpoint_text(row: dict, step: int, lines: TrainingCurves, config: Config) -> str:
    """One checkpoint's epoch and measures in a line."""
    at = {k: dict(zip(*v)).get(step) for k, v in lines.items()}
    target = source_and_target(config)[1]
    clips = sets_table(row).get("S3", {}).get(f"{target}s", {}).get("clips")
    words = [f"**Step {step:,} of {row['steps']:,}**"]
    is_of_pairs = config.data.windows == "middle" and not config.data.listening
    if clips and is_of_pairs:  # otherwise G learns from windows, or from more people
        words.append(f"epoch {step * config.gan.batch / clips:.0f} of S3's {clips:,} pairs")
    words += [f"{k} {at[k]:.2f}" for k in BETTER_DIRECTION if at.get(k) is not None]
    if at.get("recognised") is not None:
        words.append(f"emotion recognised {at['recognised']:.0%}")
    return " · ".join(words)


def show_faces(y: np.ndarray, names: Sequence[str], step: int) -> None:
    """Generated faces (N, 28, 28) in [-1, 1] in a row."""
    st.caption(
        f"One voice of each emotion in S2, the same voices and noise at every step. Step {step:,}."
    )
    faces = np.clip((y.astype(np.float32) + 1) * 127.5, 0, 255).astype(np.uint8)
    for column, face, name in zip(st.columns(len(faces)), faces, names):
        column.image(face, name, width="stretch")


def show_verdicts(shown: dict[str, np.ndarray], config: Config, row: dict) -> None:
    """What the judge makes of many samples of a checkpoint, and where they lie.

    Open where the visitor saw the run before it was done; otherwise a click opens it, and the page
    comes sooner.
    """
    verb = "hears" if source_and_target(config)[1] == "voice" else "sees"
    words = f"What the judge {verb} in many samples, and where they lie"
    is_open = st.session_state.setdefault(f"watched {row['run']}", row["state"] != "done")
    look = {"icon": ":material/scatter_plot:", "key": f"verdicts {row['run']}"}
    with st.expander(words, expanded=is_open, on_change="rerun", **look) as verdicts:
        if not verdicts.open:
            return
        left, right = st.columns(2, gap="medium")
        with left:
            _show_confusion(shown, config)
        with right:
            _show_embedding(shown, config)


def _show_confusion(shown: dict[str, np.ndarray], config: Config) -> None:
    """Confusion matrix of the scorer on many generated samples."""
    classes, (given, target) = config.data.classes, source_and_target(config)
    st.header(f"What the judge {'hears' if target == 'voice' else 'sees'}")
    if "confusion" not in shown:
        st.caption(OLD_CHECKPOINT_NOTE)
        return
    counts, verb = shown["confusion"], PERCEPTION_VERBS[target]
    n = int(counts.sum())
    st.caption(
        "The judge is the scorer of FID and IS: it learnt from real ones and never met G. "
        f"{n:,} samples of S2's {given}s: {np.trace(counts) / max(1, n):.0%} {verb} as the "
        f"{given}'s emotion, chance {1 / len(classes):.0%}."
    )
    figure = confusion_heatmap(counts, classes, given, verb)
    show = {"config": charts.NO_TOOLBAR_CONFIG, "alt": "confusion matrix of the samples"}
    st.plotly_chart(figure, key="heard", **show)


def _show_embedding(shown: dict[str, np.ndarray], config: Config) -> None:
    """Real and generated samples on two axes of the scorer's features."""
    st.header("Where they lie")
    if "at" not in shown:
        st.caption(OLD_CHECKPOINT_NOTE)
        return
    target = source_and_target(config)[1]
    figure, beyond = embedding_figure(shown, config.data.classes, target)
    edge = f" {beyond} generated ones lie beyond the frame and are drawn on its edge."
    st.caption(
        f"The judge's features; the axes are those of real {target}s and stay the same at every "
        f"step.{edge if beyond else ''}"
    )
    alt = f"real and generated {target}s in the judge's feature space"
    st.plotly_chart(figure, key="embedding", config=charts.NO_TOOLBAR_CONFIG, alt=alt)


@charts.cache_figure
def confusion_heatmap(
    counts: np.ndarray,
    classes: Sequence[str],
    given: str = "face",
    verb: str = "heard",
    height: int = 380,
) -> go.Figure:
    """Confusion matrix of generated samples in per cent of each row; `counts` is (K, K).

    A row is the emotion of a `given`, "face" or "voice"; a column is the scorer's verdict.
    """
    whole = np.broadcast_to(counts.sum(axis=1, keepdims=True), counts.shape)
    share = 100 * counts / np.maximum(whole, 1)
    hover = f"%{{y}} {verb} as %{{x}}: %{{customdata[0]:,}} of %{{customdata[1]:,}} (%{{z:.0f}} %)"
    title = {"text": "% of the<br>emotion", "side": "top"}
    colours = {"colorscale": theme.CONFUSION_COLOUR_SCALE, "zmin": 0, "zmax": 100}
    colours["colorbar"] = {"title": title, "thickness": 10, "outlinewidth": 0}
    cells = {"z": share, "x": list(classes), "y": list(classes), "texttemplate": "%{z:.0f}"}
    cells |= {"customdata": np.stack([counts, whole], axis=-1)}
    figure = go.Figure(go.Heatmap(hovertemplate=f"{hover}<extra></extra>", **cells, **colours))
    figure.update_xaxes(title=f"{verb} by the judge", tickangle=45, showgrid=False)
    figure.update_yaxes(title=f"emotion of the {given}", autorange="reversed", showgrid=False)
    return charts.apply_layout(figure, height, left=80, bottom=80)


@charts.cache_figure
def embedding_figure(
    shown: dict[str, np.ndarray], classes: Sequence[str], target: str = "voice", height: int = 380
) -> tuple[go.Figure, int]:
    """Real and generated `target`s on the real ones' two principal axes.

    Also returns how many generated ones lie beyond the frame and are drawn on its edge. The frame
    depends on the real ones alone, so that checkpoints can be compared.
    """
    real, generated = shown["at_real"], shown["at"]
    low, high = real.min(axis=0), real.max(axis=0)
    margin = FRAME_MARGIN * np.maximum(high - low, 1e-6)
    low, high = low - margin, high + margin
    clipped = np.clip(generated, low, high)
    figure = go.Figure()
    circle = {"symbol": "circle-open", "size": 6, "opacity": 0.6}
    diamond = {"symbol": "diamond", "size": 7, "opacity": 0.85}
    for kind, at, label, look in (
        (f"real {target}s", real, shown["of_real"], circle),
        ("generated", clipped, shown["of"], diamond),
    ):
        # an empty trace puts the kind into the legend in a neutral colour
        marker = look | {"color": theme.OTHER_EMOTION_COLOUR}
        figure.add_scatter(x=[None], y=[None], mode="markers", name=kind, marker=marker)
        for k, emotion in enumerate(classes):
            points = {"x": at[label == k, 0], "y": at[label == k, 1]}
            points["marker"] = look | {"color": theme.emotion_colour(emotion)}
            points |= {"name": emotion, "legendgroup": emotion, "showlegend": kind == "generated"}
            hover = f"{kind}, {emotion}<extra></extra>"
            figure.add_scatter(mode="markers", hovertemplate=hover, cliponaxis=False, **points)
    share = 100 * shown["share"]
    first = f"1st principal axis ({share[0]:.0f} %<br>of the real ones' variance)"
    second = f"2nd principal axis ({share[1]:.0f} %)"
    figure.update_xaxes(title=first, range=[low[0], high[0]], zeroline=False)
    figure.update_yaxes(title=second, range=[low[1], high[1]], zeroline=False)
    beyond = int((clipped != generated).any(axis=1).sum())
    legend = charts.TOP_LEFT_LEGEND
    return charts.apply_layout(figure, height, left=54, top=64, legend=legend), beyond
