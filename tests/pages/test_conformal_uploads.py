"""The page Conformal on uploaded outputs: people are counted as they are, whatever their names."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.app import assert_no_exception, open_page, page_text

SUBJECTS = {  # names that differ beyond what a page shows, or in what it leaves out of them
    "long": "study-2021-participant-{:04d}",
    "paths": "site/a/very/long/folder/of/people/{}/take",
    "signs": "p<{}>",
}


def outputs(subject: str, blank: bool = False) -> bytes:
    """A csv of 10 calibration and 15 test subjects with 6 points each; blank: of two nobody."""
    rng = np.random.default_rng(0)
    lines = ["set,label,cat,dog,fox,subject"]
    for person in range(25):
        name = subject.format(person)
        name = ["", "N/A"][person % 2] if blank and person in (3, 4) else name
        for _ in range(6):
            o = rng.dirichlet([1, 1, 1])
            label = ("cat", "dog", "fox")[int(rng.choice(3, p=o))]
            part = "cal" if person < 10 else "test"
            values = ",".join(f"{v:.6f}" for v in (*o[:2], 1 - o[:2].round(6).sum()))
            lines.append(f"{part},{label},{values},{name}")
    return "\n".join(lines).encode()


@pytest.mark.parametrize("blank", [False, True])
@pytest.mark.parametrize("kind", SUBJECTS)
def test_subjects_merged_by_their_first_letters_are_counted_apart(home, kind, blank):
    app = open_page("conformal", source="own", step="broken")
    content = outputs(SUBJECTS[kind], blank)
    app.file_uploader(key="lab file").set_value(("own.csv", content, "text/csv")).run()
    calibrate = 8 if blank else 10  # a blank subject is nobody, and no person
    words = f"{calibrate} subjects calibrate, 15 are tested, **none is in both**"
    assert words in page_text(assert_no_exception(app))


def test_a_file_that_a_reload_takes_away_is_named(home):
    app = open_page("conformal", source="own")
    assert "kept for that visit" not in page_text(app)
    app.file_uploader(key="lab file").set_value(("own.csv", outputs("{}"), "text/csv")).run()
    text = page_text(assert_no_exception(app))
    assert "but not your file" in text
    assert "in a terminal" not in text  # an upload has no command
    again = open_page("conformal", source="own", file="own.csv")  # the address is all that stays
    assert "own\\.csv** was kept for that visit alone" in page_text(again)
