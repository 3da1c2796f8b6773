"""`make screenshots` shows every page as a visitor sees it.

The pages have the runs that are here, in light and dark.

The pictures go to docs/screenshots/, which git ignores. Those that README shows also go to docs/,
with few colours, so that they are small; with one of a film that speaks.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import av
from PIL import Image, ImageColor

from benchmarks.browser import (
    ROOT,
    VIEWPORT,
    chromium,
    page_titles,
    record_faults,
    studio_server,
    wait_for_page,
)
from core import __main__ as command_line
from core.runs import store
from ui import theme

FOLDER = ROOT / "docs" / "screenshots"
SCHEMES = ("light", "dark")
# page -> picture's name -> what its address says; a page that is not named here is taken as it
# opens
VIEWS = {
    "": {"home": ""},
    "condition": {
        "condition": "face=drawn-happy",
        "condition-emotions": "face=drawn-happy&view=emotions",
        "condition-faces": "view=faces",
    },
    "gallery": {
        "gallery": "",
        "gallery-demo": "run={demo}",
        "gallery-copy": "look=copy",
        "gallery-quiz": "view=quiz",
    }
    | {"gallery-examples": "view=examples"},
    "conformal": {"conformal": "step=area"}
    | {
        f"conformal-{k}": f"step={k}"
        for k in ("chain", "set", "map", "promise", "broken", "generator")
    },
    "evaluate": {"evaluate": "view=runs"}
    | {
        f"evaluate-{k}": f"view={k}"
        for k in ("curves", "confusion", "augmentation", "labels", "folds", "paper")
    },
    "data": {"data": ""}
    | {f"data-{k}": f"view={k}" for k in ("sets", "clips")}
    | {"data-bring": "part=bring"},
    "paper": {"paper": "", "paper-eq-9": "eq=9"},
}
README = {"home": "home-light", "gallery": "gallery-light"}
FILM_CLIP, FILM_SECOND = "demo_03_HAP_04.mp4", 0.7  # the picture of a film that speaks
CHARTS = (
    "() => [...document.querySelectorAll('.js-plotly-plot')]"
    ".every(e => e.querySelector('.main-svg'))"
)


def picture(tab, address: str, path: Path) -> None:
    """This takes a picture of one page at rest, with its charts drawn.

    What moves or is hidden behind a pointer is left alone.
    """
    tab.goto(address)
    wait_for_page(tab)
    tab.wait_for_function(CHARTS)
    tab.wait_for_timeout(700)  # charts take their last size
    wait_for_page(tab)
    tab.screenshot(path=path, animations="disabled")


def film_picture(target: Path) -> None:
    """This writes one picture of a drawn clip that speaks with a generated voice."""
    with tempfile.TemporaryDirectory() as folder:
        clips = Path(folder) / "clips"
        assert command_line.main(["data", "draw", str(clips), "--count", "12"]) == 0
        words = ["generate", str(clips / FILM_CLIP), "--run", "demo", "--condition", "cp"]
        assert command_line.main([*words, "--video", "--out", folder]) == 0
        with av.open(str(next(Path(folder).glob("*.mp4")))) as film:
            for frame in film.decode(video=0):
                if frame.time >= FILM_SECOND:
                    break
            picture = frame.to_image()
    picture.thumbnail((480, 480))
    picture.save(target, optimize=True)


def small(source: Path, target: Path) -> None:
    """This writes the same picture with 256 colours.

    They are its own and the emotions', which are few pixels and must not change.
    """
    kept = [*theme.EMOTION_COLOURS.values(), "#ffffff", "#eef3f3"]  # and the light ground's two
    image, own = Image.open(source).convert("RGB"), 256 - len(kept)
    palette = Image.new("P", (1, 1))
    fixed = [k for colour in kept for k in ImageColor.getrgb(colour)]
    palette.putpalette(image.quantize(own).getpalette()[: 3 * own] + fixed)
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(target, optimize=True)


def main(wanted: list[str]) -> int:
    """Takes the pictures of all pages, or of those whose names are given.

    Returns 1 where a page has shown a fault.
    """
    FOLDER.mkdir(exist_ok=True)
    bad: list[str] = []
    taken = set()
    demo = next(
        (r["run"] for r in store.list_runs() if r["name"] == "demo" and r["state"] == "done"), ""
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        chromium() as browser,
        studio_server(log := Path(folder) / "log.txt", {}) as server,
    ):
        for scheme in SCHEMES:
            context = browser.new_context(
                base_url=server.address,
                viewport=VIEWPORT,
                color_scheme=scheme,
                reduced_motion="reduce",
            )
            tab = context.new_page()
            faults = record_faults(tab)
            tab.goto("/")
            for page in page_titles(tab):
                for name, query in VIEWS.get(page, {page: ""}).items():
                    if wanted and not {name, page or "home"} & set(wanted):
                        continue
                    path = FOLDER / f"{name}-{scheme}.png"
                    picture(tab, f"/{page}?{query.format(demo=demo)}", path)
                    if tab.locator("[data-testid=stException]").count():
                        faults.append("an exception box")
                    taken.add(path.stem)
                    print(path.relative_to(ROOT), *faults, sep="  ! ", flush=True)
                    if faults:
                        print(log.read_text()[-3000:])
                    bad += faults
                    faults.clear()
            context.close()
    for name, source in README.items():
        if source in taken:
            small(FOLDER / f"{source}.png", target := ROOT / "docs" / f"{name}.png")
            print(target.relative_to(ROOT), f"{target.stat().st_size / 1000:.0f} kB")
    if not wanted or "film" in wanted:
        film_picture(ROOT / "docs" / "film.png")
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except RuntimeError as error:
        sys.exit(f"make screenshots: {error}")
