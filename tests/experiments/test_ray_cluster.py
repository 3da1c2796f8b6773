"""`sweep --engine ray` on a cluster of two machines, which here are two of Ray's nodes on the
loopback address: `make test-cluster`.

Their workers keep nothing in the driver's folders and have only the prepared corpus sent to them.
"""

import functools
import os
import threading

import pytest

from core.config.settings import replace
from core.evaluation import protocol
from core.experiments.ray_cluster import connection, driver
from core.experiments.sweeping import sweep
from core.runs import store
from core.runs.directory import Run
from tests.support.cluster_runs import PLAN, TINY, assert_equal_runs, cells, until
from tests.support.small_pipeline import core

os.environ.update(
    connection.LOOPBACK_ENVIRONMENT | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": "/tmp"}
)  # before ray is imported
ray = pytest.importorskip(
    "ray", reason="Ray is not installed, and only a cluster needs it: make test-cluster"
)
pytestmark = pytest.mark.timeout(1_800)

LONG = replace(TINY, gan={"steps": 250}, evaluate={"every": 10})
QUICK = {
    "num_cpus": 1,
    "include_dashboard": False,
    "node_ip_address": "127.0.0.1",
    "object_store_memory": 150 << 20,
}
SOON = {
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
    "health_check_initial_delay_ms": 1_000,
}


@pytest.fixture(scope="module")
def machines(demo_world):
    """Two of one processor each, whose temporary folder is the test's and who know no folder of
    data.
    """
    from ray.cluster_utils import Cluster

    homes = demo_world / "homes"
    homes.mkdir()
    before = {k: os.environ.get(k) for k in ("TMPDIR", "DACSSGAN_DATA")}
    os.environ.update(TMPDIR=str(homes), DACSSGAN_DATA=str(demo_world / "nowhere"))
    found = Cluster(initialize_head=True, head_node_args=QUICK | {"_system_config": SOON})
    second = found.add_node(**QUICK, node_name="second")
    for k, v in before.items():
        os.environ.pop(k, None) if v is None else os.environ.__setitem__(k, v)
    yield found, second, homes
    ray.shutdown()
    found.shutdown()


def far(machines, todo, folder, plan=None, stop=None, every=0.0, said=None):
    say = [].append if said is None else said.append
    engine = functools.partial(
        driver.train_on_cluster, address=machines[0].address, every=every, say=say
    )
    return sweep.train_cells(todo, folder, 1, "cpu", plan, stop=stop, engine=engine)


def test_a_sweep_on_two_machines_equals_the_local_one(machines, demo_world):
    todo, said = cells(TINY, condition=("label", "classifier", "cp")), []
    broken = protocol.Cell(
        "no subject in S2", "–", replace(TINY, data={"sets": (0.5, 0.0, 0.3, 0.2)})
    )
    near, away = demo_world / "near", demo_world / "away"
    here = {o.run: o for o in sweep.train_cells([*todo, broken], near, 1, "cpu", PLAN)}
    there = {o.run: o for o in far(machines, [*todo, broken], away, PLAN, said=said)}
    assert said == []
    assert {r: (o.state, o.reason) for r, o in here.items()} == {
        r: (o.state, o.reason) for r, o in there.items()
    }
    assert sorted(o.state for o in there.values()) == ["done", "done", "done", "failed"]
    assert_equal_runs(there.values(), away, near)
    for run in here:
        assert sorted(p.name for p in (near / run).rglob("*")) == sorted(
            p.name for p in (away / run).rglob("*")
        )
    assert {o.state for o in far(machines, todo, away, PLAN)} == {"was done"}


def test_a_machine_is_lost_and_no_run_is(machines, demo_world, monkeypatch):
    found, second, _ = machines
    monkeypatch.setattr(driver, "POLL_SECONDS", 0.2)
    todo, said, lost = cells(LONG, l1=(0.1, 0.2)), [], []
    near, away = demo_world / "undisturbed", demo_world / "disturbed"
    store.list_runs(away)

    on_second: set[str] = set()

    def under_way():
        on_second.update(r["run"] for r in store.list_runs(away) if r["phase"] == "sent to second")
        busy = [r["run"] for r in store.list_runs(away) if r["state"] == "running"]
        return any((away / run / "state.pt").exists() for run in on_second.intersection(busy))

    def lose():
        found.remove_node(second, allow_graceful=False)
        lost.append(second)

    loser = until(under_way, lose, 500)
    outcomes = far(machines, todo, away, said=said)
    loser.join()
    assert lost == [second]
    assert len([s for s in said if "was lost under" in s]) == 1, said
    assert [o.state for o in outcomes] == ["done"] * 2
    assert len({o.run for o in outcomes}) == 2
    sweep.train_cells(todo, near, 2, "cpu")
    assert_equal_runs(
        outcomes, away, near
    )  # of the records too: none is missing, none stands twice
    index = {o.run: store.load_curves(o.run, away) for o in outcomes}
    store.reindex(away)
    assert {o.run: store.load_curves(o.run, away) for o in outcomes} == index


def test_stop_brings_the_checkpoint_home(machines, demo_world, monkeypatch):
    monkeypatch.setattr(driver, "POLL_SECONDS", 0.2)
    stop, folder = threading.Event(), demo_world / "stopped"
    todo = cells(replace(LONG, gan={"steps": 100_000}), l1=(0.1,))
    store.list_runs(folder)
    stopper = until(
        lambda: any((r["step"] or 0) >= 30 for r in store.list_runs(folder)), stop.set, 500
    )
    outcomes = far(machines, todo, folder, stop=stop, every=1e9)
    stopper.join()
    assert [o.state for o in outcomes] == ["stopped"]
    run = Run(folder / outcomes[0].run)
    assert (run.directory / "state.pt").exists()
    assert store.list_runs(folder)[0]["state"] == "stopped"
    assert max(store.load_curves(run.id, folder)["loss/G"][0]) >= 30
    assert (
        list(machines[2].glob("dacssgan-*/worker-*")) == []
    )  # the next worker removed a lost one's folder


def test_the_command_line_on_a_cluster(machines, demo_world):
    place = {"DACSSGAN_CHECKPOINTS": demo_world / "line"}
    done = core("sweep", "--grid", "quick", "--engine", "ray", "--address", "127.0.0.1:9", **place)
    assert done.returncode != 0
    assert "no Ray cluster answers at 127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
