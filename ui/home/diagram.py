"""The paper's Fig. 3 as an interactive drawing of a real example.

Its sounds play; its boxes and equations lead to the pages that show them.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import numpy as np
import streamlit as st

from core.config.settings import Config
from ui import theme
from ui.session import images

if TYPE_CHECKING:
    from core.inference.examples import FaceExample

DRAWING_WIDTH, DRAWING_HEIGHT = 1160, 320  # in SVG units, about pixels of a window of 1280


@dataclass(frozen=True)
class Box:
    """A box of Fig. 3: its place, its text, and the page that shows it."""

    at: tuple[int, int, int, int]  # left, top, width, height
    title: str
    words: tuple[str, ...]
    page: str  # file in pages/
    about: str = ""


_VOICES = "Generated and real voices, side by side"
BOXES = {
    "x": Box(
        (4, 92, 140, 172),
        "x",
        ("a face, 28×28",),
        "data",
        "The faces that runs are trained on, and which set each belongs to",
    ),
    "f_S": Box(
        (196, 14, 138, 74),
        "f_S",
        ("face classifier", "→ softmax"),
        "evaluate",
        "How well faces and voices are recognised",
    ),
    "cp": Box(
        (384, 14, 158, 74),
        "Conformal",
        ("prediction", "→ p-values"),
        "conformal",
        "How sure is it, and can it be trusted?",
    ),
    "c": Box((592, 4, 150, 108), "c", (), "condition", "Choose the generator's condition by hand"),
    "z": Box((424, 214, 78, 92), "z", ("noise",), "condition", "The same face with other noise"),
    "G": Box(
        (592, 164, 150, 92),
        "G",
        ("generator", "x, z, c → voice"),
        "train",
        "Train a generator, and watch it learn",
    ),
    "fake": Box((806, 174, 170, 142), "G(x|c,z)", (), "gallery", _VOICES),
    "real": Box((806, 4, 170, 142), "y", (), "gallery", _VOICES),
    "D": Box(
        (1038, 40, 118, 86),
        "D",
        ("discriminator", "real or generated?"),
        "train",
        "The losses of G and D during training",
    ),
    "Q": Box(
        (1038, 206, 118, 86),
        "Q",
        ("classifier", "which emotion?"),
        "evaluate",
        "Which emotion is heard, and how often correctly",
    ),
}
EQUATIONS = {  # the paper's tag -> x, y, and the equation's number in the URL of the page Paper
    "Eqs (8), (9)": (463, 108, "8"),
    "Eq. (3)": (1097, 144, "3"),
    "Eq. (4)": (891, 165, "4"),
    "Eq. (6)": (1097, 310, "6"),
}
SKIPPED_BOXES = {  # condition -> boxes that it does not use, drawn pale
    "label": {"f_S", "cp"},
    "classifier": {"cp"},
    "cp": set(),
    "none": {"f_S", "cp", "c"},
}
BOX_OF_SOUND = {"real": "real", "recorded": "real", "fake": "fake"}  # sound -> its button's box
PLAY_LABELS = {
    "real": "Play the real voice",
    "recorded": "Play the recording itself",
    "fake": "Play the generated voice",
}

LinkTargets = dict[str, tuple[str, dict[str, str]]]  # box or equation -> page, query parameters


def link_targets(run_id: str, pages: Sequence[str]) -> LinkTargets:
    """Targets of the drawing's boxes and equations, if their page exists; boxes pass the run on.

    Evaluate shows the run's confusions, as the boxes that lead there promise.
    """
    found = {name: (b.page, {"run": run_id}) for name, b in BOXES.items()}
    confusion = "evaluate", {"view": "confusion", "runs": run_id}
    found |= {name: confusion for name, b in BOXES.items() if b.page == "evaluate"}
    found |= {tag: ("paper", {"eq": number}) for tag, (*_, number) in EQUATIONS.items()}
    return {name: target for name, target in found.items() if target[0] in pages}


def fig_3_svg(
    config: Config, condition: str, e: FaceExample, sounds: Sequence[str], targets: LinkTargets
) -> str:
    """The drawing as SVG, with a play button for each of `sounds` and a link for each target.

    Boxes that the condition does not use are pale.
    """
    parts = [_arrows(condition)]
    for name, box in BOXES.items():
        inner = _box_outline(box) + _box_content(name, box, config, e)
        look = "pale" if name in SKIPPED_BOXES[condition] else "box"
        group = f'<g class="{look}">{inner}</g>'
        parts.append(_link(name, targets, f"{box.title}: {box.about}", group))
    for tag, (left, top, _) in EQUATIONS.items():
        parts.append(_link(tag, targets, f"{tag} in the paper", _text("eq", left, top, tag)))
    buttons = [(BOXES[box], name) for name, box in BOX_OF_SOUND.items() if name in sounds]
    parts += [_play_button(box, name) for box, name in buttons]
    about = "a face, a condition and noise become a voice, which D and Q judge"
    size = f'viewBox="0 0 {DRAWING_WIDTH} {DRAWING_HEIGHT}"'
    return f'<svg {size} aria-label="The paper\'s figure 3: {about}">{"".join(parts)}</svg>'


def _box_content(name: str, box: Box, config: Config, e: FaceExample) -> str:
    """The example's part in a box: its face, noise, condition or spectrogram."""
    left, top, *_ = box.at
    if name == "x" and e.face is not None:
        return _image(e.face, (left + 14, top + 32, 112, 112))
    if name == "z":
        noise = np.random.default_rng(0).normal(128, 60, (12, 12)).clip(0, 255).astype(np.uint8)
        return _image(noise, (left + 15, top + 30, 48, 38))
    if name == "c":
        return _condition_bars(box, config.data.classes, e.c)
    if name in ("fake", "real"):
        s = config.logmel
        size = f"{s.columns * s.hop / s.rate:.2g} s × {s.f_max / 1000:.2g} kHz"
        what, y = ("drawn by G", e.y) if name == "fake" else ("the real voice", e.real)
        return _spectrogram_panel(box, y, f"{what} · {size}")
    if name == "Q":
        heard = html.escape(config.data.classes[int(e.heard.argmax())])
        words = f"judge: {heard} {e.heard.max():.0%}"
        return _text("small", left + box.at[2] / 2, top + 76, words)
    return ""


def _text(look: str, x: float, y: float, content: str, anchor: str = "middle") -> str:
    return f'<text class="{look}" x="{x}" y="{y}" text-anchor="{anchor}">{content}</text>'


def _link(name: str, targets: LinkTargets, about: str, inner: str) -> str:
    if name not in targets:
        return inner
    page, query = targets[name]
    href, title = html.escape(f"{page}?{urlencode(query)}"), html.escape(about)
    return f'<a href="{href}" data-name="{html.escape(name)}"><title>{title}</title>{inner}</a>'


def _box_outline(box: Box) -> str:
    left, top, width, height = box.at
    middle, first = left + width / 2, top + (42 if len(box.words) > 1 else height - 10)
    lines = "".join(_text("small", middle, first + 17 * i, w) for i, w in enumerate(box.words))
    f_S = "<tspan>f</tspan><tspan class='sub' dy='4'>S</tspan>"
    title = f_S if box.title == "f_S" else html.escape(box.title)
    rect = f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="9"/>'
    return rect + _text("title", middle, top + 22, title) + lines


def _image(pixels: np.ndarray, at: tuple[int, int, int, int]) -> str:
    place = f'x="{at[0]}" y="{at[1]}" width="{at[2]}" height="{at[3]}"'
    return f'<image href="{images.png_data_url(pixels)}" {place} preserveAspectRatio="none"/>'


def _condition_bars(box: Box, classes: Sequence[str], c: np.ndarray) -> str:
    """G's condition: a bar from 0 to 1 in each emotion's colour."""
    left, top, width, _ = box.at
    step, most = 74 / max(1, len(classes)), width - 74
    rows = []
    for k, (emotion, value) in enumerate(zip(classes, c)):
        y, name, length = top + 28 + k * step, html.escape(emotion), most * np.clip(value, 0, 1)
        size = f'width="{length:.1f}" height="{step - 3:.1f}"'
        look = f'class="bar" style="fill:{theme.emotion_colour(emotion)}"'
        rows.append(
            _text("tiny", left + 56, round(y + step / 2 + 3, 1), name, "end")
            + f'<rect {look} x="{left + 60}" y="{y + 1:.1f}" {size}>'
            + f"<title>{name}: {value:.2f}</title></rect>"
        )
    return "".join(rows) or _text("small", left + width / 2, top + 62, "nothing")


def _spectrogram_panel(box: Box, y: np.ndarray | None, words: str) -> str:
    left, top, width, height = box.at
    title = _text("tiny", left + width / 2, top + height - 8, words)
    if y is None:
        return title + _text("small", left + width / 2, top + 80, "not of the same clip")
    place = left + 12, top + 32, width - 24, height - 56
    return title + _image(images.spectrogram_image(y), place)


def _play_button(box: Box, name: str) -> str:
    """A round button over a spectrogram, and the line that moves over it while it sounds.

    The recording's button is a small one above the spectrogram.
    """
    left, top, width, height = box.at
    x, y, label = left + width / 2, top + 32 + (height - 56) / 2, PLAY_LABELS[name]
    shift = f"translate({left + width - 22} {top + 16}) scale(.58) translate({-x} {-y})"
    place = f' transform="{shift}"' if name == "recorded" else ""
    ends = f'x1="{left + 12}" x2="{left + 12}" y1="{top + 32}" y2="{top + height - 24}"'
    path = f'data-from="{left + 12}" data-long="{width - 24}"'
    role = f'role="button" tabindex="0" aria-label="{label}" data-sound="{name}"'
    return (
        f'<line class="head" data-of="{name}" {ends} {path}/>'
        f'<g class="play"{place} {role}><title>{label}</title>'
        f'<circle cx="{x}" cy="{y}" r="19"/>'
        f'<path class="on" d="M{x - 5} {y - 9}l15 9l-15 9z"/>'
        f'<path class="off" d="M{x - 7} {y - 8}h5v16h-5zM{x + 2} {y - 8}h5v16h-5z"/></g>'
    )


def _arrows(condition: str) -> str:
    """The arrows from box to box; those that this condition uses are dark."""
    arrows = [  # path, whether it is used
        ("M144 190H590", True),  # x -> G
        ("M74 92V51H194", condition in ("classifier", "cp")),  # x -> f_S
        ("M334 51H382", condition == "cp"),  # f_S -> conformal
        ("M542 51H590", condition == "cp"),  # conformal -> c
        ("M667 112V162", condition != "none"),  # c -> G
        ("M502 250C550 250 548 232 590 232", True),  # z -> G
        ("M742 210H804", True),  # G -> generated
        ("M976 220C1010 220 1004 96 1036 96", True),  # generated -> D
        ("M976 249H1036", True),  # generated -> Q
        ("M976 70H1036", True),  # y -> D
    ]
    label = ""
    if condition == "classifier":  # f_S -> c, past the conformal predictor
        arrows.append(("M265 88V132H560C578 132 566 100 590 100", True))
    if condition == "label":  # the emotion's name -> c
        arrows.append(("M560 132C578 132 566 100 590 100", True))
        label = _text("small", 554, 136, "the emotion's name", "end")
    lines = "".join(
        f'<path class="way{"" if used else " pale"}" d="{d}" marker-end="url(#tip)"/>'
        for d, used in arrows
    )
    size = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
    tip = f'<marker id="tip" {size} orient="auto"><path class="tip" d="M0 0L8 4L0 8z"/></marker>'
    return f"<defs>{tip}</defs>{lines}{label}"


CSS = """
.drawn {overflow-x: auto;}
svg {display: block; width: 100%; min-width: 44rem; height: auto; font-family: var(--st-font);
  color: var(--st-text-color);}
text {fill: currentColor;}
.title {font-size: 17px; font-weight: 650; font-style: italic;}
.sub {font-size: 12px;}
.small {font-size: 13px;} .tiny {font-size: 11.5px;}
.eq {font-size: 12px; fill: var(--st-link-color);}
a {cursor: pointer; text-decoration: none;}
a:hover .eq, a:focus .eq {text-decoration: underline;}
rect {fill: var(--st-secondary-background-color); stroke: var(--st-border-color);
  stroke-width: 1.2;}
.bar {stroke: none;}
.pale {opacity: .4;}
a:hover rect:first-child, a:focus-visible rect:first-child {stroke: var(--st-primary-color);
  stroke-width: 2.4;}
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
    const active = place.querySelectorAll(".sounding, .moving")
    active.forEach((e) => e.classList.remove("sounding", "moving"))
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
      const share = audio.currentTime / audio.duration || 0
      const x = Number(head.dataset.from) + Number(head.dataset.long) * share
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
    if (!button || (event.key !== "Enter" && event.key !== " ")) return
    event.preventDefault()
    play(button)
  }
  return quiet
}"""

_component = st.components.v2.component(
    "dacssgan_fig_3", html='<div class="drawn"></div>', css=CSS, js=JS
)


def show_fig_3(svg: str, sounds: dict[str, bytes], key: str) -> str:
    """Show the drawing; returns the box or equation that was clicked, or "".

    `sounds`: name of a play button -> WAV. The drawing starts anew when `key` changes.
    """
    start = "data:audio/wav;base64,"
    urls = {k: start + base64.b64encode(v).decode() for k, v in sounds.items()}
    data = {"svg": svg, "sounds": urls, "key": key}
    return str(_component(key="fig 3", data=data, on_go_change=lambda: None).go or "")
