"""Back, Forward and links: an address shows what it names, and pages keep what was chosen."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest

from tests.support.app import assert_no_exception, open_page, page_text
from ui import glossary
from ui.home import diagram


def arrive(app, is_new: bool, page: str = ""):
    """A page without parameters: by Back on the same page, or from another page.

    AppTest runs a page without the router, which would say what `is_new` says.
    """
    app.query_params.clear()
    app.session_state["is arrival"] = is_new
    if page:
        app.switch_page(f"pages/{page}.py")
    return assert_no_exception(app.run())


def test_back_restores_the_first_view_and_a_link_the_last(home):
    app = open_page("train")
    assert_no_exception(app.selectbox(key="preset").set_value("demo").run())
    assert app.query_params["preset"] in ("demo", ["demo"])
    assert arrive(app, False).selectbox(key="preset").value == "stage"
    assert_no_exception(app.selectbox(key="preset").set_value("demo").run())
    arrive(app, True, "paper")
    assert arrive(app, True, "train").selectbox(key="preset").value == "demo"
    assert app.query_params["preset"] in ("demo", ["demo"])


def test_the_router_tells_a_page_that_is_new_from_one_that_runs_again():
    def show() -> None:
        import streamlit as st

        from ui.session import query_params

        query_params.note_page(st.session_state["asked"])

    app, told = AppTest.from_function(show), []
    for name in ("Home", "Home", "Paper", "Home"):
        app.session_state["asked"] = name
        told.append(assert_no_exception(app.run()).session_state["is arrival"])
    assert told == [True, False, True, True]


def test_boxes_that_promise_confusions_lead_to_them():
    ways = diagram.link_targets("demo-cp-1", ["evaluate", "train"])
    for box in ("f_S", "Q"):
        assert ways[box] == ("evaluate", {"view": "confusion", "runs": "demo-cp-1"})
    assert ways["G"] == ("train", {"run": "demo-cp-1"})


def test_every_term_is_explained_once(home):
    text = page_text(open_page("paper", part="glossary"))
    terms = [term for group in glossary.TERMS.values() for term in group]
    assert len(set(terms)) == len(terms)
    for term in terms:
        assert text.count(f"**{term}**") == 1
    for needed in ("Calibration set", "Exchangeable", "Credibility", "Judge (scorer)", "FID"):
        assert needed in terms
