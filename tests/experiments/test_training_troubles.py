"""Training that goes wrong: said in words while it runs, and the last good weights are kept."""

import contextlib
import dataclasses
import errno
import json
import os
import resource
import signal

import numpy as np
import pytest
import torch

from core import files
from core.config.settings import replace
from core.data import splits
from core.experiments import checkpoints, gan_training, pipeline
from core.models import classifiers
from core.runs import diagnosis, store
from core.runs.directory import Run
from tests.support import small_pipeline

CONFIG = small_pipeline.TINY  # checkpoints at steps 3 and 6


def spoilt_at(step, spoil):
    """The training's steps, with `spoil(record, state)` in place of the record of one step."""

    def train(state, pool, g):
        for record in gan_training.train_with_cuda_graphs(state, pool, g):
            yield spoil(record, state) if record.step == step else record

    return train


def nan_loss(record, state):
    values = record.values | {"loss/G": torch.tensor(float("nan"))}
    return dataclasses.replace(record, values=values)


def nan_weight(record, state):
    with torch.no_grad():
        next(state.shown.parameters()).view(-1)[0] = float("nan")
    return record


@pytest.mark.parametrize(
    ("spoil", "words"), [(nan_loss, "loss/G became"), (nan_weight, "a weight became")]
)
def test_losses_and_weights_that_are_not_finite_end_the_run_and_keep_the_checkpoint(
    demo_world, finished_run, spoil, words
):
    folder = demo_world / f"nan-{spoil.__name__}"
    with pytest.raises(files.UserError, match=words) as e:
        pipeline.run(CONFIG, folder, "cpu", train=spoilt_at(6, spoil))
    assert "at step 6; the checkpoint before it is kept" in str(e.value)
    assert "--gan.lr-g" in str(e.value)
    row = store.list_runs(folder)[0]
    assert (row["state"], row["error"]) == ("failed", str(e.value))
    run = pipeline.Run(folder / row["run"])
    saved = checkpoints.load(run.directory / "state.pt")
    assert saved["step"] == 3
    assert all(v.isfinite().all() for v in saved["networks"]["shown"].values())
    assert not (run.directory / "samples" / "step-0000006.npz").exists()
    again = pipeline.run(CONFIG, folder, "cpu")  # as after a repair: it goes on from step 3
    assert small_pipeline.weights(again) == small_pipeline.weights(finished_run)


def test_a_loss_that_is_not_finite_before_the_first_checkpoint_says_so(demo_world):
    train = spoilt_at(3, nan_loss)
    with pytest.raises(files.UserError, match="no checkpoint was written yet"):
        pipeline.run(CONFIG, demo_world / "nan-early", "cpu", train=train)
    assert not list((demo_world / "nan-early").glob("*/state.pt"))


def test_a_classifier_that_diverges_is_not_kept(demo_world, monkeypatch):
    fit = classifiers.fit

    def diverging(*given):
        network = fit(*given)
        with torch.no_grad():
            network.head.weight.fill_(float("inf"))
        return network

    monkeypatch.setattr(classifiers, "fit", diverging)
    folder = demo_world / "diverging"
    with pytest.raises(files.UserError, match=r"the loss of f_S became .*--f-s\.lr"):
        pipeline.run(CONFIG, folder, "cpu")
    assert not list(folder.rglob("f_S*.safetensors"))


def test_a_collapse_is_said_while_the_run_trains(demo_world, monkeypatch, capsys):
    monkeypatch.setattr(diagnosis, "COLLAPSE_DIVERSITY", 1e9)
    monkeypatch.setattr(diagnosis, "COLLAPSE_STEPS", 0)
    remarks = []
    pipeline.run(
        replace(CONFIG, gan={"steps": 8}, evaluate={"every": 2, "rows": ("S1",)}),
        demo_world / "collapsed",
        "cpu",
        report=lambda phase, done, total, remark: remarks.append((phase, remark)),
    )
    assert capsys.readouterr().err.count("G has collapsed: at step 2") == 1  # once
    assert any("· G has collapsed" in r for phase, r in remarks if phase.startswith("train G"))


def few_clips(monkeypatch, rows):
    """S3 with these rows alone."""
    build = splits.build_sets

    def cut(config):
        sets = build(config)
        s = sets["S3"]
        one_person = np.array(["p"] * len(s.x_subject[rows]))
        parts = {"x": s.x[rows], "x_label": s.x_label[rows], "x_subject": one_person}
        parts |= {"y": s.y[rows], "y_label": s.y_label[rows], "y_subject": one_person}
        return sets | {"S3": dataclasses.replace(s, **parts)}

    monkeypatch.setattr(splits, "build_sets", cut)


def test_fewer_pairs_than_a_batch_train_and_are_told(demo_world, monkeypatch, capsys):
    few_clips(monkeypatch, slice(0, 5))
    config = replace(CONFIG, evaluate={"rows": ("S1",)})
    run = pipeline.run(config, demo_world / "few", "cpu")
    assert run.json("results")
    said = capsys.readouterr().err
    assert "G learns from 5 voices, fewer than a batch of 16" in said
    assert "The voices of S3 are of one person" in said


@pytest.mark.parametrize(("rows", "changes"), [(slice(0, 1), {}), (slice(None), {"batch": 1})])
def test_one_pair_is_refused_with_the_fix(demo_world, monkeypatch, rows, changes):
    few_clips(monkeypatch, rows)
    config = replace(CONFIG, gan=changes)
    with pytest.raises(files.UserError, match="G needs two pairs in a batch"):
        pipeline.run(config, demo_world / f"one-{len(changes)}", "cpu")


# ------------------------------------------------------------------ disks


@contextlib.contextmanager
def room_for(size):
    """No file can grow beyond `size` bytes: as on a full disk, a write ends in its middle."""
    before, limits = signal.getsignal(signal.SIGXFSZ), resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_a_checkpoint_without_room_names_its_file_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "state.pt"
    checkpoints.save(path, {"step": 3})
    with room_for(10_000), pytest.raises(OSError, match=r"state\.pt") as e:
        checkpoints.save(path, {"step": 6, "G": torch.zeros(100_000)})
    assert files.DISK_FIXES[errno.EFBIG] in files.disk_fault(e.value)
    assert checkpoints.load(path) == {"step": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_curve_without_room_names_its_file_and_has_each_step_once(tmp_path):
    run = Run(tmp_path / "smoke-cp-00000000")
    store.create(run.directory, CONFIG)
    store.record_metrics(run, 1, {"loss/G": 0.5})
    path = run.directory / "metrics.jsonl"
    with room_for(path.stat().st_size + 9), pytest.raises(OSError, match=r"metrics\.jsonl") as e:
        store.record_metrics(run, 2, {"loss/G": 0.25})
    assert files.DISK_FIXES[errno.EFBIG] in files.disk_fault(e.value)
    assert len(path.read_text().splitlines()) == 2  # the second is cut
    store.drop_metrics_after(run, 1)
    store.record_metrics(run, 2, {"loss/G": 0.25})
    steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert steps == [1, 2]


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, pytest.param(errno.EROFS, marks=pytest.mark.slow)]
)
def test_every_write_of_a_training_may_fail_once_and_the_same_command_goes_on(
    demo_world, finished_run, monkeypatch, number
):
    """Each file's first flush fails: one line with file and fix, and in the end the same bytes."""
    folder, failed = demo_world / f"disk-{number}", set()
    flush = os.fsync

    def full(descriptor):
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        name = name.removeprefix(".").split(f".{os.getpid()}-")[0]
        if "." in name and name not in failed:
            failed.add(name)
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    said = []
    while True:
        try:
            run = pipeline.run(CONFIG, folder, "cpu")
            break
        except OSError as e:
            said.append(files.disk_fault(e))
        assert len(said) == len(failed)  # nothing else fails
    assert {"state.pt", "outputs.npz", "results.json", "G.safetensors"} <= failed
    for line, name in zip(said, failed, strict=False):
        assert len(line.splitlines()) == 1
        assert files.DISK_FIXES[number] in line, name
        assert str(folder) in line
    assert small_pipeline.weights(run) == small_pipeline.weights(finished_run)
    assert run.json("results") == finished_run.json("results")
    assert not list(folder.rglob(".*.tmp"))
