"""Every button, view, link and file of every page: on a fresh machine, and with a corpus."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from unittest import mock

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from core.experiments import jobs, tasks
from core.files import ROOT, UserError
from core.runs import store
from tests.support import trained_runs
from tests.support.app import assert_no_exception, open_page

PAGES: dict[str, dict[str, str]] = {p.stem: {} for p in sorted((ROOT / "pages").glob("*.py"))}
PAGES["condition"] = {"face": "drawn-happy"}
VIEWS = "segmented_control", "radio"  # one of a few is shown
REASON = "no room on this machine"  # why nothing is trained or drawn here
LATER = {"device"}  # keys of choices that act when a training starts
Act = Callable[[], object]


@pytest.fixture
def machine(own_trained_home, landmark_model, monkeypatch) -> None:
    """Finished runs with their corpus; what would take minutes is refused with a reason."""
    monkeypatch.setattr(jobs, "start", mock.Mock(side_effect=UserError(REASON)))
    monkeypatch.setattr(tasks, "start", mock.Mock(side_effect=OSError(REASON)))


@pytest.fixture
def files(monkeypatch) -> dict[str, object]:
    """Content of the downloads that pages draw, by the files' names."""
    found: dict[str, object] = {}
    draw = st.download_button

    def record(label, data, file_name, *args, **more):
        found[file_name] = data
        return draw(label, data, file_name, *args, **more)

    monkeypatch.setattr(st, "download_button", record)
    return found


def nodes(app: AppTest) -> Iterator:
    todo = [app._tree]
    while todo:
        node = todo.pop()
        yield node
        todo += getattr(node, "children", {}).values()


def look(app: AppTest) -> str:
    """All that a page shows, and its address, as a digest."""
    digest = hashlib.sha256(repr(sorted(app.query_params.items())).encode())
    for node in nodes(app):
        if proto := getattr(node, "proto", None):
            digest.update(proto.SerializeToString(deterministic=True))
    return digest.hexdigest()


def controls(app: AppTest) -> dict[str, list[tuple[str, Act]]]:
    """What can be pressed: a control's name -> the name of each press, and the press."""
    found: dict[str, list[tuple[str, Act]]] = {}
    for b in app.button:
        if not b.disabled:
            found[f"button {b.key or b.label}"] = [(b.label, lambda b=b: click(app, b))]
    for kind in VIEWS:
        for c in app.get(kind):
            if c.disabled or c.key in LATER:
                continue
            others = [o for o in shown_options(c) if o != c.format_func(c.value)]
            found[f"{kind} {c.key}"] = [(o, lambda c=c, o=o: choose(app, c, o)) for o in others]
    return found


def shown_options(control) -> list[str]:
    """The options' words, with the icons that a segmented control parts from them."""
    if control.type == "radio":
        return control.options
    return [f"{o.content_icon} {o.content}".strip() for o in control.proto.options]


def click(app: AppTest, button) -> None:
    """Click a button that may be drawn anew."""
    next(b for b in app.button if (b.key, b.label) == (button.key, button.label)).click().run()


def choose(app: AppTest, control, option: str) -> None:
    """Press an option, by the words that are shown, of a control that may be drawn anew."""
    now = next(c for c in app.get(control.type) if c.key == control.key)
    own = type(now).format_func.fget

    def shown(one):
        return lambda v: v if one is now and v == option else own(one)(v)

    with mock.patch.object(type(now), "format_func", property(shown)):
        now.set_value(option).run()


def press_all(app: AppTest, known: set[str]) -> list[str]:
    """Press everything that is not `known`, and all that appears with it.

    Returns what had no effect.
    """
    dead, new = [], {k: v for k, v in controls(app).items() if k not in known}
    known |= set(new)
    for name, presses in new.items():
        for option, press in presses:
            before = look(app)
            try:
                press()
            except (KeyError, StopIteration):  # it went with another control
                continue
            assert_no_exception(app)
            if look(app) == before and not app.error:  # an error says the reason, even again
                dead.append(f"{name}: {option}")
            dead += press_all(app, known)
    return dead


@pytest.mark.parametrize("state", ["fresh", "corpus"])
@pytest.mark.parametrize("page", PAGES)
def test_everything_that_can_be_pressed_has_an_effect(
    machine, own_trained_home, files, page, state
):
    if state == "fresh":
        shutil.rmtree(own_trained_home / "data")
    if page == "reverse":
        (run,) = (r for r in trained_runs.SHIPPED if r.name.startswith("demo-reverse"))
        shutil.copytree(run, own_trained_home / "checkpoints" / run.name)
        store.index_existing()
    app = open_page(page, **PAGES[page])
    assert press_all(app, set()) == []
    for name, content in files.items():
        if not name.endswith(".zip"):  # of seconds; tested with what it holds
            assert content() if callable(content) else content, name


def test_every_link_of_a_page_leads_to_a_page(machine):
    asked = set()
    for page, query in PAGES.items():
        app = open_page(page, **query)
        asked |= {(k.proto.page, k.proto.query_string) for k in app.get("page_link")}
    assert len(asked) > len(PAGES)
    for page, query in asked:
        given = dict(part.split("=") for part in query.split("&") if part)
        app = open_page(page, **given)
        assert not app.error, (page, query)
        assert given.keys() <= {*app.query_params}, (page, query)  # it is read, not dropped
