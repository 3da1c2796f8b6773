"""Parts of long work as Ray tasks, on a cluster or on this machine. Ray is optional: requirements-cluster.txt. No torch.

Of the project nothing is copied to the other machines: it is read where this machine has it, under the same path, as are the media of
`run_tasks`, and each machine says before it gets work whether it sees the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from core import files
from core.data.corpora import CorpusError

TASKS_AHEAD = 2  # tasks that wait for each processor of the cluster, so that none of them idles
MACHINE_TIMEOUT = 60.0  # seconds that a machine may take to answer whether it sees the media
LOOPBACK_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"
}  # Ray's only way to make all of its servers listen on 127.0.0.1 alone


def code_digest() -> str:
    """Digest of this project's core as it lies here: machines of another version would make other arrays."""
    digest = hashlib.sha256()
    for path in sorted(files.ROOT.glob("core/**/*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def package_versions(*packages: str) -> dict[str, str]:
    """package -> its version here, without the build (the +cpu of a torch); "" where it is absent."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def what_differs(media: dict[str, int], digest: str, packages: Mapping[str, str] = {}) -> str:
    """What this machine lacks: `media` (path -> size in bytes), `packages` (name -> version), the code with that digest; "" if nothing."""
    for path, size in media.items():
        try:
            here = os.stat(path).st_size
        except OSError as e:
            return f"cannot read {path} ({e.strerror})"
        if here != size:
            return f"has {here:,} bytes in {path}, where {size:,} are expected"
    for name, version in package_versions(*packages).items():
        if version != packages[name]:
            return f"has {name} {version or 'not at all'}, where {packages[name]} is expected"
    return "" if code_digest() == digest else f"has another version of this project in {files.ROOT}"


@contextlib.contextmanager
def ray_connection(workers: int = 0, address: str | None = None) -> Iterator[Any]:
    """The module ray, connected to the cluster at `address`, or to one of `workers` processors (0: all) that is started on this machine and
    ends with this. A connection that is there already is used and left.

    Raises CorpusError where Ray is not installed or not reached.
    """
    if not address or re.match(r"(?:ray://)?(?:127\.|localhost)", address):
        os.environ.update(
            {k: os.environ.get(k, v) for k, v in LOOPBACK_ENVIRONMENT.items()}
        )  # read when ray is imported
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    try:
        import ray
    except ImportError:
        raise CorpusError(
            "the engine ray needs the package ray: pip install -r requirements-cluster.txt"
        ) from None
    own = not ray.is_initialized()
    if own:
        _initialise_ray(ray, workers, address)
    try:
        yield ray
    finally:
        if own:
            ray.shutdown()  # and with it what is still waiting


def machines(ray: Any) -> list[dict]:
    """The machines of the cluster that are there and have processors: NodeID, Resources (CPU, GPU) and more."""
    return [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]


def machine_name(node: dict) -> str:
    """What people call this machine: the name it was given as `ray start --node-name` says, else its host's."""
    return (
        node["NodeName"]
        if node.get("NodeName", node["NodeManagerAddress"]) != node["NodeManagerAddress"]
        else node["NodeManagerHostname"]
    )


def node_affinity(node: str) -> Any:
    """The scheduling strategy that means this machine (its NodeID) and no other."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def check_machines(ray: Any, nodes: list[dict], *given: Any) -> dict[str, str]:
    """What each of these machines lacks, "" where nothing: NodeID -> the words of `what_differs(*given)`, or why it does not answer."""
    check = ray.remote(num_cpus=0)(what_differs)
    asked = {
        n["NodeID"]: check.options(scheduling_strategy=node_affinity(n["NodeID"])).remote(*given)
        for n in nodes
    }
    found = {}
    for node, answer in asked.items():
        try:
            found[node] = ray.get(answer, timeout=MACHINE_TIMEOUT)
        except ray.exceptions.RayError as e:
            found[node] = f"cannot run this project from {files.ROOT} ({last_error_line(e)})"
    return found


def run_tasks(
    parts: dict[int, Any],
    how: Any,
    do: Callable[..., tuple[int, Any]],
    workers: int,
    address: str | None,
    media: dict[str, int],
) -> Generator[tuple[int, Any], None, None]:
    """`do(i, part, how)` of every part, as they get done. `workers` processors of this machine, if no cluster's `address` is given.

    Raises CorpusError where Ray is not installed or not reached, or a machine does not see the same code and media; it names the machine
    and the path.
    """
    with ray_connection(workers, address) as ray:
        nodes = machines(ray)
        for node, fault in check_machines(ray, nodes, media, code_digest()).items():
            if fault:
                which = next(machine_name(n) for n in nodes if n["NodeID"] == node)
                raise CorpusError(
                    f"machine {which} {fault}; give every machine the corpus and the project at the same path"
                )
        task, todo, waiting = ray.remote(num_cpus=1)(do), list(parts.items()), list[Any]()
        most = TASKS_AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        try:
            while todo or waiting:
                while todo and len(waiting) < most:
                    i, part = todo.pop(0)
                    waiting.append(task.remote(i, part, how))
                ready, waiting = ray.wait(waiting)
                for one in ready:
                    yield ray.get(one)
        finally:
            for one in waiting:
                ray.cancel(one)


def last_error_line(e: Exception) -> str:
    """The last line of what Ray says of a fault."""
    return (str(e).strip().splitlines() or [type(e).__name__])[-1].strip(" .")


def _initialise_ray(ray: Any, workers: int, address: str | None) -> None:
    search = os.pathsep.join(filter(None, (str(files.ROOT), os.environ.get("PYTHONPATH"))))
    paths = {
        "PYTHONPATH": search,
        "DACSSGAN_CHECKPOINTS": str(files.checkpoints_folder().resolve()),
    }
    local = (
        {} if address else {"num_cpus": workers or os.cpu_count() or 1, "include_dashboard": False}
    )
    ours = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        if place := re.fullmatch(
            r"(?:ray://)?([^:/]+):(\d+)", address or ""
        ):  # Ray itself would try for minutes
            socket.create_connection((place[1], int(place[2])), timeout=10).close()
        ray.init(
            address=address,
            runtime_env={"env_vars": paths},
            log_to_driver=False,
            logging_level="ERROR",
            **local,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as e:
        reason = " ".join(str(e).split())[:200]
        raise CorpusError(
            f"no Ray cluster answers at {address or 'this machine'} ({reason}); start one with: ray start --head"
        ) from e
    finally:
        if (
            threading.current_thread() is threading.main_thread()
        ):  # Ray puts its own handler of SIGTERM in the place of ours
            for s, handler in ours.items():
                signal.signal(s, handler or signal.SIG_DFL)
