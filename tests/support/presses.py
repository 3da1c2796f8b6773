"""A visitor in a browser who presses all that a page offers, and looks at what comes of it.

A press must change what is shown outside the control, change the address, bring a file that opens,
or bring a reason. What would take minutes is pressed and ended.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import ElementHandle
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from benchmarks import browser
from core.experiments import jobs, tasks
from core.runs import store
from tests.support.opened_files import open_file

# In the browser: what can be pressed, and a number that stands for all that is shown.
# A control's group is its widget; its own value is left out of what is shown, as a choice that
# changes nothing but itself has no effect.
PRESSES_JS = r"""() => {
  const KINDS = [
    ["file", "[data-testid=stDownloadButton] button"],
    ["expander", "[data-testid=stExpander] summary"],
    ["toggle", "[data-testid=stCheckbox] label"],
    ["select", "[data-testid=stSelectbox]"],
    ["step", "[data-testid=stNumberInputStepUp], [data-testid=stNumberInputStepDown]"],
    ["play", ".play"],
    ["button", "[data-testid=stButton] button, [data-testid=stFormSubmitButton] button"],
    ["popover", "[data-testid=stPopover] button"],
    ["option", "[data-testid=stRadioOption]"],
    ["option", "[data-testid=stButtonGroup] button:not([aria-label^='Help for'])"],
    ["tab", "[data-testid=stTab]"],
    ["link", "a[href]"],
  ];
  const OWN = new Set(["toggle", "select", "step", "option"]);
  const ROOTS = "[data-testid=stPopoverBody], [data-testid=stDialog], .stMainBlockContainer, "
    + "[data-testid=stSidebarUserContent]";
  // closed expanders keep their content, unseen
  const seen = (e) => e.getClientRects().length > 0
    && e.checkVisibility({ visibilityProperty: true });
  const ICONS = "[data-testid=stIconMaterial], [data-testid^=stExpanderIcon]";
  const words = (e) => [...e.querySelectorAll(ICONS)]
    .reduce((text, icon) => text.replace(icon.innerText, ""), e.innerText ?? e.textContent)
    .trim().replace(/\s+/g, " ").slice(0, 60);
  const key = (e) => {
    const keyed = e.closest("[class*='st-key-']");
    return [...(keyed?.classList ?? [])].find((c) => c.startsWith("st-key-"))?.slice(7) ?? "";
  };
  const deep = (root, what) => [...root.querySelectorAll(what)].concat(
    [...root.querySelectorAll("[data-testid^=stBidiComponent], [data-testid^=stBidiComponent] *")]
      .filter((e) => e.shadowRoot).flatMap((e) => deep(e.shadowRoot, what)));
  const name = (e, kind) => {
    const box = e.closest("[data-testid=stElementContainer]");
    const label = box?.querySelector("[data-testid=stWidgetLabel]");
    const group = `${key(e)} ${label ? words(label) : ""}`.trim();
    if (kind === "select") return [group, ""];
    if (kind === "step") return [group, e.dataset.testid.slice(17)];
    if (kind === "link") return ["", e.getAttribute("href")];
    return [group, e.getAttribute("aria-label") || words(e)];
  };
  const chosen = (e) => e.matches("[aria-checked=true], [data-selected], [aria-selected=true]")
    || e.querySelector("input:checked[type=radio]") !== null;
  const disabled = (e) => e.disabled || e.ariaDisabled === "true"
    || e.querySelector("input:disabled") !== null;
  window.presses = () => {
    const found = [], count = {};
    const taken = new Set();
    for (const root of document.querySelectorAll(ROOTS)) for (const [kind, what] of KINDS)
      for (const e of deep(root, what)) {
        if (taken.has(e) || !seen(e) || disabled(e)) continue;
        if (kind === "option" && chosen(e) && !e.matches("[aria-pressed]")) continue;
        if (kind === "link" && (e.origin !== location.origin && !e.ownerSVGElement)) continue;
        if (e.closest("[data-testid=stHeaderActionElements]")) continue;  // a heading's anchor
        const [group, text] = name(e, kind);
        if (!text && kind !== "select") continue;  // it is still being drawn
        taken.add(e);
        const id = `${kind} ${group}: ${text}`;
        count[id] = (count[id] ?? 0) + 1;
        if (kind === "link" && count[id] > 1) continue;  // one of those that lead to one place
        found.push({ name: count[id] > 1 ? `${id} #${count[id]}` : id, kind, group, element: e });
      }
    return found;
  };
  window.pressed = (wanted) => window.presses().find((p) => p.name === wanted)?.element;
  const hash = (text) => {
    let a = 0xdeadbeef, b = 0x41c6ce57;
    for (let i = 0; i < text.length; i++) {
      const c = text.charCodeAt(i);
      a = Math.imul(a ^ c, 2654435761); b = Math.imul(b ^ c, 1597334677);
    }
    return (4294967296 * (2097151 & b) + (a >>> 0)).toString(36);
  };
  window.shown = (kind, group) => {
    const own = new Set();
    if (OWN.has(kind)) for (const p of window.presses())
      if (OWN.has(p.kind) && p.group === group)
        own.add(p.element.closest("[data-testid=stElementContainer]"));
    const parts = [];
    const look = (node) => {
      if (node.nodeType === Node.TEXT_NODE) {
        const text = node.textContent.trim();
        if (text && node.parentElement && seen(node.parentElement)) parts.push(text);
        return;
      }
      if (own.has(node) || node.matches?.("style, script, [data-testid=stTooltipContent]")) return;
      if (node.matches?.("img, audio, video"))
        parts.push(node.getAttribute("src") ?? "", String(node.autoplay));
      if (node.matches?.("input, textarea")) parts.push(node.value, String(node.checked));
      if (node.matches?.("[data-selected], [aria-checked=true]")) parts.push("chosen");
      if (node.getRootNode() instanceof ShadowRoot && node.getAttribute)
        parts.push(node.getAttribute("class") ?? "");
      if (node.matches?.(".js-plotly-plot")) {
        parts.push(JSON.stringify(node.data), JSON.stringify(node.layout));
        return;
      }
      if (node.matches?.("canvas")) {
        parts.push(node.matches("[data-testid=data-grid-canvas]")
          ? node.textContent : node.toDataURL());
        return;
      }
      if (node.shadowRoot) look(node.shadowRoot);
      node.childNodes.forEach(look);
    };
    look(document.body);
    return hash(parts.join("\n"));
  };
}"""
LIST_JS = "() => window.presses().map(({ name, kind, group }) => ({ name, kind, group }))"
ORDER = (
    *("file", "expander", "play", "toggle", "select", "step", "button", "popover", "option"),
    *("tab", "link"),
)  # what leaves the view comes last
ENDS = re.compile("^(Pause|Stop|Cancel|End it now)")  # buttons that end what takes minutes
EFFECT_SECONDS = 20.0  # within which a press shows something, on a busy machine
FILE_SECONDS = 90.0
LATER_SECONDS = 2.0  # for what need not show anything
TRIES = 3
COVERED_AFTER = 8_000.0  # milliseconds after which a control that takes no click lies under another
QUIET_SECONDS = 5.0  # a page that never comes to rest is looked at all the same after these


class Gone(Exception):
    """A control is no longer on the page."""


@dataclass(frozen=True)
class Press:
    """A control: its kind, the widget it belongs to, and the two with its words."""

    name: str
    kind: str
    group: str


@dataclass
class Visit:
    """A tab in which all that a page offers is pressed."""

    tab: object
    home: Path
    folder: Path  # for files that come down
    later: re.Pattern  # names of choices that act when something is started
    left: re.Pattern  # names of what is not pressed
    known: dict[str, str] = field(default_factory=dict)  # a control's name -> the address it had
    files: list = field(default_factory=list)
    tabs: list = field(default_factory=list)  # that a press has opened
    missed: dict[str, int] = field(default_factory=dict)  # how often a control was gone
    groups: dict[str, int] = field(default_factory=dict)  # widgets, by when they were pressed
    lines: list[str] = field(default_factory=list)  # what was pressed, and what came of it
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tab.on("download", lambda file: self.files.append(file))
        self.tab.on("popup", lambda tab: self.tabs.append(tab))
        self.tab.add_init_script(f"({PRESSES_JS})()")

    # -------------------------------------------------------------- looking

    def controls(self) -> list[Press]:
        return [Press(**one) for one in self.tab.evaluate(LIST_JS)]

    def shown(self, press: Press) -> str:
        return self.tab.evaluate("([kind, group]) => window.shown(kind, group)", [*_of(press)])

    def quiet(self, press: Press) -> str:
        """What is shown, as soon as it is twice the same."""
        end, before = time.monotonic() + QUIET_SECONDS, ""
        while (now := self.shown(press)) != before and time.monotonic() < end:
            before = now
            self.tab.wait_for_timeout(150)
        return now

    def is_at_rest(self) -> bool:
        return self.tab.evaluate(browser.PAGE_AT_REST_JS)

    # -------------------------------------------------------------- pressing

    def press_all(self, address: str, wanted: Callable[[Press], bool] = lambda _: True) -> None:
        """Press all that the page at `address` offers, and all that appears with it."""
        self.open(address)
        age: dict[str, int] = {}  # what a press brought is pressed next, before it is gone
        while True:
            for one in self.controls():
                self.known.setdefault(one.name, "" if self._is_left(one, wanted) else self.tab.url)
                age.setdefault(one.name, len(self.lines))
            here = [p for p in self.controls() if self.known.get(p.name)]
            if here:
                self.press(min(here, key=lambda p: self._turn(p, age)))
                continue
            waiting = [(name, url) for name, url in self.known.items() if url]
            if not waiting:
                return
            name, url = waiting[0]
            self.open(url)
            if name not in {p.name for p in self.controls()}:
                self.known[name] = ""
                self.lines.append(f"{name}: gone before it was pressed")

    def _turn(self, one: Press, age: dict[str, int]) -> tuple:
        """Sorts what is pressed first: what is new, and what does not take it away again."""
        newest = -self.groups.get(one.group, len(self.groups))  # an older option leads back
        return one.kind == "link", -age[one.name], newest, ORDER.index(one.kind)

    def _is_left(self, one: Press, wanted: Callable[[Press], bool]) -> bool:
        return bool(self.left.search(one.name)) or not wanted(one)

    def open(self, address: str) -> None:
        self.tab.goto(address)
        self.settle()

    def press(self, one: Press) -> None:
        """Press a control, and note what comes of it, or that nothing does."""
        self.known[one.name] = ""
        self.groups.setdefault(one.group, len(self.groups))
        before, url, files = self.quiet(one), self.tab.url, len(self.files)
        try:
            if not self._touch(one):
                self.lines.append(f"{one.name}: no other option")
                return
        except Gone:
            self._note_gone(one, url)
            return
        except Exception as error:
            raise AssertionError(f"{url}: {one.name}: {error}") from error
        try:
            effect = self._effect(one, before, url, files)
        except Exception as error:
            raise AssertionError(f"{url}: {one.name}: {error}") from error
        self.lines.append(f"{one.name}: {effect or 'NOTHING'}")
        if not effect and not self.later.search(one.name):
            self.faults.append(f"{url}: {one.name}: nothing came of it")
        self._end_work()
        self.settle()
        for tab in (self.tab, *self.tabs):
            browser.wait_for_page(tab)
            for box in tab.locator("[data-testid=stException]").all_inner_texts():
                self.faults.append(f"{url}: {one.name}: {box[:500]}")
        while self.tabs:
            self.tabs.pop().close()
        if _path(self.tab.url) != _path(url):
            self.open(url)

    def _note_gone(self, one: Press, url: str) -> None:
        """A live page has taken a control away: it is pressed when it comes back."""
        self.missed[one.name] = self.missed.get(one.name, 0) + 1
        if self.missed[one.name] < TRIES:
            self.known[one.name] = url
        elif not _ends(one):  # what ends a task is gone with the task
            self.faults.append(f"{url}: {one.name}: it cannot be pressed")

    def _touch(self, one: Press) -> bool:
        """Press; False where a select has one option only. Raises Gone."""
        element = self.tab.evaluate_handle("(name) => window.pressed(name)", one.name).as_element()
        if element is None:
            raise Gone
        try:
            element.scroll_into_view_if_needed()
            if one.kind != "select":
                self._click(element)
                return True
        except PlaywrightError as error:
            if "not attached" in str(error):
                raise Gone from error
            raise
        options = self.tab.locator("[role=listbox] [role=option]")
        for _ in range(TRIES):  # a page that is drawn again closes the list
            element.query_selector("input, [role=combobox]").click()
            self._wait(lambda: options.count() > 0, 5)
            if options.count():
                break
        others = self.tab.locator("[role=listbox] [role=option]:not([aria-selected=true])")
        if not others.count():
            self.tab.keyboard.press("Escape")
            return False
        others.first.click()
        return True

    def _click(self, element: ElementHandle) -> None:
        """Click; press Enter where another control lies over its middle, as a player on a box."""
        try:
            element.click(timeout=COVERED_AFTER)
        except PlaywrightTimeout:
            element.focus()
            self.tab.keyboard.press("Enter")

    def _patience(self, one: Press) -> float:
        """Seconds within which a press must show something."""
        if self.later.search(one.name):
            return LATER_SECONDS
        return FILE_SECONDS if one.kind == "file" else EFFECT_SECONDS

    def _wait(self, what: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not what() and time.monotonic() < end:
            self.tab.wait_for_timeout(100)

    def _effect(self, one: Press, before: str, url: str, files: int) -> str:
        """What came of a press, in words; "" if nothing did in time."""
        end = time.monotonic() + self._patience(one)
        while time.monotonic() < end:
            if len(self.files) > files:
                return self._open_file(self.files[-1])
            if self.tabs:
                return f"opens {self.tabs[-1].url}"
            if one.kind != "file":
                if _path(self.tab.url) != _path(url):
                    return f"leads to {self.tab.url}"
                if self.tab.url != url:
                    return "address"
                if self.shown(one) != before:
                    return "content"
            self.tab.wait_for_timeout(100)
        reasons = self.tab.locator("[data-testid=stAlertContentError]")
        return "the same reason" if one.kind == "button" and reasons.count() else ""

    def _open_file(self, waiting) -> str:
        path = self.folder / waiting.suggested_filename
        waiting.save_as(path)
        return f"{path.name}, {open_file(path.name, path.read_bytes())}"

    # -------------------------------------------------------------- what takes minutes

    def settle(self) -> None:
        """Wait until the page is at rest and its controls stay; end what is at work meanwhile."""
        end, before, now = time.monotonic() + 120, None, []
        while now != before or not self.is_at_rest():
            assert time.monotonic() < end, f"{self.tab.url} does not come to rest"
            self._end_work()
            self.tab.wait_for_timeout(150)
            before, now = now, self.controls()

    def _end_work(self) -> None:
        """End trainings and tasks by the page's own buttons, or else by what stands behind them."""
        if not any(self._at_work()):
            return
        end = time.monotonic() + 10
        while time.monotonic() < end and any(self._at_work()):
            ends = [p for p in self.controls() if _ends(p)]
            new = [p for p in ends if self.known.get(p.name, "new")]
            if ends and not new:
                break
            if new:
                self.press(new[0])
                return
            self.tab.wait_for_timeout(200)
        self.end_everything()

    def end_everything(self) -> None:
        for stop in self._at_work():
            stop()

    def _at_work(self) -> Iterator[Callable[[], object]]:
        """What ends each training and task that is at work in the home."""
        for kind in ("data", "table"):
            for task in tasks.listing(kind):
                if task.state == "running":
                    yield lambda name=task.id: tasks.stop(name)
        for row in store.list_runs(self.home / "checkpoints"):
            if row["state"] in ("queued", "running"):
                yield lambda run=row["run"]: jobs.stop(run, self.home / "checkpoints", wait=20)


def _of(press: Press) -> tuple[str, str]:
    return press.kind, press.group


def _ends(press: Press) -> bool:
    """Whether a button ends what takes minutes."""
    return press.kind == "button" and bool(ENDS.search(press.name.split(": ")[-1]))


def _path(url: str) -> str:
    return url.partition("?")[0]
