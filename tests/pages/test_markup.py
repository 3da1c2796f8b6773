"""Names and texts of strangers are shown letter by letter."""

import pytest

from ui import theme

MARKUP = ['<img src="http://192.0.2.1/x.png">', "![x](http://192.0.2.1/x.png)", "a & b", "`*_x_*`"]


@pytest.mark.parametrize("name", MARKUP)
def test_an_emotions_name_is_no_markup(name):
    shown = theme.emotion_html(name)
    assert "<img" not in shown
    assert shown.count("<") == 2  # the dot alone


@pytest.mark.parametrize("name", MARKUP)
def test_markdown_is_escaped_and_stays_one_line(name):
    shown = theme.escape_markdown(f"{name}\n# title")
    assert "\n" not in shown
    assert "![" not in shown
    assert shown.replace("\\", "") == f"{name} # title"
