"""A file of a run that a full disk or a kill has cut is made again, or the message names it."""

import json
import shutil

import pytest

from core import files
from core.experiments import pipeline
from core.runs.directory import Run
from tests.support import small_pipeline


@pytest.fixture
def copied_run(finished_run, tmp_path):
    """The finished run in a folder of its own, with the classifiers that runs share."""
    folder = tmp_path / "runs"
    shutil.copytree(finished_run.directory.parent, folder)
    return Run(folder / finished_run.id)


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("shared_too", [False, True])
@pytest.mark.parametrize("name", ["f_S", "scorer"])
def test_a_cut_classifier_is_made_again(copied_run, finished_run, name, shared_too):
    half(copied_run.model_path(name))
    if shared_too:
        for path in (copied_run.directory.parent / ".cache").glob(f"{name}-*.safetensors"):
            half(path)
    (copied_run.directory / "results.json").unlink()
    again = pipeline.run(small_pipeline.TINY, copied_run.directory.parent, "cpu")
    assert small_pipeline.weights(again) == small_pipeline.weights(finished_run)
    assert again.json("results") == finished_run.json("results")


def test_a_cut_generator_is_made_again_from_the_checkpoint(copied_run, finished_run):
    half(copied_run.model_path("G"))
    (copied_run.directory / "results.json").unlink()
    again = pipeline.run(small_pipeline.TINY, copied_run.directory.parent, "cpu")
    assert small_pipeline.weights(again) == small_pipeline.weights(finished_run)


@pytest.mark.parametrize("content", [b"", b"\x80\x02.", b"PK\x03\x04 cut"])
def test_a_cut_checkpoint_is_named_with_the_way_on(copied_run, finished_run, content):
    for name in ("models/G.safetensors", "results.json"):
        (copied_run.directory / name).unlink()
    state = copied_run.directory / "state.pt"
    state.write_bytes(content)
    with pytest.raises(files.DamagedError, match=r"state\.pt is damaged .* remove it"):
        pipeline.run(small_pipeline.TINY, copied_run.directory.parent, "cpu")
    state.unlink()
    again = pipeline.run(small_pipeline.TINY, copied_run.directory.parent, "cpu")
    assert small_pipeline.weights(again) == small_pipeline.weights(finished_run)


def test_a_kill_before_the_first_checkpoint_records_no_step_twice(copied_run):
    for name in ("models/G.safetensors", "results.json", "state.pt"):
        (copied_run.directory / name).unlink()
    log = copied_run.directory / "metrics.jsonl"
    log.write_text(log.read_text().splitlines()[0] + "\n")  # step 0 alone
    pipeline.run(small_pipeline.TINY, copied_run.directory.parent, "cpu")
    steps = [json.loads(line) for line in log.read_text().splitlines()]
    named = [(r["step"], k) for r in steps for k in r if k != "step"]
    assert len(named) == len(set(named))


def test_copies_are_whole_or_absent(tmp_path, monkeypatch):
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(bytes(1 << 20))

    def full_disk(into, out, *_):
        out.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full_disk)
    with pytest.raises(OSError, match="No space left"):
        files.copy_atomic(source, target)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]
