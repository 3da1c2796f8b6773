"""Parts of long work as Ray tasks, on a cluster or on this machine. Ray is optional: requirements-cluster.txt. No torch.

Nothing is copied to the other machines: the project and the media are read where this machine has them, under the same paths, and each
machine says before the work begins whether it sees the same.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from core import runs
from core.corpora import CorpusError

ROOT = Path(__file__).resolve().parents[1]
AHEAD = 2  # tasks that wait for each processor of the cluster, so that none of them idles
PATIENCE = 60.0  # seconds that a machine may take to answer whether it sees the media


def code() -> str:
    """Digest of this project's core as it lies here: machines of another version would make other arrays."""
    digest = hashlib.sha256()
    for path in sorted(ROOT.glob("core/*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def missing(media: dict[str, int], digest: str) -> str:
    """What this machine lacks of `media` (path -> size in bytes) or of the code with that digest; "" if nothing."""
    for path, size in media.items():
        try:
            here = os.stat(path).st_size
        except OSError as e:
            return f"cannot read {path} ({e.strerror})"
        if here != size:
            return f"has {here:,} bytes in {path}, where {size:,} are expected"
    return "" if code() == digest else f"has another version of this project in {ROOT}"


def work(
    parts: dict[int, Any], how: Any, do: Callable[..., tuple[int, Any]], workers: int, address: str | None, media: dict[str, int]
) -> Generator[tuple[int, Any], None, None]:
    """`do(i, part, how)` of every part, as they get done. `workers` processors of this machine, if no cluster's `address` is given.

    Raises CorpusError where Ray is not installed or not reached, or a machine does not see the same code and media; it names the machine
    and the path.
    """
    try:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    except ImportError:
        raise CorpusError("the engine ray needs the package ray: pip install -r requirements-cluster.txt") from None
    own, waiting = not ray.is_initialized(), list[Any]()
    if own:
        _connect(ray, workers, address)
    try:
        check, digest = ray.remote(num_cpus=0)(missing), code()
        asked = {}
        for node in ray.nodes():
            if node["Alive"] and node["Resources"].get("CPU"):
                place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                asked[node["NodeManagerHostname"]] = check.options(scheduling_strategy=place).remote(media, digest)
        for name, answer in asked.items():
            try:
                fault = ray.get(answer, timeout=PATIENCE)
            except ray.exceptions.RayError as e:
                fault = f"cannot run this project from {ROOT} ({str(e).strip().splitlines()[-1]})"
            if fault:
                raise CorpusError(f"machine {name} {fault}; give every machine the corpus and the project at the same path")
        task, todo = ray.remote(num_cpus=1)(do), list(parts.items())
        most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        while todo or waiting:
            while todo and len(waiting) < most:
                i, part = todo.pop(0)
                waiting.append(task.remote(i, part, how))
            ready, waiting = ray.wait(waiting)
            for one in ready:
                yield ray.get(one)
    finally:
        if own:
            ray.shutdown()  # and with it what is still waiting
        else:
            for one in waiting:
                ray.cancel(one)


def _connect(ray: Any, workers: int, address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    paths = {"PYTHONPATH": search, "DACSSGAN_CHECKPOINTS": str(runs.root().resolve())}
    local = {} if address else {"num_cpus": workers or os.cpu_count() or 1, "include_dashboard": False}
    try:
        if place := re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address or ""):  # Ray itself would try for minutes
            socket.create_connection((place[1], int(place[2])), timeout=10).close()
        ray.init(address=address, runtime_env={"env_vars": paths}, log_to_driver=False, logging_level="ERROR", **local)
    except (ConnectionError, RuntimeError, ValueError, OSError) as e:
        reason = " ".join(str(e).split())[:200]
        raise CorpusError(f"no Ray cluster answers at {address or 'this machine'} ({reason}); start one with: ray start --head") from e
