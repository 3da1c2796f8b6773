"""This benchmark times how the studio opens and changes its page in a browser.

It does so alone and beside a training, and tells whether the studio's memory grows meanwhile.

A switch is a click in the navigation. It ends when the page is whole: its own title, its script
ended, nothing that waits to be replaced.
The peer is a bare Streamlit app with as many pages, each of a title and a line: what the framework
and the machine take by themselves.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from benchmarks.browser import (
    VIEWPORT,
    StudioServer,
    chromium,
    page_titles,
    studio_server,
    wait_for_page,
)
from core import files
from core.config.presets import SMOKE
from core.config.settings import replace
from core.data import preparation, prepared_corpora
from core.experiments import jobs
from core.runs import store

SWITCHES, EARLY_SWITCH = 200, 50
MAX_FIRST_PAINT_MS, MAX_SWITCH_MS, MAX_MEMORY_GROWTH = (
    2000.0,
    500.0,
    0.10,
)  # the aims: ms, ms, share of the memory
SWITCH_PAGE_JS = """path => new Promise((done, failed) => {
  const link = [...document.querySelectorAll('[data-testid=stTopNavLink]')].find(a =>\
 a.pathname === path);
  const title = () => document.querySelector('.stMainBlockContainer h1')?.innerText;
  const before = title(), begun = performance.now();
  let seen = 0, timer = 0;
  const look = () => {
    if (!seen && title() && title() !== before) seen = performance.now() - begun;
    const app = document.querySelector('[data-testid=stApp]');
    if (seen && app.dataset.testScriptState === 'notRunning'\
 && !document.querySelector('[data-stale=true]')
        && [...document.querySelectorAll('[data-testid=stSkeleton], [data-testid=stSpinner]')]\
.every(e => !e.getClientRects().length))
      end([seen, performance.now() - begun]);
  };
  const watcher = new MutationObserver(look);
  const end = result => { watcher.disconnect(); clearTimeout(timer); done(result); };
  timer = setTimeout(() => { watcher.disconnect();\
 failed(new Error(`${path} is not whole after 60 s`)); }, 60000);
  watcher.observe(document.body, {subtree: true, childList: true,\
 attributes: true, characterData: true});
  link.click();
})"""


@dataclass
class Tour:
    """A tour holds the times of a visitor who goes round the pages, in ms.

    It also holds the server's memory on the way, in MB.
    """

    first: dict[str, float] = field(default_factory=dict)  # page -> its first visit
    title_ms: list[float] = field(default_factory=list)  # click -> the page's title
    whole: list[float] = field(default_factory=list)  # click -> the whole page
    median_ms_by_page: dict[str, float] = field(
        default_factory=dict
    )  # page -> median of its later visits
    early_memory_mb: float = 0.0  # memory at the EARLYth switch, or a quarter of the way
    late: float = 0.0  # memory at the last
    processor_ms: float = 0.0  # the server's processor time of one later switch, ms


def measure_tour(tab, server: StudioServer, switches: int) -> Tour:
    """Every page once, then `switches` clicks round robin. The tab shows Home."""
    order, result, each = list(page_titles(tab)), Tour(), {}
    for name in [*order[1:], order[0]]:
        result.first[name or "home"] = tab.evaluate(SWITCH_PAGE_JS, f"/{name}")[1]
    wait_for_page(tab)
    begun = processor_seconds(server.pid)
    for k in range(switches):
        name = order[(k + 1) % len(order)]
        title, whole = tab.evaluate(SWITCH_PAGE_JS, f"/{name}")
        result.title_ms.append(title)
        result.whole.append(whole)
        each.setdefault(name or "home", []).append(whole)
        if k + 1 == max(1, EARLY_SWITCH * switches // SWITCHES):
            result.early_memory_mb = memory_mb(server.pid)
    result.late, result.processor_ms = (
        memory_mb(server.pid),
        1000 * (processor_seconds(server.pid) - begun) / switches,
    )
    result.median_ms_by_page = {
        k: statistics.median(v)
        for k, v in sorted(each.items(), key=lambda kv: -statistics.median(kv[1]))
    }
    return result


def p95(times: list[float]) -> float:
    """The time that 95 % of them stay under."""
    return sorted(times)[max(0, -(-95 * len(times) // 100) - 1)]


def memory_mb(pid: int) -> float:
    """A process' memory in MB (RSS)."""
    return (
        float(
            subprocess.run(
                ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True
            ).stdout
        )
        / 1000
    )


def processor_seconds(pid: int) -> float:
    """A process' processor time so far, in seconds.

    Where /proc is absent only whole seconds are known.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100
    except OSError:
        clock = subprocess.run(
            ["ps", "-o", "time=", "-p", str(pid)], capture_output=True, text=True, check=True
        ).stdout.strip()
        return sum(
            float(part) * 60**k
            for k, part in enumerate(reversed(clock.replace("-", ":").split(":")))
        )


def first_paint_ms(browser, address: str) -> float:
    """From asking for Home in a browser without a cache to its title on the screen, ms."""
    context = browser.new_context(base_url=address, viewport=VIEWPORT)
    tab = context.new_page()
    begun = time.perf_counter()
    tab.goto("/", wait_until="commit")
    tab.locator(".stMainBlockContainer h1").first.wait_for()
    took = 1000 * (time.perf_counter() - begun)
    context.close()
    return took


# ------------------------------------------------------------------ what is visited


def copy_home(folder: Path) -> dict[str, str]:
    """This makes a home of its own with the finished runs and the prepared corpora that are here.

    Returns the environment that names it.
    """
    source, target = files.checkpoints_folder(), folder / "checkpoints"
    target.mkdir(parents=True)
    for row in store.list_runs(source):
        if row["state"] == "done":
            shutil.copytree(source / row["run"], target / row["run"])
    for file in source.glob("*.task"):
        shutil.copyfile(file, target / file.name)
    if prepared_corpora.processed_folder().is_dir():
        shutil.copytree(
            prepared_corpora.processed_folder(),
            folder / "data" / "processed",
            ignore=shutil.ignore_patterns(".*"),
        )
    return {"DACSSGAN_CHECKPOINTS": str(target), "DACSSGAN_DATA": str(folder / "data")}


def write_bare_app(folder: Path, count: int) -> Path:
    """The peer: a Streamlit app of `count` pages with a title and a line each."""
    folder.mkdir()
    for k in range(count):
        (folder / f"p{k}.py").write_text(
            f"import streamlit as st\nst.title('Page {k}')\nst.markdown('A line.')\n"
        )
    listed = ", ".join(
        f"st.Page('p{k}.py', title='Page {k}', default={k == 0})" for k in range(count)
    )
    text = (
        "import streamlit as st\nst.set_page_config(layout='wide')\n"
        f"st.navigation([{listed}], position='top').run()\n"
    )
    (folder / "app.py").write_text(text)
    return folder / "app.py"


@contextlib.contextmanager
def smoke_training(environment: dict[str, str]) -> Iterator[str]:
    """A smoke training in that home for as long as the block lasts; the run's id."""
    with mock.patch.dict(os.environ, environment):
        preparation.prepare_corpus(
            "demo", None, preparation.PreparationSettings(takes=SMOKE.data.demo_takes)
        )
        run = jobs.start(replace(SMOKE, name="beside", gan={"steps": 10**6}), "cpu")
        try:
            end = time.monotonic() + 120
            while not next(r for r in store.list_runs() if r["run"] == run)["step"]:
                if time.monotonic() > end:
                    raise RuntimeError(
                        f"The training beside the visitor does not begin:\n{jobs.log_tail(run)}"
                    )
                time.sleep(0.2)
            yield run
        finally:
            jobs.stop(run, wait=30)


# ------------------------------------------------------------------ the rows


def aim_line(name: str, value: float, aim: float, unit: str = "ms", note: str = "") -> str:
    """A line of the table: what was measured, the figure, the aim and whether it is met."""
    met = "met" if value <= aim else "not met"
    return "  ".join(
        filter(
            None, [f"{name:<76} {value:6.0f} {unit}", f"aim: at most {aim:.0f} {unit}, {met}", note]
        )
    )


def tour_lines(what: str, t: Tour, peer: Tour) -> Iterator[str]:
    """What a tour has found; `peer` is the bare app's."""
    of = " · ".join(f"{k} {v:.0f}" for k, v in t.first.items())
    yield f"pages, {what}: first visits, ms: {of}"
    note = f"median {statistics.median(t.whole):.0f}, title {p95(t.title_ms):.0f}"
    bound = f"{p95(t.whole) / p95(peer.whole):.1f}× a bare app's {p95(peer.whole):.0f} ms"
    yield aim_line(
        f"pages, {what}: a later switch, 95th percentile of {len(t.whole)}",
        p95(t.whole),
        MAX_SWITCH_MS,
        note=f"{note}; {bound}",
    )
    yield (
        f"pages, {what}: the server's processor time {t.processor_ms:.0f} ms a switch, "
        f"a bare app's {peer.processor_ms:.0f} ms"
    )
    slow = " · ".join(f"{k} {v:.0f}" for k, v in t.median_ms_by_page.items())
    yield f"pages, {what}: medians by page, ms: {slow}"
    grown, first = (
        100 * (t.late / t.early_memory_mb - 1),
        max(1, EARLY_SWITCH * len(t.whole) // SWITCHES),
    )
    note = f"{t.early_memory_mb:.0f} → {t.late:.0f} MB"
    yield aim_line(
        f"pages, {what}: the server's memory from switch {first} to {len(t.whole)}",
        grown,
        100 * MAX_MEMORY_GROWTH,
        "%",
        note,
    )


def system_load() -> str:
    """How many processes wait for the processor, where the system says so."""
    return (
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        if hasattr(os, "getloadavg")
        else ""
    )


def rows(switches: int = SWITCHES) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        folder = Path(name)
        home = copy_home(folder / "home")
        with studio_server(folder / "log.txt", home) as server:
            yield aim_line(
                "pages: first paint of Home, the server just up",
                first_paint_ms(browser, server.address),
                MAX_FIRST_PAINT_MS,
                note=system_load(),
            )
            again = statistics.median(first_paint_ms(browser, server.address) for _ in range(5))
            yield aim_line(
                "pages: first paint of Home, for later visitors, median of 5",
                again,
                MAX_FIRST_PAINT_MS,
            )
            tab = browser.new_context(base_url=server.address, viewport=VIEWPORT).new_page()
            tab.goto("/")
            wait_for_page(tab)
            with studio_server(
                folder / "bare.txt", {}, write_bare_app(folder / "bare", len(page_titles(tab)))
            ) as peer:
                other = browser.new_context(base_url=peer.address, viewport=VIEWPORT).new_page()
                other.goto("/")
                wait_for_page(other)
                bound = measure_tour(other, peer, max(20, switches // 4))
            yield from tour_lines("alone", measure_tour(tab, server, switches), bound)
            yield f"pages, alone: {system_load()} at the end"
            with smoke_training(home) as run:
                yield from tour_lines(
                    "beside a training", measure_tour(tab, server, switches), bound
                )
                row = next(
                    r
                    for r in store.list_runs(Path(home["DACSSGAN_CHECKPOINTS"]))
                    if r["run"] == run
                )
                yield (
                    f"pages, beside a training: at its step {row['step']:,}, {row['state']}; "
                    f"{system_load()} at the end"
                )
