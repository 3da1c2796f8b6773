"""`make costs`: the fitted exponent is the law's; each growth has a row and a picture."""

import numpy as np
import pytest

from benchmarks import grids, scaling
from core.config.settings import replace
from core.evaluation.augmentation import TableSettings
from tests.support.small_pipeline import TINY


@pytest.mark.parametrize("b", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_law_is_found(b):
    sizes = np.array([1, 10, 100, 1000])
    slope, error, a = scaling.power_law(sizes, 3e-4 * sizes**b)
    assert (slope, a) == (pytest.approx(b, abs=1e-12), pytest.approx(3e-4))
    assert error == pytest.approx(0, abs=1e-9)


def test_the_standard_error_is_that_of_repeated_experiments():
    rng, sizes = np.random.default_rng(0), np.geomspace(1, 1000, 8)
    slopes, errors, _ = np.array(
        [scaling.power_law(sizes, sizes * np.exp(0.1 * rng.normal(size=8))) for _ in range(2000)]
    ).T
    assert slopes.mean() == pytest.approx(1, abs=0.005)
    assert np.sqrt((errors**2).mean()) == pytest.approx(slopes.std(), rel=0.05)


@pytest.mark.parametrize(
    ("sizes", "times"),
    [([1, 2], [1, 2]), ([1, 2, 3], [1, 2, 0]), ([2, 2, 2], [1, 2, 3]), ([1, 2, 3], [1, 2])],
)
def test_what_no_law_can_be_fitted_to_is_refused(sizes, times):
    with pytest.raises(ValueError, match="three different positive sizes"):
        scaling.power_law(sizes, times)


@pytest.mark.slow
def test_each_growth_is_drawn_and_told(tmp_path, monkeypatch, capsys):
    small = {
        "calibration": (10, 20, 40, 80),
        "rows": (10, 20, 40, 80),
        "batch": (2, 4, 8),
        "pairs": (16, 32, 48),
        "classes": (2, 3, 4),
    }
    monkeypatch.setattr(scaling, "SIZES", small | {"stack": (1, 2, 3)})
    monkeypatch.setattr(scaling, "STEPS", 1)
    monkeypatch.setattr(scaling, "REPEATS", 1)
    monkeypatch.setattr(scaling, "FOLDER", tmp_path)
    scaling.main()
    said, written = capsys.readouterr().out, (tmp_path / "README.md").read_text()
    pictures = sorted(p.stem for p in tmp_path.glob("*.png"))
    assert {*small} <= {*pictures} <= {*small, "stack"}
    assert said.count("exponent") == len(pictures)
    assert written.count("±") == len(pictures)
    assert all(f"({key}.png)" in written for key in pictures)
    assert all(p.stat().st_size < 60_000 for p in tmp_path.glob("*.png"))


def test_a_busy_machine_is_said():
    g = scaling.Growth("rows", "work", "things", (1, 2, 4), ((0.1, 0.2), (0.2, 0.3), (2.0, 3.0)))
    assert "idle" in scaling.table([g], 0.1)
    assert "took about 1.9 processors" in scaling.table([g], 1.9)
    assert "1: 150 ms (100–200) | 4: 2.5 s (2–3)" in scaling.table([g], 0.1)


def test_a_grids_page_has_its_parts_and_its_grids(tmp_path, monkeypatch, capsys):
    """On the tiny preset: a grid of two runs; films are not prepared."""
    monkeypatch.setattr(grids, "FILMS", 2)
    monkeypatch.setattr(grids, "seconds_a_film", lambda: 0.5)
    monkeypatch.setattr(grids, "PRESETS", {"paper": TINY, "tiny": replace(TINY, gan={"z": 4})})
    monkeypatch.setattr(grids, "GRIDS", (("studio", "tiny", 2, 1, TableSettings()),))
    monkeypatch.setattr(grids, "PAGE", tmp_path / "grids.md")
    grids.main()
    text = grids.PAGE.read_text()
    assert "| prepare 7,442 films, at the rate of 2 drawn ones | 3,721 |" in text
    assert "| studio, preset `tiny`, with tables | 1 × 2 × 1 = 2 | 0.0 | 0.0 |" in text
    assert capsys.readouterr().out.count(" s\n") == 3
