"""The paper's entries on a page: an equation beside the function that computes it, the figures' map, the published numbers."""

from __future__ import annotations

from urllib.parse import parse_qsl

import streamlit as st

from core import paper
from core.files import ROOT
from core.paper import PAPER_MAP, MapEntry, SourceCode
from ui.session import query_params

TABLES_PART, ALL_PARTS = "tables", "all"
PART_LABELS = {  # of the page, one at a time: all formulas and sources at once take a browser most of a second
    "game": "§3 The game",
    "networks": "§3 The networks",
    "conformal": "§3.1 Conformal prediction",
    "rest": "§3.2–4.5 Data and measures",
    TABLES_PART: "Figures and numbers",
    ALL_PARTS: "All on one page",
}
CSS = """<style>
[class*=st-key-entry-] .katex {font-size: 1.08em;}
[class*=st-key-entry-] code {font-size: .8rem;}
</style>"""  # so that the widest formula fits half a page at 1280 pixels
MAX_SOURCE_HEIGHT = (
    330  # pixels of a source that is longer than about fifteen lines; the rest is scrolled to
)


def entries_by_part() -> dict[str, list[MapEntry]]:
    """The paper's entries by the part of the page that shows them, in the paper's order."""
    found: dict[str, list[MapEntry]] = {
        part: [] for part in PART_LABELS if part not in (TABLES_PART, ALL_PARTS)
    }
    for e in sorted(PAPER_MAP, key=lambda e: e.section):
        game = "game" if e.tag.startswith("Eq.") else "networks"
        found[{"§3": game, "§3.1": "conformal"}.get(e.section, "rest")].append(e)
    return found


def entry_label(key: str) -> str:
    """An entry in the row of links."""
    entry = next(e for e in PAPER_MAP if e.key == key)
    return (
        f"{entry.tag} {key.replace('_', ' ')}"
        if entry.tag.startswith("§")
        else entry.tag.replace("Eq. (", "(")
    )


def save_equation() -> None:
    """An equation was chosen, or let go."""
    query_params.save_widget("eq", "eq")
    st.session_state["last eq"] = st.session_state["eq"]


def save_part() -> None:
    """Another part was chosen: no equation is looked at any more."""
    query_params.save_widget("part", "part")
    query_params.set_value("eq", None)
    st.session_state["last eq"] = None


@st.cache_data(show_spinner=False, max_entries=256)
def _function_source(function: str, _changed: float) -> SourceCode | str:
    try:
        return paper.read_source_code(function)
    except (ValueError, SyntaxError, OSError) as error:
        return str(error)


def function_source(function: str) -> SourceCode | str:
    """The function as it stands in its file now, or in words why it cannot be shown."""
    path = ROOT.joinpath(*function.partition(":")[0].split(".")).with_suffix(".py")
    return _function_source(f"{function}", path.stat().st_mtime if path.exists() else 0.0)


def apply_css() -> None:
    """Called once by the page."""
    st.html(CSS)


def show_entry(entry: MapEntry) -> None:
    """One entry: what the paper says at the left, what the machine does at the right."""
    with st.container(border=True, key=f"entry-{entry.key.replace('.', '-')}"):
        left, right = st.columns([5, 6], gap="medium")
        with left:
            st.markdown(f"**{entry.tag}** · {entry.what}")
            if entry.latex:
                st.latex(rf"\begin{{aligned}}{entry.latex}\end{{aligned}}")
            if entry.repair:
                st.markdown(f":small[:material/build: **Our repair or choice:** {entry.repair}.]")
            show_page_link(entry.page, "See it at work")
        with right:
            found = function_source(entry.function)
            if isinstance(found, str):
                st.error(found, icon=":material/error:")
                return
            st.caption(
                f"`{entry.function.replace('core.', '').replace(':', '.')}` · {found.file}, line {found.line}"
            )
            long = len(found.text.splitlines()) > 15
            st.code(
                found.text,
                language="python",
                height=MAX_SOURCE_HEIGHT if long else "content",
                wrap_lines=True,
            )


def show_page_link(where: str, label: str) -> None:
    """A link to a page of the app, if there is such a page."""
    page, _, query = where.partition("?")
    if page in query_params.page_names():
        st.page_link(
            f"pages/{page}.py",
            label=label,
            icon=":material/arrow_forward:",
            query_params=dict(parse_qsl(query)),
        )


# ------------------------------------------------------------------ figures and numbers


def show_figures() -> None:
    """The paper's figures and tables: where the app shows ours, and the command that writes them."""
    for one in paper.FIGURES:
        a, b, c = st.columns([4, 2, 4], gap="small", vertical_alignment="center")
        a.markdown(f"**{one.tag}** · {one.what}")
        page = one.page.partition("?")[0]
        with b:
            show_page_link(one.page, page.capitalize() if page != "condition" else "Condition lab")
        if one.command:
            c.markdown(f"`{one.command}`")


def show_published_numbers() -> None:
    """Tables 1 and 2 as they were published."""
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown("**Table 2** · trained on real and generated voices, tested on real ones")
        corpora = list(paper.PUBLISHED_TABLE_2)
        rows = [
            "| | " + " | ".join(f"{c}: accuracy (%) | FID | IS" for c in corpora) + " |",
            "|---|" + "---:|" * 3 * len(corpora),
        ]
        for name in dict.fromkeys(k for of in paper.PUBLISHED_TABLE_2.values() for k in of):
            cells = [
                [*paper.PUBLISHED_TABLE_2[c].get(name, ()), None, None, None][:3] for c in corpora
            ]
            rows.append(
                f"| {name} | "
                + " | ".join("–" if v is None else f"{v:.2f}" for of in cells for v in of)
                + " |"
            )
        st.markdown("\n".join(rows))
    with right:
        st.markdown("**Table 1** · CREMA-D, accuracy (%)")
        kinds = list(dict.fromkeys(k for of in paper.PUBLISHED_TABLE_1.values() for k in of))
        rows = ["| | " + " | ".join(kinds) + " |", "|---|" + "---:|" * len(kinds)]
        rows += [
            f"| {name} | " + " | ".join(f"{of[k]:.2f}" for k in kinds) + " |"
            for name, of in paper.PUBLISHED_TABLE_1.items()
        ]
        st.markdown("\n".join(rows))
    st.caption(
        "FID and IS depend on the network that scores: these compare with each other, and never with ours. "
        + " ".join(paper.CONFLICTING_NUMBERS)
    )
    show_page_link("evaluate", "Ours, beside these")


# ------------------------------------------------------------------ scrolling

JS = """export default function ({ data, parentElement }) {
  if (!data.key || parentElement.turn === data.turn) return
  parentElement.turn = data.turn
  const go = (behavior) => {
    document.querySelectorAll(".found-entry").forEach((e) => { e.style.boxShadow = ""; e.classList.remove("found-entry") })
    const entry = document.querySelector(`.st-key-entry-${data.key}`)
    if (!entry) return
    entry.classList.add("found-entry")
    entry.style.boxShadow = "0 0 0 2px var(--st-primary-color, #0b6570)"
    entry.style.scrollMarginTop = "4.5rem"
    entry.scrollIntoView({ behavior, block: "start" })
  }
  const later = [60, 500, 1200].map((t) => setTimeout(go, t, "auto"))  // formulas find their height late
  const stop = () => later.forEach(clearTimeout)
  for (const kind of ["wheel", "touchmove", "keydown"]) window.addEventListener(kind, stop, { once: true, passive: true })
  return stop
}"""
_scroll_component = st.components.v2.component("dacssgan_scroll", js=JS)


def scroll_to(key: str, turn: str) -> None:
    """Brings the entry `key` into sight and frames it, once for each `turn`."""
    _scroll_component(key="scroll", data={"key": key.replace(".", "-"), "turn": turn}, height=1)
