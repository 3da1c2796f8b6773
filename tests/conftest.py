"""What several test files share.

One thread per process, so that figures do not depend on the machine's cores.
"""

import functools
import os
from pathlib import Path

os.environ.update(
    OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MPLBACKEND="Agg"
)  # before they are read

import pytest
from hypothesis import settings

from tests.support.app import (
    chromium,
    home,
    landmark_model,
    own_trained_home,
    page,
    server,
    studio,
    visited_home,
    visited_studio,
)
from tests.support.small_pipeline import demo_world, finished_run

settings.register_profile(
    "tests", derandomize=True, deadline=None, print_blob=True
)  # the same examples every time, whatever the load
settings.load_profile("tests")


@pytest.fixture(scope="session", autouse=True)
def no_flushing():
    """Files of tests need not outlive a loss of power; to wait for the disk takes minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_scan_for_components():
    """Streamlit reads the metadata of all installed packages for each AppTest: half its time."""
    from streamlit.components.v2 import manifest_scanner

    scan = functools.cache(manifest_scanner.scan_component_manifests)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", scan)
        yield


def pytest_collection_modifyitems(items):
    """Spread the files of a browser's tests over the first four fifths of the others.

    They wait half of their time, so that others may run meanwhile, and few browsers at once.
    """
    by_file = {}
    for item in items:
        by_file.setdefault(item.path, []).append(item)
    in_browser = [f for f, tests in by_file.items() if tests[0].get_closest_marker("browser")]
    order = [f for f in by_file if f not in in_browser]
    gap = 0.8 * len(order) / max(1, len(in_browser))
    for k, file in enumerate(in_browser):
        order.insert(k + round(k * gap), file)
    items[:] = [item for file in order for item in by_file[file]]


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs an NVIDIA card: torch.cuda is not available here")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real media for tests; they lie beside the project, not in it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real media here: ../shared/data is absent")
    return folder


@pytest.fixture(scope="session")
def pytorch_fid():
    """The module `pytorch_fid.fid_score`, our oracle of FID."""
    from benchmarks import fid

    return fid.import_pytorch_fid()


@pytest.fixture(scope="session")
def model() -> Path:
    """The landmark model's file."""
    from core.media.faces import landmarker

    try:
        return landmarker.model_path()
    except landmarker.ModelMissing as error:
        pytest.skip(f"the landmark model is not here: {error}")


@pytest.fixture(scope="session")
def photo():
    """A public-domain portrait, (512, 512, 3) uint8."""
    import skimage.data

    return skimage.data.astronaut()


@pytest.fixture(scope="session")
def face(photo, model):
    """Its landmarks."""
    from core.media.faces import detection

    return detection.detect(photo)[0]
