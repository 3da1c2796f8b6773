"""What benchmarks measure with.

The count of a network's operations, the cut of a clip, and that floors do the same work.
"""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import nn

import benchmarks
from benchmarks import __main__ as benchmarks_main
from benchmarks import bound, card, listen, quality
from core.media import clips


def test_whatever_is_called_a_benchmark_has_rows():
    folder = Path(benchmarks.__path__[0])
    names = {p.stem for p in folder.glob("*.py")} - {"__init__"}
    for name in names:
        has_rows = "\ndef rows(" in (folder / f"{name}.py").read_text()
        assert has_rows == (name not in benchmarks_main.NO_BENCHMARKS), name
    assert {*benchmarks_main.SLOW_BENCHMARKS} <= names


def test_operations_are_counted_forward_and_backward():
    layer, x = nn.Linear(10, 20), torch.randn(4, 10, requires_grad=True)
    with bound.OperationCounter() as counted:
        layer(x).sum().backward()
    assert (
        counted.total == 3 * 2 * 4 * 10 * 20
    )  # a product forward, one for the weights, one for the input
    conv = nn.Conv2d(3, 8, 3, padding=1)
    with bound.OperationCounter() as counted:
        conv(torch.randn(2, 3, 16, 16))
    assert counted.total == 2 * (2 * 8 * 16 * 16) * (3 * 9)


def test_a_gradient_of_a_gradient_is_counted_too():
    layer, x = nn.Linear(10, 1, bias=False), torch.randn(4, 10, requires_grad=True)
    with bound.OperationCounter() as counted:
        (slope,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        slope.square().sum().backward()
    assert counted.total > 3 * 2 * 4 * 10


def test_the_floor_looks_at_the_frames_that_a_clip_keeps(tmp_path, monkeypatch):
    drawn = np.zeros((30, 64, 64, 3), np.uint8)
    clips.write_clip(tmp_path / "clip.mp4", drawn, 25, np.zeros(16_000, np.float32))
    clip, seen = clips.read_clip(tmp_path / "clip.mp4"), []
    monkeypatch.setattr(
        listen.tracking, "track_faces", lambda frames, times: seen.append((frames, times))
    )
    listen.decode_and_track(tmp_path / "clip.mp4", clip.times)
    ((frames, times),) = seen
    assert frames.shape == clip.frames.shape
    assert (times == clip.times).all()


def test_three_seconds_of_a_real_clip_are_its_packets(shared_data, tmp_path):
    if not list((shared_data / "ravdess_video").glob("*.mp4")):
        pytest.skip("no real clip here")
    clip = clips.read_clip(listen.make_clip(tmp_path), need_sound=True)
    assert clip.times[-1] == pytest.approx(3.0, abs=0.15)
    assert len(clip.waveform) / clip.rate == pytest.approx(3.0, abs=0.1)
    with av.open(str(listen.make_clip(tmp_path))) as box:
        assert box.streams.video[0].codec_context.name == "h264"


def test_time_to_quality_counts_steps_and_not_looks():
    """The fourth look finds it; a training that is never good enough ends at its limit."""
    looks = iter([False, False, False, True])
    one = quality.Contender(iter(range(10**9)), lambda: None, 8)
    seconds, steps = quality.seconds_to_quality(one, lambda G, z: next(looks), 60.0)
    assert steps == 4 * quality.STEPS_BETWEEN_LOOKS
    assert 0 < seconds < 1
    seconds, steps = quality.seconds_to_quality(one, lambda G, z: False, 1e-4)
    assert seconds == float("inf")
    assert steps >= quality.STEPS_BETWEEN_LOOKS


def test_the_cards_script_runs_on_a_cpu_and_names_what_no_time_is_left_for():
    tiny = card.Sizes(batch=2, batches=2, steps=1, repeats=1, stack=2)
    rows = list(card.rows("cpu", tiny))
    assert len(rows) == 1 + 2 * 2 + 1  # the device; two methods in two precisions; a stack
    assert all(row.ratio > 0 for row in rows[1:])
    late = [str(row) for row in card.rows("cpu", tiny, most=-1.0)]
    assert [row.partition(":")[2].startswith(" not begun") for row in late] == [False] + [True] * 3
