"""The page Paper: entries with formula and source, the figures' map, published numbers, links."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from core.paper import equations, published
from core.paper.equations import FIGURES, PAPER_MAP
from tests.support.app import assert_no_exception, count_elements, open_page, page_text
from ui import paper as shown

ROOT = Path(__file__).resolve().parents[2]


def every_page() -> set[str]:
    return set(re.findall(r'^    "(\w+)": "', (ROOT / "router.py").read_text(), re.MULTILINE))


# --- the map -----------------------------------------------------------------------


def test_every_entry_has_a_name_of_its_own_a_section_and_a_page():
    assert len({e.key for e in PAPER_MAP}) == len(PAPER_MAP)
    assert all(re.fullmatch(r"[\w-]+", e.key) for e in PAPER_MAP)
    assert all(re.fullmatch(r"§\d(\.\d)?", e.section) for e in PAPER_MAP)
    assert {e.page.partition("?")[0] for e in PAPER_MAP} | {
        f.page.partition("?")[0] for f in FIGURES
    } <= every_page()
    assert {str(n) for n in range(1, 12)} <= {e.key for e in PAPER_MAP}


def test_entries_stand_in_the_paper_s_order_each_in_one_part():
    parts = shown.entries_by_part()
    sections = [e.section for of in parts.values() for e in of]
    assert sections == sorted(sections, key=lambda s: [float(k) for k in s[1:].split(".")])
    assert [e.key for e in parts["game"]] == list("1234567")
    assert sum(map(len, parts.values())) == len(PAPER_MAP)
    assert all(parts.values())


@pytest.mark.parametrize("entry", PAPER_MAP, ids=lambda e: e.key)
def test_a_source_is_what_python_would_say(entry):
    import importlib

    found = equations.read_source_code(entry.function)
    module, name = entry.function.split(":")
    real = getattr(importlib.import_module(module), name)
    lines, first = inspect.getsourcelines(inspect.unwrap(real))
    assert found.text == "".join(lines).rstrip("\n")
    assert found.line == first
    assert (ROOT / found.file).read_text().splitlines()[found.line - 1] == found.text.splitlines()[
        0
    ]
    ast.parse(found.text)


@pytest.mark.parametrize(
    "function",
    ["core.models.losses:nothing", "core.nowhere:x", "core.conformal.prediction:p_values.x"],
)
def test_a_source_that_is_not_there_is_named(function):
    with pytest.raises(ValueError, match=r"losses|nowhere|conformal"):
        equations.read_source_code(function)


def test_sources_are_read_without_torch():
    script = (
        "import sys\nfrom core.paper import equations\n"
        "[equations.read_source_code(e.function) for e in equations.PAPER_MAP]\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_figures_and_tables_of_the_paper_are_all_in_the_map():
    tags = " ".join(f.tag for f in FIGURES)
    assert all(f"Fig. {n}" in tags for n in range(1, 12))
    assert "Table 1" in tags
    assert "Table 2" in tags


@pytest.mark.parametrize("command", sorted({f.command for f in FIGURES} - {""}))
def test_commands_of_the_map_are_understood(command):
    words = command.split()
    assert words[:3] == ["python", "-m", "core"]
    done = subprocess.run(
        [sys.executable, *words[1:], "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_each_departure_is_one_line_of_the_map_and_of_the_documents():
    departures = {e.tag: e.departure for e in PAPER_MAP if e.departure}
    assert {"Eq. (4)", "Eq. (6)", "Eq. (10)", "§3.2", "Alg. 1", "Fig. 4a"} <= set(departures)
    documents = (ROOT / "docs" / "equations.md").read_text()
    for text in departures.values():
        assert text in documents
        assert "\n" not in text


# --- the page ----------------------------------------------------------------------


def test_departures_stand_beside_their_equations_and_choices_below(home):
    text = page_text(open_page("paper", part="game"))
    for e in shown.entries_by_part()["game"]:
        assert e.departure in text
    assert "3136" in text
    choices = page_text(open_page("paper", part="tables"))
    assert all(c.what in choices for c in published.CHOICES)


def test_everything_can_be_on_one_page(home):
    app = open_page("paper", part="all")
    assert count_elements(app, "latex") == sum(bool(e.latex) for e in PAPER_MAP)
    codes = [c.value for c in app.code]
    for entry in PAPER_MAP:
        assert equations.read_source_code(entry.function).text in codes, entry.key
    words = page_text(app)
    for entry in PAPER_MAP:
        assert entry.what in words
        assert entry.repair in words
    first = equations.read_source_code(PAPER_MAP[0].function)
    assert f"{first.file}, line {first.line}" in words
    assert first.file.count("/") == 2  # the whole path: core/package/module.py
    assert "52.52" in words  # Table 2's best
    assert all(
        f"{v:.2f}" in words
        for of in published.PUBLISHED_TABLE_2.values()
        for row in of.values()
        for v in row
    )
    assert all(f.command in words for f in FIGURES)
    assert count_elements(app, "error") == 0
    assert count_elements(app, "bidi_component") == 0


def test_an_equation_is_chosen_by_the_address(home):
    app = open_page("paper", eq="8")
    assert app.pills(key="eq").value == "8"
    assert count_elements(app, "bidi_component") == 1
    assert_no_exception(app.pills(key="eq").set_value("alg-1").run())
    assert app.query_params["eq"] == "alg-1"
    assert_no_exception(app.pills(key="eq").set_value(None).run())
    assert "eq" not in app.query_params
    assert app.segmented_control(key="part").value == "conformal"  # where it was


def test_a_part_is_shown_at_a_time_and_an_equation_finds_its_own(home):
    app = open_page("paper")
    assert [c.value for c in app.code] == [
        equations.read_source_code(e.function).text for e in shown.entries_by_part()["game"]
    ]
    assert_no_exception(app.pills(key="eq").set_value("fig-8").run())
    assert app.segmented_control(key="part").value == "rest"
    assert_no_exception(app.segmented_control(key="part").set_value("tables").run())
    assert app.pills(key="eq").value is None
    assert count_elements(app, "code") == 0
    assert "52.52" in page_text(app)
    assert_no_exception(app.segmented_control(key="part").set_value("all").run())
    assert_no_exception(app.pills(key="eq").set_value("8").run())
    assert app.segmented_control(key="part").value == "all"
    assert open_page("paper", eq="10", part="game").segmented_control(key="part").value == "rest"


@pytest.mark.parametrize("strange", ["0", "12", "<b>", "../8"])
def test_a_strange_equation_is_none(home, strange):
    app = open_page("paper", eq=strange)
    assert app.pills(key="eq").value is None
    assert "eq" not in app.query_params


def test_links_lead_where_the_map_says(home):
    app = open_page("paper", part="all")
    there = {p.stem for p in (ROOT / "pages").glob("*.py")}
    links = [e.proto for e in app.get("page_link") if e.proto.label.endswith(" at work")]
    assert len({link.label for link in links}) == len(links)  # a list of links tells them apart
    named = [
        e.page
        for of in shown.entries_by_part().values()
        for e in of
        if e.page and e.page.partition("?")[0] in there
    ]
    assert len(links) == len(named)
    for link, page in zip(links, named):
        assert all(v in str(link) for _, v in parse_qsl(page.partition("?")[2]))


def test_a_function_that_is_gone_is_said_in_its_place(home, monkeypatch):
    monkeypatch.setattr(
        shown,
        "function_source",
        lambda function: f"{function} is not there; core/paper/equations.py names it",
    )
    app = open_page("paper", part="all")
    assert len(app.error) == len(PAPER_MAP)
    assert "core/paper/equations.py names it" in app.error[0].value
