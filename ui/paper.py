"""The page Paper: each equation beside the function that computes it, and the figures' map."""

from __future__ import annotations

from urllib.parse import parse_qsl

import streamlit as st

from core.files import ROOT
from core.paper import equations, published
from core.paper.equations import PAPER_MAP, MapEntry, SourceCode
from ui.session import query_params

TABLES_PART, GLOSSARY_PART, ALL_PARTS = "tables", "glossary", "all"
PART_LABELS = {  # one part is shown at a time: all take a browser most of a second to draw
    "game": "§3 The game",
    "networks": "§3 The networks",
    "conformal": "§3.1 Conformal prediction",
    "rest": "§3.2–4.5 Data and measures",
    TABLES_PART: "Figures and numbers",
    GLOSSARY_PART: "Glossary",
    ALL_PARTS: "All on one page",
}
CSS = """<style>
[class*=st-key-entry-] .katex {font-size: 1.08em;}
[class*=st-key-entry-] code {font-size: .8rem;}
</style>"""  # the widest formula fits half a page at 1280 pixels
MAX_SOURCE_LINES = 30  # a longer source is folded


def entries_by_part() -> dict[str, list[MapEntry]]:
    """The paper's entries by the part of the page that shows them, in the paper's order."""
    others = (TABLES_PART, GLOSSARY_PART, ALL_PARTS)
    names = [part for part in PART_LABELS if part not in others]
    entries: dict[str, list[MapEntry]] = {part: [] for part in names}
    for e in sorted(PAPER_MAP, key=lambda e: e.section):
        game = "game" if e.tag.startswith("Eq.") else "networks"
        entries[{"§3": game, "§3.1": "conformal"}.get(e.section, "rest")].append(e)
    return entries


def entry_label(key: str) -> str:
    """An entry's label in the row of links, such as "(8)"."""
    entry = next(e for e in PAPER_MAP if e.key == key)
    if entry.tag.startswith("§"):
        return f"{entry.tag} {key.replace('_', ' ')}"
    return entry.tag.replace("Eq. (", "(")


def save_equation() -> None:
    """Callback: an equation was chosen or deselected."""
    query_params.save_widget("eq", "eq")
    st.session_state["last eq"] = st.session_state["eq"]


def save_part() -> None:
    """Callback: another part was chosen, which deselects the equation."""
    query_params.save_widget("part", "part")
    query_params.set_value("eq", None)
    st.session_state["last eq"] = None


@st.cache_data(show_spinner=False, max_entries=256)
def _function_source(function: str, _changed: float) -> SourceCode | str:
    try:
        return equations.read_source_code(function)
    except (ValueError, SyntaxError, OSError) as error:
        return str(error)


def function_source(function: str) -> SourceCode | str:
    """The function as it is in its file now, or a text that says why it cannot be shown."""
    path = ROOT.joinpath(*function.partition(":")[0].split(".")).with_suffix(".py")
    return _function_source(function, path.stat().st_mtime if path.exists() else 0.0)


def apply_css() -> None:
    """Called once by the page."""
    st.html(CSS)


def show_entry(entry: MapEntry) -> None:
    """One entry: the paper's equation at the left, the code that computes it at the right."""
    with st.container(border=True, key=f"entry-{entry.key.replace('.', '-')}"):
        left, right = st.columns([5, 6], gap="medium")
        with left:
            st.markdown(f"**{entry.tag}** · {entry.what}")
            if entry.latex:
                st.latex(rf"\begin{{aligned}}{entry.latex}\end{{aligned}}")
            if entry.repair:
                st.markdown(f":small[:material/build: **Our repair or choice:** {entry.repair}.]")
            if entry.departure:
                st.markdown(
                    f":small[:material/fork_right: **Where ours departs:** {entry.departure}.]"
                )
            name = entry.tag if entry.tag.startswith(("Eq", "Alg", "Fig")) else entry.what
            show_page_link(entry.page, f"See {name} at work")
        with right:
            source = function_source(entry.function)
            if isinstance(source, str):
                st.error(source, icon=":material/error:")
                return
            name = entry.function.partition(":")[2]
            st.caption(f"`{name}` · {source.file}, line {source.line}")
            lines = len(source.text.splitlines())
            folded = lines > MAX_SOURCE_LINES
            place = st.expander(f"{name}: {lines} lines") if folded else st.container()
            place.code(source.text, language="python", wrap_lines=True)


def show_page_link(where: str, label: str) -> None:
    """A link to a page and its query, `where` = "page?query"; nothing if there is no such page."""
    page, _, query = where.partition("?")
    if page in query_params.page_names():
        go = {"icon": ":material/arrow_forward:", "query_params": dict(parse_qsl(query))}
        st.page_link(f"pages/{page}.py", label=label, **go)


# ------------------------------------------------------------------ figures and numbers


def show_figures() -> None:
    """The paper's figures and tables: the page that shows ours, and the command that makes them."""
    for one in equations.FIGURES:
        a, b, c = st.columns([4, 2, 4], gap="small", vertical_alignment="center")
        a.markdown(f"**{one.tag}** · {one.what}")
        page = one.page.partition("?")[0]
        with b:
            show_page_link(one.page, page.capitalize() if page != "condition" else "Condition lab")
        if one.command:
            c.markdown(f"`{one.command}`")


def show_choices() -> None:
    """What the paper leaves open, and what the preset `paper` has there."""
    rows = [(c.what, c.choice, c.why) for c in published.CHOICES]
    st.markdown(equations.markdown_table(("not in the paper", "preset `paper`", "why"), rows))


def show_published_numbers() -> None:
    """Tables 1 and 2 as they were published."""
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown("**Table 2** · trained on real and generated voices, tested on real ones")
        table = published.PUBLISHED_TABLE_2
        names = dict.fromkeys(k for rows in table.values() for k in rows)
        rows = {}
        for name in names:  # a row of fewer than three values ends with dashes
            cells = [[*of.get(name, ()), None, None, None][:3] for of in table.values()]
            rows[name] = [v for of in cells for v in of]
        _show_table([f"{corpus}: accuracy (%) | FID | IS" for corpus in table], rows)
    with right:
        st.markdown("**Table 1** · CREMA-D, accuracy (%)")
        table = published.PUBLISHED_TABLE_1
        kinds = list(dict.fromkeys(k for row in table.values() for k in row))
        _show_table(kinds, {name: [row[k] for k in kinds] for name, row in table.items()})
    st.caption(
        "FID and IS depend on the network that scores: these compare with each other, and never "
        f"with ours. {' '.join(published.CONFLICTING_NUMBERS)}"
    )
    show_page_link("evaluate", "Ours, beside these")


def _show_table(header: list[str], rows: dict[str, list[float | None]]) -> None:
    """A Markdown table of numbers; a header cell may hold several columns, divided by "|"."""
    columns = len(next(iter(rows.values())))
    lines = [f"| | {' | '.join(header)} |", "|---|" + "---:|" * columns]
    for name, values in rows.items():
        cells = " | ".join("–" if v is None else f"{v:.2f}" for v in values)
        lines.append(f"| {name} | {cells} |")
    st.markdown("\n".join(lines))


# ------------------------------------------------------------------ scrolling

JS = """export default function ({ data, parentElement }) {
  if (!data.key || parentElement.turn === data.turn) return
  parentElement.turn = data.turn
  const go = (behavior) => {
    document.querySelectorAll(".found-entry").forEach((e) => {
      e.style.boxShadow = ""
      e.classList.remove("found-entry")
    })
    const entry = document.querySelector(`.st-key-entry-${data.key}`)
    if (!entry) return
    entry.classList.add("found-entry")
    entry.style.boxShadow = "0 0 0 2px var(--st-primary-color, #0b6570)"
    entry.style.scrollMarginTop = "4.5rem"
    entry.scrollIntoView({ behavior, block: "start" })
  }
  const later = [60, 500, 1200].map((t) => setTimeout(go, t, "auto"))  // ms; formulas grow late
  const stop = () => later.forEach(clearTimeout)
  const once = { once: true, passive: true }
  for (const kind of ["wheel", "touchmove", "keydown"]) window.addEventListener(kind, stop, once)
  return stop
}"""
_scroll_component = st.components.v2.component("dacssgan_scroll", js=JS)


def scroll_to(key: str, turn: str) -> None:
    """Scroll to the entry `key` and frame it, once for each `turn`."""
    data = {"key": key.replace(".", "-"), "turn": turn}
    _scroll_component(key="scroll", data=data, height=1)
