"""What the tests of preparation share."""

import pytest

from tests.support.small_corpora import write_demo_clips
from tests.support.trained_runs import install_landmark_model


@pytest.fixture
def processed(tmp_path, monkeypatch):
    """The folder of prepared corpora, in a home of the test's own."""
    monkeypatch.setenv("DACSSGAN_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "processed"


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Two clips of the invented corpus, as mp4 and wav."""
    folder = tmp_path_factory.mktemp("films")
    install_landmark_model(folder)
    return write_demo_clips(folder)
