"""One slider over a run's checkpoints, for everything: the curves' mark, the samples, what the scorer hears in them, where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from core.config import Config
from core.evaluation import comparison
from ui import theme
from ui.session import cache, query_params
from ui.widgets import charts, spectrogram
from ui.widgets.charts import TrainingCurves

BETTER_DIRECTION = {
    "FID": "lower",
    "KID": "lower",
    "IS": "higher",
}  # figures of generated samples, and which is better
FRAME_MARGIN = (
    0.35  # how far the embedding's frame goes beyond the real voices, in their own extent
)
PERCEPTION_VERBS = {"voice": "heard", "face": "seen"}
OLD_CHECKPOINT_NOTE = "This run's checkpoints hold samples only. A run that is trained now keeps this too, at every checkpoint."


def samples_by_step(run_id: str) -> dict[int, Path]:
    """Training step -> path of the checkpoint's samples, in order."""
    return {
        int(p.stem.split("-")[1]): p
        for p in sorted((cache.run_by_id(run_id).directory / "samples").glob("step-*.npz"))
    }


def source_and_target(config: Config) -> tuple[str, str]:
    """What a run's generator is given and what it makes."""
    return ("voice", "face") if config.gan.direction == "voice-face" else ("face", "voice")


def best_step(
    row: dict, lines: TrainingCurves, among: Sequence[int] | None = None
) -> tuple[int, str] | None:
    """The best step on S2 of those `among`, or of all, and the name of the figure that says so."""
    known = [
        *lines.get("features", ([], []))[1],
        cache.run_by_id(row["run"]).json("results").get("quality", {}).get("features"),
    ]
    kept = dict(lines)
    if among is not None:
        for name in ("FID", "KID"):
            points = [(s, v) for s, v in zip(*lines.get(name, ([], []))) if s in among]
            kept[name] = [s for s, _ in points], [v for _, v in points]
    return comparison.best_step(kept, known[0])


def choose_step(row: dict, lines: TrainingCurves) -> int | None:
    """The slider with its two buttons; the step that is chosen, None where there is no checkpoint yet.

    It follows the newest checkpoint until another is chosen, which then stands in the address as `at`.
    """
    steps, key = list(samples_by_step(row["run"])), f"step {row['run']}"
    if not steps:
        return None
    asked = st.query_params.get("at", "")
    st.session_state[key] = int(asked) if asked.isdecimal() and int(asked) in steps else steps[-1]
    if len(steps) == 1:
        return steps[0]
    top = best_step(row, lines, steps)
    bar, *buttons = st.columns([7, 2, 2], vertical_alignment="bottom", gap="small")
    step = bar.select_slider(
        "Checkpoint (training step)",
        steps,
        key=key,
        on_change=lambda: _save_step(st.session_state[key], steps),
    )
    if top:
        about = f"Lowest {top[1]} on S2 among these checkpoints. S2 alone chooses; S4 is looked at once, at the end, with the last step's G."
        words = {
            "icon": ":material/star:",
            "help": about,
            "disabled": step == top[0],
            "width": "stretch",
        }
        buttons[0].button(
            f"Best: {top[0]:,}", key="best", on_click=_save_step, args=(top[0], steps), **words
        )
    about = "Go on following the newest checkpoint."
    words = {
        "icon": ":material/last_page:",
        "help": about,
        "disabled": step == steps[-1],
        "width": "stretch",
    }
    buttons[1].button("Newest", key="newest", on_click=_save_step, args=(steps[-1], steps), **words)
    return step


def _save_step(step: int, steps: list[int]) -> None:
    query_params.set_value("at", None if step == steps[-1] else step)


def checkpoint_text(row: dict, step: int, lines: TrainingCurves, config: Config) -> str:
    """One checkpoint's figures in a line."""
    at = {k: dict(zip(*v)).get(step) for k, v in lines.items()}
    clips = (
        cache.run_by_id(row["run"])
        .json("sets")
        .get("S3", {})
        .get(f"{source_and_target(config)[1]}s", {})
        .get("clips")
    )
    words = [f"**Step {step:,} of {row['steps']:,}**"]
    if clips:
        words.append(f"epoch {step * config.gan.batch / clips:.0f} of S3's {clips:,} pairs")
    words += [f"{k} {at[k]:.2f}" for k in BETTER_DIRECTION if at.get(k) is not None]
    if at.get("recognised") is not None:
        words.append(f"emotion recognised {at['recognised']:.0%}")
    return " · ".join(words)


def mark_steps(
    figure: go.Figure,
    points: tuple[list[int], list[float]],
    step: int | None,
    top: tuple[int, str] | None,
) -> go.Figure:
    """A chart of curves with the chosen step as a line and, on the curve of `points`, a star at the best step."""
    if step is not None:
        figure.add_vline(step, line={"color": theme.REFERENCE_COLOUR, "width": 1.5, "dash": "dot"})
    value = dict(zip(*points)).get(top[0]) if top else None
    if top and value is not None:
        star = {
            "symbol": "star",
            "size": 12,
            "color": theme.LINE_COLOURS[1],
            "line": {"width": 1, "color": theme.REFERENCE_COLOUR},
        }
        hover = f"%{{y:.3f}} at step {top[0]:,}: the best by {top[1]}<extra></extra>"
        figure.add_scatter(
            x=[top[0]],
            y=[value],
            mode="markers",
            marker=star,
            showlegend=False,
            cliponaxis=False,
            hovertemplate=hover,
        )
    return figure


def show_samples(row: dict, step: int | None) -> None:
    """The same faces' samples, the scorer's verdicts and the places of many more, all at one checkpoint."""
    st.subheader("Samples")
    if step is None:
        st.caption(
            "One sample of each emotion, at every checkpoint; the first comes with the generator's training."
        )
        return
    config, voices = (
        cache.run_config(row["run"]),
        cache.run_by_id(row["run"]).json("corpus").get("voices", {}),
    )
    shown = cache.checkpoint_samples(samples_by_step(row["run"])[step])
    classes, (given, made) = config.data.classes, source_and_target(config)
    verb = "hears" if made == "voice" else "sees"
    names = [classes[int(k)] for k in shown["label"]]
    if shown["y"].shape[1:] == (config.logmel.columns, config.logmel.bands):
        st.caption(
            f"One face of each emotion in S2, the same faces and noise at every step. Step {step:,}."
        )
        across = 3 if len(names) <= 6 else 4
        cells = [c for _ in range(0, len(names), across) for c in st.columns(across, gap="small")]
        for k, (cell, y, name) in enumerate(zip(cells, shown["y"].astype(np.float32), names)):
            with cell:
                st.html(theme.emotion_html(name))
                spectrogram.show_canvas(
                    y,
                    voices.get("ref_db", 0.0),
                    config.logmel,
                    f"sample {k}",
                    f"generated spectrogram, {name}",
                    164,
                )
    else:
        st.caption(
            f"One voice of each emotion in S2, the same voices and noise at every step. Step {step:,}."
        )
        faces = np.clip((shown["y"].astype(np.float32) + 1) * 127.5, 0, 255).astype(np.uint8)
        for column, face, name in zip(st.columns(len(faces)), faces, names):
            column.image(face, name, width="stretch")
    left, right = st.columns(2, gap="medium")
    with left:
        st.subheader(f"What the scorer {verb}")
        if "confusion" in shown:
            right_ones = np.trace(shown["confusion"]) / max(1, shown["confusion"].sum())
            n = int(shown["confusion"].sum())
            st.caption(
                f"{n:,} samples of S2's {given}s: {right_ones:.0%} {PERCEPTION_VERBS[made]} as the {given}'s emotion, chance {1 / len(classes):.0%}."
            )
            st.plotly_chart(
                confusion_heatmap(shown["confusion"], classes, given, PERCEPTION_VERBS[made]),
                key="heard",
                config=charts.NO_TOOLBAR_CONFIG,
                alt="confusion matrix of the samples",
            )
        else:
            st.caption(OLD_CHECKPOINT_NOTE)
    with right:
        st.subheader("Where they lie")
        if "at" in shown:
            figure, beyond = embedding_figure(shown, classes, made)
            edge = (
                f" {beyond} generated ones lie beyond the frame and are drawn on its edge."
                if beyond
                else ""
            )
            st.caption(
                f"The scorer's features; the axes are those of real {made}s and stay the same at every step.{edge}"
            )
            st.plotly_chart(
                figure,
                key="embedding",
                config=charts.NO_TOOLBAR_CONFIG,
                alt=f"real and generated {made}s in the scorer's feature space",
            )
        else:
            st.caption(OLD_CHECKPOINT_NOTE)


@charts.cache_figure
def confusion_heatmap(
    counts: np.ndarray,
    classes: Sequence[str],
    given: str = "face",
    verb: str = "heard",
    height: int = 380,
) -> go.Figure:
    """Confusion matrix (K, K) of counts of generated samples: each row is what one emotion of `given`s was heard as, in per cent."""
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    hover = f"%{{y}} {verb} as %{{x}}: %{{customdata}} (%{{z:.0f}} %)<extra></extra>"
    bar = {
        "title": {"text": "% of the<br>emotion", "side": "top"},
        "thickness": 10,
        "outlinewidth": 0,
    }
    x, colours = (
        list(classes),
        {"colorscale": theme.CONFUSION_COLOUR_SCALE, "zmin": 0, "zmax": 100, "colorbar": bar},
    )
    figure = go.Figure(
        go.Heatmap(
            z=share,
            x=x,
            y=x,
            customdata=counts,
            texttemplate="%{z:.0f}",
            hovertemplate=hover,
            **colours,
        )
    )
    figure.update_xaxes(title=f"{verb} by the scorer", tickangle=45, showgrid=False)
    figure.update_yaxes(title=f"emotion of the {given}", autorange="reversed", showgrid=False)
    return charts.apply_layout(figure, height, left=80, bottom=80)


@charts.cache_figure
def embedding_figure(
    shown: dict[str, np.ndarray], classes: Sequence[str], made: str = "voice", height: int = 380
) -> tuple[go.Figure, int]:
    """Real and generated samples, `made`s, on the real ones' two principal axes, and how many generated ones lie beyond the frame.

    The frame depends on the real ones alone, so that checkpoints can be compared.
    """
    real, drawn = shown["at_real"], shown["at"]
    low, high = real.min(axis=0), real.max(axis=0)
    more = FRAME_MARGIN * np.maximum(high - low, 1e-6)
    low, high = low - more, high + more
    inside = np.clip(drawn, low, high)
    figure = go.Figure()
    looks = {
        f"real {made}s": (
            real,
            shown["of_real"],
            {"symbol": "circle-open", "size": 6, "opacity": 0.6},
        ),
        "generated": (inside, shown["of"], {"symbol": "diamond", "size": 7, "opacity": 0.85}),
    }
    for kind, (at, of, look) in looks.items():
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=kind,
            marker=look | {"color": theme.OTHER_EMOTION_COLOUR},
        )
        for k, emotion in enumerate(classes):
            rows = of == k
            hover = f"{kind}, {emotion}<extra></extra>"
            marker = look | {"color": theme.emotion_colour(emotion)}
            named = {"name": emotion, "legendgroup": emotion, "showlegend": kind == "generated"}
            figure.add_scatter(
                x=at[rows, 0],
                y=at[rows, 1],
                mode="markers",
                marker=marker,
                hovertemplate=hover,
                cliponaxis=False,
                **named,
            )
    share = 100 * shown["share"]
    figure.update_xaxes(
        title=f"1st principal axis ({share[0]:.0f} % of the real ones' variance)",
        range=[low[0], high[0]],
        zeroline=False,
    )
    figure.update_yaxes(
        title=f"2nd principal axis ({share[1]:.0f} %)", range=[low[1], high[1]], zeroline=False
    )
    legend = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
    return charts.apply_layout(figure, height, left=54, top=64, legend=legend), int(
        (inside != drawn).any(axis=1).sum()
    )
