"""Each download of the pages of trained runs gives a file, as the server reads it: off the page."""

from __future__ import annotations

from pathlib import Path

import pytest
import streamlit as st

from tests.support import trained_runs
from tests.support.app import open_page
from tests.support.opened_files import open_file

VOICE_VIEWS = {
    "train": ({}, {".txt"}),
    "gallery": ({}, {".csv", ".zip"}),
    "condition": ({"face": "drawn-happy"}, {".wav", ".npz"}),
}


@pytest.fixture
def offered(monkeypatch) -> list[tuple[str, object]]:
    """Name and content of each download button that a page draws."""
    found, draw = [], st.download_button

    def record(label, data, file_name, *args, **more):
        found.append((file_name, data))
        return draw(label, data, file_name, *args, **more)

    monkeypatch.setattr(st, "download_button", record)
    return found


def assert_files(offered, kinds: set[str]) -> None:
    """Every content is read, as on a click, by a thread that runs no page."""
    assert {Path(name).suffix for name, _ in offered} == kinds
    for name, content in offered:
        data = content() if callable(content) else content
        data = data.encode() if isinstance(data, str) else data
        open_file(name, data)


@pytest.mark.parametrize("page", VOICE_VIEWS)
def test_downloads_of_runs_that_make_voices(own_trained_home, offered, page):
    query, kinds = VOICE_VIEWS[page]
    run = trained_runs.the_run()
    (run.directory / "log.txt").write_text("train G, D, Q\n")
    open_page(page, run=run.id, **query)
    assert_files(offered, kinds)


def test_downloads_of_a_path_between_two_conditions(own_trained_home, offered):
    open_page("condition", face="drawn-happy", view="emotions", n="8")
    assert_files(offered, {".wav", ".npz"})


@pytest.mark.parametrize("length", ["One second", "Whole clip"])
def test_downloads_of_a_clip_and_its_voices(landmark_model, offered, length):
    app = open_page("listen").radio(key="example").set_value("drawn").run()
    offered.clear()
    app.segmented_control(key="length").set_value(length).run()
    kinds = {".wav", ".npy", ".json"} if length == "Whole clip" else {".wav", ".npy"}
    assert_files(offered, kinds)


def test_downloads_of_faces(home, tmp_path_factory, offered):
    turned = trained_runs.reverse_home(tmp_path_factory.getbasetemp() / "turned")
    trained_runs.copy_home(turned, home)
    open_page("reverse")
    assert_files(offered, {".png", ".npy", ".csv"})
