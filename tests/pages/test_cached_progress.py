"""What draws its progress is kept outside of Streamlit's cache, which would draw it again."""

from __future__ import annotations

import ast

import pytest
from streamlit.testing.v1 import AppTest

from core.files import ROOT, UserError
from tests.support.app import assert_no_exception
from ui.session.cache import cache_with_progress

DRAWS = {"_report", "_show", "_bar"}  # arguments of functions that draw while they work


def draw() -> None:
    """A page whose layout changes between two visits to one result."""
    import streamlit as st

    from ui.session.cache import cache_with_progress

    @cache_with_progress(4)
    def result(directory, words, _report):
        _report(f"working on {words}")
        st.session_state["calls"] = st.session_state.get("calls", 0) + 1
        return words.upper()

    for _ in range(st.session_state.get("before", 0)):
        st.columns(2)
    place = st.columns(2)[1].empty()
    word = st.session_state.get("word", "one")
    st.write(result("run", word, place.caption))


def test_a_result_is_found_again_wherever_its_progress_was_drawn(home):
    app = assert_no_exception(AppTest.from_function(draw).run())
    assert app.caption[0].value == "working on one"
    for word, calls in (("two", 2), ("one", 2), ("two", 2)):
        app.session_state["word"] = word
        app.session_state["before"] = calls + len(word)
        assert_no_exception(app.run())
        assert app.markdown[0].value == word.upper()
        assert app.session_state["calls"] == calls
    assert not app.caption  # nothing is drawn for a result that is there


def test_a_failure_is_not_kept(home):
    answers = [UserError("no room"), "done"]

    @cache_with_progress(4)
    def result(directory, _report):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(UserError):
        result("run", print)
    assert result("run", print) == "done"
    assert result("run", print) == "done"


def test_no_function_of_streamlits_cache_draws():
    found = []
    for path in sorted((ROOT / "ui").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef) or not DRAWS & {a.arg for a in node.args.args}:
                continue
            decorators = " ".join(map(ast.unparse, node.decorator_list))
            if "cache" in decorators:
                found.append(node.name)
                assert "cache_with_progress" in decorators, f"{path}: {node.name}"
    assert {"heard_emotions", "speaking_film"} <= {*found}
