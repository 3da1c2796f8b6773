"""The paper's Fig. 3 as a live drawing: a real example runs through it, its sounds play, its boxes lead to the pages that show them."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import numpy as np
import streamlit as st
from PIL import Image

from core.config import Config
from ui import theme

if TYPE_CHECKING:
    from core.inference.examples import FaceExample

DRAWING_WIDTH, DRAWING_HEIGHT = 1160, 320  # of the drawing, in its own units; about pixels at 1280


@dataclass(frozen=True)
class Box:
    """A box of Fig. 3: where it stands, what it says, and the page that shows it."""

    at: tuple[int, int, int, int]  # left, top, width, height
    title: str
    words: tuple[str, ...]
    page: str  # file in pages/
    about: str = ""


BOXES = {
    "x": Box(
        (4, 92, 140, 172),
        "x",
        ("a face, 28×28",),
        "data",
        about="The faces that runs learn from, and who is in which set",
    ),
    "f_S": Box(
        (196, 14, 138, 74),
        "f_S",
        ("face classifier", "→ softmax"),
        "evaluate",
        about="How well faces and voices are recognised",
    ),
    "cp": Box(
        (384, 14, 158, 74),
        "Conformal",
        ("prediction", "→ p-values"),
        "conformal",
        about="How sure, and can it be trusted?",
    ),
    "c": Box(
        (592, 4, 150, 108), "c", (), "condition", about="Tell the generator something else by hand"
    ),
    "z": Box((424, 214, 78, 92), "z", ("noise",), "condition", about="The same face, other noise"),
    "G": Box(
        (592, 164, 150, 92),
        "G",
        ("generator", "x, z, c → voice"),
        "train",
        about="Train a generator, and watch it learn",
    ),
    "fake": Box(
        (806, 174, 170, 142),
        "G(x|c,z)",
        (),
        "gallery",
        about="Generated and real voices, side by side",
    ),
    "real": Box(
        (806, 4, 170, 142), "y", (), "gallery", about="Generated and real voices, side by side"
    ),
    "D": Box(
        (1038, 40, 118, 86),
        "D",
        ("discriminator", "real or generated?"),
        "train",
        about="The losses of G and D while they play",
    ),
    "Q": Box(
        (1038, 206, 118, 86),
        "Q",
        ("classifier", "which emotion?"),
        "evaluate",
        about="Which emotion is heard, and how often rightly",
    ),
}
EQUATIONS = {  # tag -> where it stands, as the paper numbers it, and its number in the address of the page Paper
    "Eqs (8), (9)": (463, 108, "8"),
    "Eq. (3)": (1097, 144, "3"),
    "Eq. (4)": (891, 165, "4"),
    "Eq. (6)": (1097, 310, "6"),
}


BOX_OF_SOUND = {
    "real": "real",
    "recorded": "real",
    "fake": "fake",
}  # sound -> the box of its button
PLAY_LABELS = {
    "real": "Play the real voice",
    "recorded": "Play the recording itself",
    "fake": "Play the generated voice",
}

LinkTargets = dict[
    str, tuple[str, dict[str, str]]
]  # a box or an equation -> its page, and what is chosen there


def link_targets(run_id: str, pages: Sequence[str]) -> LinkTargets:
    """Where the drawing's boxes and equations lead, as far as there are such pages; the run that is shown goes along."""
    found = {name: (b.page, {"run": run_id}) for name, b in BOXES.items()}
    found |= {tag: ("paper", {"eq": number}) for tag, (*_, number) in EQUATIONS.items()}
    return {name: way for name, way in found.items() if way[0] in pages}


def png_data_url(values: np.ndarray) -> str:
    """(H, W) or (H, W, 3) uint8 as an address that an image can have."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def spectrogram_image(y: np.ndarray) -> np.ndarray:
    """(columns, bands) in [-1, 1] -> (bands, columns, 3) uint8 in the colours of all spectrograms, low bands at the bottom."""
    levels = np.array(
        [[int(k[i : i + 2], 16) for i in (1, 3, 5)] for k in theme.SPECTROGRAM_COLOUR_SCALE], float
    )
    share = np.clip((y.T[::-1] + 1) / 2, 0, 1)
    return np.stack(
        [np.interp(share, np.linspace(0, 1, len(levels)), part) for part in levels.T], axis=-1
    ).astype(np.uint8)


def fig_3_svg(
    config: Config, condition: str, e: FaceExample, sounds: Sequence[str], ways: LinkTargets
) -> str:
    """The drawing as SVG. `sounds` that PLAYERS names have a play button; only boxes that are among `ways` are links.

    What the condition does not pass through is pale: the label needs no f_S, the softmax no conformal prediction.
    """
    pale = {"label": {"f_S", "cp"}, "classifier": {"cp"}, "cp": set(), "none": {"f_S", "cp", "c"}}[
        condition
    ]
    s = config.logmel
    size = f"{s.columns * s.hop / s.rate:.2g} s × {s.f_max / 1000:.2g} kHz"
    noise = np.random.default_rng(0).normal(128, 60, (12, 12)).clip(0, 255).astype(np.uint8)
    parts = [_arrows(condition)]
    for name, box in BOXES.items():
        inner = [_box_outline(box)]
        if name == "x" and e.face is not None:
            inner.append(_image(png_data_url(e.face), (box.at[0] + 14, box.at[1] + 32, 112, 112)))
        elif name == "z":
            inner.append(_image(png_data_url(noise), (box.at[0] + 15, box.at[1] + 30, 48, 38)))
        elif name == "c":
            inner.append(_condition_bars(box, config.data.classes, e.c))
        elif name in ("fake", "real"):
            what = "drawn by G" if name == "fake" else "the real voice"
            inner.append(
                _spectrogram_panel(box, e.y if name == "fake" else e.real, f"{what} · {size}")
            )
        group = f'<g class="{"pale" if name in pale else "box"}">{"".join(inner)}</g>'
        parts.append(_link(name, ways, f"{box.title}: {box.about}", group))
    for tag, (left, top, _) in EQUATIONS.items():
        words = f'<text class="eq" x="{left}" y="{top}" text-anchor="middle">{tag}</text>'
        parts.append(_link(tag, ways, f"{tag} in the paper", words))
    parts += [
        _play_button(BOXES[box], name) for name, box in BOX_OF_SOUND.items() if name in sounds
    ]
    about = (
        "The paper's figure 3: a face, a condition and noise become a voice, which D and Q judge"
    )
    return f'<svg viewBox="0 0 {DRAWING_WIDTH} {DRAWING_HEIGHT}" aria-label="{about}">{"".join(parts)}</svg>'


def _link(name: str, ways: LinkTargets, about: str, inner: str) -> str:
    if name not in ways:
        return inner
    page, query = ways[name]
    href = html.escape(f"{page}?{urlencode(query)}")
    return f'<a href="{href}" data-name="{html.escape(name)}"><title>{html.escape(about)}</title>{inner}</a>'


def _box_outline(box: Box) -> str:
    left, top, width, height = box.at
    middle = left + width / 2
    words = "".join(
        f'<text class="small" x="{middle}" y="{top + (42 if len(box.words) > 1 else height - 10) + 17 * i}" text-anchor="middle">{w}</text>'
        for i, w in enumerate(box.words)
    )
    title = f'<text class="title" x="{middle}" y="{top + 22}" text-anchor="middle">{_title(box.title)}</text>'
    return f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="9"/>{title}{words}'


def _title(text: str) -> str:
    return (
        "<tspan>f</tspan><tspan class='sub' dy='4'>S</tspan>"
        if text == "f_S"
        else html.escape(text)
    )


def _image(address: str, at: tuple[int, int, int, int]) -> str:
    return f'<image href="{address}" x="{at[0]}" y="{at[1]}" width="{at[2]}" height="{at[3]}" preserveAspectRatio="none"/>'


def _condition_bars(box: Box, classes: Sequence[str], c: np.ndarray) -> str:
    """What G is told, a bar of its colour for each emotion, from 0 to 1."""
    left, top, width, _ = box.at
    step, most = 74 / max(1, len(classes)), width - 74
    rows = []
    for k, (name, value) in enumerate(zip(classes, c)):
        y, colour = top + 28 + k * step, theme.emotion_colour(name)
        long = most * float(np.clip(value, 0, 1))
        rows.append(
            f'<text class="tiny" x="{left + 56}" y="{y + step / 2 + 3:.1f}" text-anchor="end">{html.escape(name)}</text>'
            f'<rect class="bar" x="{left + 60}" y="{y + 1:.1f}" width="{long:.1f}" height="{step - 3:.1f}" style="fill:{colour}">'
            f"<title>{html.escape(name)}: {value:.2f}</title></rect>"
        )
    return (
        "".join(rows)
        or f'<text class="small" x="{left + width / 2}" y="{top + 62}" text-anchor="middle">nothing</text>'
    )


def _spectrogram_panel(box: Box, y: np.ndarray | None, words: str) -> str:
    left, top, width, height = box.at
    title = f'<text class="tiny" x="{left + width / 2}" y="{top + height - 8}" text-anchor="middle">{words}</text>'
    if y is None:
        none = "not of the same clip"
        return (
            title
            + f'<text class="small" x="{left + width / 2}" y="{top + 80}" text-anchor="middle">{none}</text>'
        )
    return title + _image(
        png_data_url(spectrogram_image(y)), (left + 12, top + 32, width - 24, height - 56)
    )


def _play_button(box: Box, name: str) -> str:
    """A round button over a spectrogram, and the line that moves over it while it sounds; the recording's is a small one above."""
    left, top, width, height = box.at
    x, y, label, aside = (
        left + width / 2,
        top + 32 + (height - 56) / 2,
        PLAY_LABELS[name],
        name == "recorded",
    )
    place = (
        f' transform="translate({left + width - 22} {top + 16}) scale(.58) translate({-x} {-y})"'
        if aside
        else ""
    )
    return (
        f'<line class="head" data-of="{name}" x1="{left + 12}" x2="{left + 12}" y1="{top + 32}" y2="{top + height - 24}" '
        f'data-from="{left + 12}" data-long="{width - 24}"/>'
        f'<g class="play"{place} role="button" tabindex="0" aria-label="{label}" data-sound="{name}"><title>{label}</title>'
        f'<circle cx="{x}" cy="{y}" r="19"/><path class="on" d="M{x - 5} {y - 9}l15 9l-15 9z"/>'
        f'<path class="off" d="M{x - 7} {y - 8}h5v16h-5zM{x + 2} {y - 8}h5v16h-5z"/></g>'
    )


def _arrows(condition: str) -> str:
    """The ways from box to box; those that this condition goes are dark."""
    goes = {"label": "label", "classifier": "softmax", "cp": "cp", "none": ""}[condition]
    ways = [  # path, whether it is gone
        ("M144 190H590", True),  # x -> G
        ("M74 92V51H194", goes in ("softmax", "cp")),  # x -> f_S
        ("M334 51H382", goes == "cp"),  # f_S -> conformal
        ("M542 51H590", goes == "cp"),  # conformal -> c
        ("M667 112V162", goes != ""),  # c -> G
        ("M502 250C550 250 548 232 590 232", True),  # z -> G
        ("M742 210H804", True),  # G -> generated
        ("M976 220C1010 220 1004 96 1036 96", True),  # generated -> D
        ("M976 249H1036", True),  # generated -> Q
        ("M976 70H1036", True),  # y -> D
    ]
    if goes == "softmax":
        ways.append(
            ("M265 88V132H560C578 132 566 100 590 100", True)
        )  # f_S -> c, past the conformal predictor
    if goes == "label":
        ways.append(("M560 132C578 132 566 100 590 100", True))  # a name -> c
    lines = "".join(
        f'<path class="way{"" if gone else " pale"}" d="{d}" marker-end="url(#tip)"/>'
        for d, gone in ways
    )
    told = (
        '<text class="small" x="554" y="136" text-anchor="end">the emotion\'s name</text>'
        if goes == "label"
        else ""
    )
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    return f'<defs>{tip}<path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>{lines}{told}'


CSS = """
.drawn {overflow-x: auto;}
svg {display: block; width: 100%; min-width: 56rem; height: auto; font-family: var(--st-font); color: var(--st-text-color);}
text {fill: currentColor;}
.title {font-size: 17px; font-weight: 650; font-style: italic;}
.sub {font-size: 12px;}
.small {font-size: 13px;} .tiny {font-size: 11.5px;}
.eq {font-size: 12px; fill: var(--st-link-color);}
a {cursor: pointer; text-decoration: none;}
a:hover .eq, a:focus .eq {text-decoration: underline;}
rect {fill: var(--st-secondary-background-color); stroke: var(--st-border-color); stroke-width: 1.2;}
.bar {stroke: none;}
.pale {opacity: .4;}
a:hover rect:first-child, a:focus-visible rect:first-child {stroke: var(--st-primary-color); stroke-width: 2.4;}
a:focus, .play:focus {outline: none;}
image {image-rendering: pixelated;}
.way {fill: none; stroke: currentColor; stroke-width: 1.6; opacity: .75;}
.way.pale {opacity: .25; stroke-dasharray: 4 4;}
.tip {fill: currentColor;}
.head {stroke: white; stroke-width: 2; visibility: hidden;}
.head.moving {visibility: visible;}
.play {cursor: pointer;}
.play circle {fill: var(--st-primary-color); stroke: white; stroke-width: 2;}
.play path {fill: white;}
.play .off, .play.sounding .on {display: none;}
.play.sounding .off {display: inline;}
.play.sounding {opacity: .35;} .play.sounding:hover, .play:focus-visible {opacity: 1;}
.play:hover circle, .play:focus-visible circle {stroke-width: 4;}
"""

JS = """export default function ({ data, parentElement, setTriggerValue }) {
  const place = parentElement.querySelector(".drawn")
  if (place.dataset.shown !== data.key) {
    place.innerHTML = data.svg
    place.dataset.shown = data.key
  }
  const audio = place.audio ??= new Audio()
  const quiet = () => {
    audio.pause()
    place.querySelectorAll(".sounding, .moving").forEach((e) => e.classList.remove("sounding", "moving"))
  }
  if (place.of !== data.key) { quiet(); place.of = data.key }
  const play = (button) => {
    const was = button.classList.contains("sounding"), name = button.dataset.sound
    quiet()
    if (was) return
    const head = place.querySelector(`.head[data-of=${name}]`)
    audio.src = data.sounds[name]
    button.classList.add("sounding")
    head.classList.add("moving")
    const move = () => {
      if (!head.classList.contains("moving") || !head.isConnected) return
      const x = Number(head.dataset.from) + Number(head.dataset.long) * (audio.currentTime / audio.duration || 0)
      head.setAttribute("x1", x)
      head.setAttribute("x2", x)
      requestAnimationFrame(move)
    }
    audio.onended = quiet
    audio.play().then(move, quiet)
  }
  place.onclick = (event) => {
    const button = event.target.closest(".play"), link = event.target.closest("a")
    if (button) return play(button)
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return
    event.preventDefault()
    setTriggerValue("go", link.dataset.name)
  }
  place.onkeydown = (event) => {
    const button = event.target.closest(".play")
    if (button && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); play(button) }
  }
  return quiet
}"""

_component = st.components.v2.component(
    "dacssgan_fig_3", html='<div class="drawn"></div>', css=CSS, js=JS
)


def show_fig_3(svg: str, sounds: dict[str, bytes], key: str) -> str:
    """Draws Fig. 3; the name of the box or equation that was clicked, or "". `sounds` are wav files by the box that plays them."""
    addresses = {
        k: "data:audio/wav;base64," + base64.b64encode(v).decode() for k, v in sounds.items()
    }
    return str(
        _component(
            key="fig 3",
            data={"svg": svg, "sounds": addresses, "key": key},
            on_go_change=lambda: None,
        ).go
        or ""
    )
