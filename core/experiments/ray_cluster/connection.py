"""Connect to Ray, check its machines and run tasks there. Without torch; Ray is optional.

Nothing is copied to other machines: each must have the project, and the media of `run_tasks`, at
the same path, and is checked before it gets work. Packages: requirements-cluster.txt.
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

TASKS_AHEAD = 2  # submitted tasks for each processor of the cluster, so that none idles
MACHINE_TIMEOUT = 60.0  # seconds for a machine to answer the check
CONNECTION_TIMEOUT = 10.0  # seconds for an address to answer; Ray itself would try for minutes
# Ray's only way to make all of its servers listen on 127.0.0.1 alone
LOOPBACK_ENVIRONMENT = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def code_digest() -> str:
    """Digest of `core` as installed here: another version could compute other arrays."""
    digest = hashlib.sha256()
    for path in sorted(files.ROOT.glob("core/**/*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def package_versions(*packages: str) -> dict[str, str]:
    """Package -> its version here, without the build (the +cpu of a torch); "" if not installed."""
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    return versions


def what_differs(media: dict[str, int], digest: str, packages: Mapping[str, str] = {}) -> str:
    """The first difference of this machine to the driver's, "" if there is none.

    media: path -> size in bytes. digest: the driver's `code_digest`. packages: name -> version.
    """
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
    """The module ray, connected to the cluster at `address`, or to one started on this machine.

    A local cluster has `workers` processors (0: all) and ends with the block. A connection that
    exists already is used and left open. Raises CorpusError if Ray is not installed or reached.
    """
    # Ray reads these variables when it is imported
    if not address or re.match(r"(?:ray://)?(?:127\.|localhost)", address):
        for name, value in LOOPBACK_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    try:
        import ray
    except ImportError:
        raise CorpusError(
            "the engine ray needs the package ray: pip install -r requirements-cluster.txt"
        ) from None
    is_own = not ray.is_initialized()
    if is_own:
        _initialise_ray(ray, workers, address)
    try:
        yield ray
    finally:
        if is_own:
            ray.shutdown()  # also cancels waiting tasks


def _initialise_ray(ray: Any, workers: int, address: str | None) -> None:
    search_path = os.pathsep.join(filter(None, (str(files.ROOT), os.environ.get("PYTHONPATH"))))
    checkpoints = str(files.checkpoints_folder().resolve())
    environment = {"PYTHONPATH": search_path, "DACSSGAN_CHECKPOINTS": checkpoints}
    options: dict[str, Any] = {"runtime_env": {"env_vars": environment}, "log_to_driver": False}
    if not address:
        options |= {"num_cpus": workers or os.cpu_count() or 1, "include_dashboard": False}
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        if place := re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address or ""):
            server = place[1], int(place[2])
            socket.create_connection(server, timeout=CONNECTION_TIMEOUT).close()
        ray.init(address=address, logging_level="ERROR", **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as e:
        reason = " ".join(str(e).split())[:200]
        raise CorpusError(
            f"no Ray cluster answers at {address or 'this machine'} ({reason}); "
            "start one with: ray start --head"
        ) from e
    finally:
        # Ray replaces the handler of SIGTERM
        if threading.current_thread() is threading.main_thread():
            for s, handler in handlers.items():
                signal.signal(s, handler or signal.SIG_DFL)


def machines(ray: Any) -> list[dict]:
    """Live machines with processors: NodeID, Resources (CPU, GPU) and more."""
    return [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU")]


def machine_name(node: dict) -> str:
    """A machine's name: that of `ray start --node-name`, else its host's.

    >>> machine_name({"NodeManagerAddress": "10.0.0.1", "NodeManagerHostname": "host"})
    'host'
    """
    address = node["NodeManagerAddress"]
    name = node.get("NodeName", address)
    return name if name != address else node["NodeManagerHostname"]


def node_affinity(node: str) -> Any:
    """The scheduling strategy that allows only the machine with this NodeID."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def check_machines(ray: Any, nodes: list[dict], *expected: Any) -> list[tuple[dict, str]]:
    """Each machine with its answer to `what_differs(*expected)`, or why it does not answer."""
    check = ray.remote(num_cpus=0)(what_differs)
    strategies = [node_affinity(n["NodeID"]) for n in nodes]
    answers = [check.options(scheduling_strategy=s).remote(*expected) for s in strategies]
    faults = []
    for answer in answers:
        try:
            faults.append(ray.get(answer, timeout=MACHINE_TIMEOUT))
        except ray.exceptions.RayError as e:
            faults.append(f"cannot run this project from {files.ROOT} ({last_error_line(e)})")
    return list(zip(nodes, faults, strict=True))


def run_tasks(
    parts: dict[int, Any],
    settings: Any,
    do: Callable[..., tuple[int, Any]],
    workers: int,
    address: str | None,
    media: dict[str, int],
) -> Generator[tuple[int, Any], None, None]:
    """`do(i, part, settings)` of every part as a Ray task; yields the results as they finish.

    The tasks run on the cluster at `address`, or on `workers` processors of this machine. Raises
    CorpusError, with machine and path, where Ray is not installed or not reached, or a machine has
    other code or media (path -> size in bytes).
    """
    with ray_connection(workers, address) as ray:
        for node, fault in check_machines(ray, machines(ray), media, code_digest()):
            if fault:
                raise CorpusError(
                    f"machine {machine_name(node)} {fault}; give every machine the corpus and the "
                    "project at the same path"
                )
        task, todo, running = ray.remote(num_cpus=1)(do), list(parts.items()), list[Any]()
        limit = TASKS_AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        try:
            while todo or running:
                while todo and len(running) < limit:
                    running.append(task.remote(*todo.pop(0), settings))
                ready, running = ray.wait(running)
                for result in ready:
                    yield ray.get(result)
        finally:
            for unfinished in running:
                ray.cancel(unfinished)


def last_error_line(e: Exception) -> str:
    """The last line of a Ray error's message, or the error's type."""
    return (str(e).strip().splitlines() or [type(e).__name__])[-1].strip(" .")
