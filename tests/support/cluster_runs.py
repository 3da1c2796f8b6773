"""Small trainings for sweeps that run elsewhere, and what makes two runs equal."""

import json
import threading
import time

from core.config.settings import replace
from core.evaluation import augmentation, protocol
from core.runs import store
from core.runs.directory import Run
from tests.support import small_pipeline

TINY = replace(
    small_pipeline.TINY,
    name="far",
    f_t={"steps": 8},
    gan={"steps": 10},
    evaluate={"every": 5, "rows": ("S1", "S1 + generated")},
)

PLAN = augmentation.TableSettings(seeds=1, stretch=1, looks=2)


def cells(config, **changes):
    return [
        protocol.Cell(f"{k} = {v}", "–", replace(config, gan={k: v}))
        for k, values in changes.items()
        for v in values
    ]


def until(true, then, seconds=240):
    """A thread that calls `then` as soon as `true()`."""

    def look():
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if true():
                return then()
            time.sleep(0.02)

    thread = threading.Thread(target=look)
    thread.start()
    return thread


def assert_equal_runs(outcomes, away, near):
    for o in outcomes:
        here, there = kept(Run(near / o.run)), kept(Run(away / o.run))
        assert [k for k in here if here[k] != there.get(k)] == []
        assert here.keys() == there.keys()
        records = [json.loads(line) for line in there.get("metrics.jsonl", b"").splitlines()]
        named = [(r["step"], name) for r in records for name in r if name != "step"]
        assert len(named) == len(set(named))  # none stands twice
    assert {o.run: indexed(away)[o.run] for o in outcomes} == {
        o.run: indexed(near)[o.run] for o in outcomes
    }


def kept(run):
    """Everything of a run that does not say when and by whom it was made."""
    bare = {
        "config.json",
        "corpus.json",
        "sets.json",
        "results.json",
        "table.json",
        "metrics.jsonl",
    }
    paths = [
        p
        for p in run.directory.rglob("*")
        if p.suffix in (".npz", ".safetensors") or p.name in bare
    ]
    return {p.relative_to(run.directory).as_posix(): p.read_bytes() for p in paths}


def indexed(folder):
    """The index without what says when and by whom."""
    rows = {
        r["run"]: {
            k: v
            for k, v in r.items()
            if k not in ("pid", "process", "heartbeat", "rate", "created")
        }
        for r in store.list_runs(folder)
    }
    return {run: (row, store.load_curves(run, folder)) for run, row in rows.items()}
