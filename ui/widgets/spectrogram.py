"""A spectrogram on a page, with its axes, the value under the pointer and a full screen.

A page may show five at once. Each is a small canvas, which is drawn at once; Plotly charts of the
same took most of the time that a page needs.
"""

from __future__ import annotations

import base64
import html

import numpy as np
import streamlit as st
from plotly.colors import hex_to_rgb

from core.config.settings import LogMel
from core.media import spectrograms
from ui import theme
from ui.widgets import charts

CSS = """
.voice {display: grid; grid-template-columns: 46px minmax(0, 1fr) 50px;
  grid-template-rows: minmax(0, 1fr) 34px;
  padding-top: 8px; font: 12px var(--st-font); color: var(--st-text-color); position: relative;}
.voice:fullscreen {padding: 4vh 3vw; background: var(--st-background-color); font-size: 18px;
  height: 100vh !important;
  grid-template-columns: 80px minmax(0, 1fr) 90px; grid-template-rows: minmax(0, 1fr) 70px;}
.voice div {position: relative;}
.voice span {position: absolute; white-space: nowrap; line-height: 1;}
canvas {position: absolute; width: 100%; height: 100%; image-rendering: pixelated;
  cursor: crosshair;}
.y span {right: 6px; transform: translateY(50%);}
.y .title {right: auto; left: 0; top: 50%; writing-mode: vertical-rl;
  transform: translateY(-50%) rotate(180deg);}
.x {container-type: inline-size;}
.x span {top: 5px; transform: translateX(-50%);}
.x .title {top: auto; bottom: 2px; left: 50%;}
@container (max-width: 230px) {.x span:nth-child(even):not(.title) {display: none;}}
.scale span {left: 16px; transform: translateY(50%);}
.scale i {position: absolute; left: 4px; width: 8px; height: 100%;}
.voice .tip {z-index: 1; padding: 4px 7px; border-radius: 4px; pointer-events: none;
  visibility: hidden;
  color: var(--st-background-color); background: var(--st-text-color);}
button {position: absolute; top: 10px; right: 0; padding: 4px 5px 2px; border: 0;
  border-radius: 4px; opacity: 0; cursor: pointer;
  color: var(--st-text-color); background: var(--st-secondary-background-color);}
.voice:hover button, button:focus-visible {opacity: 1;}
"""
JS = """export default function ({ data, parentElement }) {
  const box = parentElement.querySelector(".voice")
  if (box.frame !== data.frame) {
    box.innerHTML = box.frame = data.frame
    box.shown = ""
  }
  box.style.height = `${data.height}px`
  const canvas = box.querySelector("canvas"), tip = box.querySelector(".tip")
  const { columns, bands, low, high } = data
  if (box.shown !== data.decibels) {
    box.shown = data.decibels
    const bytes = Uint8Array.from(atob(data.decibels), (c) => c.charCodeAt(0))
    canvas.decibels = new Int16Array(bytes.buffer)
    canvas.width = columns
    canvas.height = bands
    const pen = canvas.getContext("2d"), image = pen.createImageData(columns, bands)
    const colours = data.colours, most = colours.length - 1
    for (let k = 0; k < columns; k++)
      for (let b = 0; b < bands; b++) {
        const level = (canvas.decibels[k * bands + b] / 100 - low) / (high - low)
        const share = Math.min(1, Math.max(0, level)) * most
        const i = Math.min(most - 1, Math.floor(share)), at = 4 * ((bands - 1 - b) * columns + k)
        for (let c = 0; c < 3; c++) {
          const from = colours[i][c]
          image.data[at + c] = Math.round(from + (share - i) * (colours[i + 1][c] - from))
        }
        image.data[at + 3] = 255
      }
    pen.putImageData(image, 0, 0)
  }
  canvas.onpointermove = (event) => {
    const cell = (share, n) => Math.min(n - 1, Math.max(0, Math.floor(share * n)))
    const k = cell(event.offsetX / canvas.clientWidth, columns)
    const b = bands - 1 - cell(event.offsetY / canvas.clientHeight, bands)
    const value = (canvas.decibels[k * bands + b] / 100).toFixed(0)
    const seconds = (k * data.dx).toFixed(2), kilohertz = data.kilohertz[b].toFixed(2)
    tip.textContent = `${seconds} s · ${kilohertz} kHz · ${value} dB`
    const right = event.offsetX > canvas.clientWidth / 2
    tip.style.visibility = "visible"
    tip.style.top = `${event.offsetY + 12}px`
    tip.style.left = `${event.offsetX - (right ? tip.offsetWidth : -12)}px`
  }
  canvas.onpointerleave = () => { tip.style.visibility = "hidden" }
  box.querySelector("button").onclick = () =>
    document.fullscreenElement ? document.exitFullscreen() : box.requestFullscreen()
}"""
FULL_SCREEN_BUTTON = """<button title="Full screen" aria-label="Full screen">
<svg width="14" height="14" fill="none" stroke="currentColor" stroke-width="2">
<path d="M1 5V1h4M9 1h4v4M13 9v4H9M5 13H1V9"/></svg></button>"""
TIME_STEPS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # s between two ticks of the time axis
MAX_TIME_STEPS = 6  # most intervals between ticks
_component = st.components.v2.component(
    "dacssgan_spectrogram", html='<div class="voice"></div>', css=CSS, js=JS
)


def show_canvas(
    y: np.ndarray, ref_db: float, s: LogMel, key: str, alt: str, height: int = 215
) -> None:
    """(columns, bands) in [-1, 1] as dB over time and mel frequency."""
    # The page shows exactly these values: hundredths of a dB.
    decibels = np.rint(100 * spectrograms.unscale(y, ref_db, s)).astype("<i2")
    low, high = ref_db - s.range_db, ref_db
    data = {
        "frame": axes_html(len(y), low, high, s, alt),
        "decibels": base64.b64encode(decibels.tobytes()).decode(),
        "colours": [hex_to_rgb(k) for k in theme.SPECTROGRAM_COLOUR_SCALE],
        "kilohertz": charts.band_centres_khz(s).tolist(),
    }
    sizes = {"columns": len(y), "bands": s.bands, "dx": s.hop / s.rate, "height": height}
    _component(key=key, data=data | sizes | {"low": low, "high": high})


def axes_html(columns: int, low: float, high: float, s: LogMel, alt: str) -> str:
    """Everything but the cells: axes with titles, the colour scale, the pointer's label."""
    seconds = columns * s.hop / s.rate
    step = next(k for k in TIME_STEPS if seconds / k <= MAX_TIME_STEPS)
    across = "".join(
        _tick("left", (k * step * s.rate / s.hop + 0.5) / columns, f"{k * step:.2g}")
        for k in range(int(seconds / step) + 1)
    )
    mel = charts.mel_axis(s)
    ticks = zip(mel["tickvals"], mel["ticktext"])
    up = "".join(_tick("bottom", (i + 0.5) / s.bands, k) for i, k in ticks)
    levels = "".join(
        _tick("bottom", k, f"{low + k * (high - low):.0f}{unit}")
        for k, unit in ((0, " dB"), (0.5, ""), (1, " dB"))
    )
    gradient = f"linear-gradient(to top,{','.join(theme.SPECTROGRAM_COLOUR_SCALE)})"
    canvas = f'<canvas role="img" aria-label="{html.escape(alt)}"></canvas>'
    return (
        f'<div class="y"><span class="title">{mel["title"]}</span>{up}</div>'
        f'<div>{canvas}<span class="tip"></span></div>'
        f'<div class="scale"><i style="background:{gradient}"></i>{levels}</div>'
        f'<div></div><div class="x">{across}<span class="title">time (s)</span></div><div></div>'
        f"{FULL_SCREEN_BUTTON}"
    )


def _tick(edge: str, share: float, text: str) -> str:
    return f'<span style="{edge}:{100 * share:.2f}%">{text}</span>'
