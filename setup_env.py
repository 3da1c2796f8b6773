"""Make .venv ready for the Makefile; what is missing is said in one line with its remedy.

Standard library only, in a syntax that old Pythons parse, so that they are refused in one line too.
`.venv/.ready` names the requirements and the Python of a finished set-up, or says that one is under
way. A set-up that was cut short is made anew (pip's cache keeps the downloads); a finished one
costs a tenth of a second and no network.
"""

import contextlib
import hashlib
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

OLDEST, NEWEST = (3, 11), (3, 14)  # the pinned packages have wheels for these Pythons
HOLDS_GB = {"cpu": 3, "cuda": 7}  # .venv in the end
NEEDS_GB = {
    "cpu": 4,
    "cuda": 10,
}  # free space to start with: that and the downloads, which lie beside it while they are unpacked
VENV = ".venv"
RUNTIME = ("requirements.txt",)  # what `make app` installs
TESTS = ("requirements.txt", "requirements-test.txt")  # what all other targets install
READY, PYTHON = os.path.join(VENV, ".ready"), os.path.join(VENV, "bin", "python")
UNDER_WAY = "under way"


def python_problem(version, system, machine, missing=()):
    """What speaks against this interpreter, in one line, or "" .

    `missing` names absent standard modules.
    """
    found = ".".join(map(str, version))
    if not OLDEST <= tuple(version[:2]) <= NEWEST:
        return (
            f"Python {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]} is needed and this is "
            f"{found} ({sys.executable}): install one and name it, as in: "
            "make app PYTHON=python3.12"
        )
    if system not in ("Linux", "Darwin"):
        return f"{system} is not supported: use Linux (on Windows inside WSL) or macOS."
    if system == "Darwin" and machine != "arm64":
        return (
            f"torch has no wheel for macOS on {machine}: on Apple silicon install an arm64 Python "
            "and name it with PYTHON=..."
        )
    if missing:
        return (
            f"Python {found} comes without {' and '.join(missing)}: on Debian or Ubuntu run "
            f"`sudo apt install python{version[0]}.{version[1]}-venv`, then make again."
        )
    return ""


def torch_build(offered, pin, system):
    """ "cpu" or "cuda".

    The build that pip takes for torch==`pin` of the versions offered (2.13.0+cpu outranks the plain
    2.13.0).
    """
    local = max((v for v in offered if v.startswith(pin + "+")), default="")
    return "cpu" if system == "Darwin" or local.endswith("+cpu") else "cuda"


def disk_problem(free_bytes, build):
    """ "" where the disk has room for this build of torch and the rest."""
    free, needs = free_bytes / 1e9, NEEDS_GB[build]
    if free >= needs:
        return ""
    return f"{needs} GB of disk space are needed, {free:.1f} GB are free: make room, make again."


def stamp(requirements, version):
    """The text of .venv/.ready after a finished set-up with these requirements (bytes) and this
    Python.
    """
    return f"{hashlib.sha256(requirements).hexdigest()} Python {version[0]}.{version[1]}\n"


def port_problem(port):
    """ "" where `port` (text) is free on the loopback address, else what to type instead."""
    if not (port.isdigit() and 1024 <= int(port) <= 65535):
        return f"PORT={port} is no port: choose one from 1024 to 65535, as in: make app PORT=8502"
    taken = [n for n in range(int(port), min(int(port) + 50, 65536)) if not _free(n)]
    if int(port) not in taken:
        return ""
    other = next((n for n in range(int(port), 65536) if n not in taken), 8501)
    return (
        f"port {port} is taken (perhaps the studio runs already: look at http://127.0.0.1:{port}); "
        f"another one: make app PORT={other}"
    )


def _free(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def read(path):
    """The text of a file, "" where there is none."""
    try:
        with open(path) as f:
            return f.read()
    except (OSError, UnicodeDecodeError):
        return ""


def read_bytes(path):
    """The content of a file."""
    with open(path, "rb") as f:
        return f.read()


def write(path, text):
    """All of the text or nothing: written beside, then renamed."""
    with open(path + ".part", "w") as f:
        f.write(text)
    os.replace(path + ".part", path)


def say(text):
    print("set-up: " + text, flush=True)


def stop(text):
    sys.exit("set-up: " + text)


def offered_versions(package):
    """Versions that pip sees under its own settings, newest first.

    Stops where it sees none, which is quicker than pip's retries.
    """
    command = [
        PYTHON,
        "-m",
        "pip",
        "index",
        "versions",
        package,
        "--retries",
        "1",
        "--timeout",
        "20",
    ]
    answer = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ).stdout
    if "No matching distribution" in answer:
        stop(
            f"pip finds no {package}: is there a network? Behind a proxy set HTTPS_PROXY, "
            "for a mirror PIP_INDEX_URL, and make again."
        )
    return re.findall(r"[^\s,]+", (re.findall(r"Available versions: (.*)", answer) or [""])[0])


@contextlib.contextmanager
def one_at_a_time():
    """A second set-up of the same tree waits for the first.

    The lock ends with the process, however that ends.
    """
    import fcntl  # not on Windows, which is refused before

    with open(RUNTIME[0]) as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("another one is under way here; waiting for it.")
            fcntl.flock(f, fcntl.LOCK_EX)
        yield


def make_venv(version):
    """An environment of this Python with pip in it.

    The one that is there if it is whole, else a new one. True for a new one.
    """
    site = os.path.join(VENV, "lib", f"python{version[0]}.{version[1]}", "site-packages")
    if (
        os.path.exists(PYTHON)
        and os.path.isdir(os.path.join(site, "pip"))
        and read(READY) != UNDER_WAY
    ):
        return False
    if os.path.isdir(VENV):
        say("the .venv here was cut short or is of another Python; making it anew.")
        shutil.rmtree(VENV)
    os.makedirs(VENV)
    write(READY, UNDER_WAY)
    if subprocess.call([sys.executable, "-m", "venv", VENV]):
        stop(
            f"`{sys.executable} -m venv` failed as printed above: mend that, or name another "
            "Python with PYTHON=..., then make again."
        )
    return True


def set_up(wanted=RUNTIME):
    """Install the requirements files `wanted`, unless they or those of the tests are there."""
    version = platform.python_version_tuple()
    version = (int(version[0]), int(version[1]), version[2])
    missing = [m for m in ("venv", "ensurepip") if not _importable(m)]
    problem = python_problem(version, platform.system(), platform.machine(), missing)
    if problem:
        stop(problem)
    with one_at_a_time():
        ready = [stamp(b"".join(map(read_bytes, names)), version) for names in (wanted, TESTS)]
        if not (read(READY) in ready and os.path.exists(PYTHON)):
            install(wanted, ready[0], version)


def install(wanted, ready, version):
    """Install these files in one resolve; `ready` is what .venv/.ready says afterwards."""
    started = time.time()
    new = make_venv(version)
    pin = re.findall(r"^torch==([\w.]+)", read(wanted[0]), re.M)[0]
    build = torch_build(offered_versions("torch"), pin, platform.system())
    offered_versions("streamlit")  # torch may come from a local folder: is the rest within reach?
    problem = disk_problem(shutil.disk_usage(VENV).free, build) if new else ""
    if problem:
        stop(problem)
    if new and build == "cuda" and not shutil.which("nvidia-smi"):
        say(
            "no NVIDIA card found (no nvidia-smi), and pip's torch for Linux brings CUDA: "
            f"{HOLDS_GB['cuda']} GB in all. For the CPU build ({HOLDS_GB['cpu']} GB) press Ctrl-C "
            "and add PIP_EXTRA_INDEX_URL=<address of PyTorch's CPU wheels, which its installation "
            "page shows under CPU> to the same make command."
        )
        if sys.stdin.isatty():
            time.sleep(10)
    if new:
        say(
            f"Python {platform.python_version()}, torch for {build.upper()}, about "
            f"{HOLDS_GB[build]} GB in .venv; some minutes, once."
        )
    before = read(READY)
    write(READY, UNDER_WAY)
    scratch = os.path.abspath(
        os.path.join(VENV, "tmp")
    )  # not /tmp, which may be a small memory disk
    os.makedirs(scratch, exist_ok=True)
    command = [
        PYTHON,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        *(word for name in wanted for word in ("-r", name)),
    ]
    if subprocess.call(command, env=dict(os.environ, TMPDIR=scratch)):
        write(READY, before)  # pip gave up in good order, so what was there is as good as before
        full = shutil.disk_usage(VENV).free < 5e8
        stop(
            ("the disk is full: make room" if full else "pip stopped as printed above: mend that")
            + ", then make again."
        )
    shutil.rmtree(scratch)
    write(READY, ready)
    say(f"ready after {time.time() - started:.0f} s.")


def audit():
    """Report known weaknesses of the pinned packages; ends with pip-audit's exit status.

    The tool gets an environment of its own for the time of its run.
    """
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([PYTHON, "-m", "venv", folder], check=True)
        python = os.path.join(folder, "bin", "python")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        install = [python, "-m", "pip", "install", "--no-input", "--retries", "1", "pip-audit"]
        if subprocess.run(install, **quiet).returncode:
            stop("audit: pip-audit cannot be fetched here; it needs a network.")
        asked = [a for name in TESTS for a in ("-r", name)]
        command = [python, "-m", "pip_audit", "--no-deps", "--disable-pip", *asked]
        found = subprocess.run(command, capture_output=True, text=True)
    print(found.stdout, end="", flush=True)
    problem = audit_problem(found.stdout + found.stderr)
    if problem:
        stop(problem)
    print(found.stderr, end="")
    sys.exit(found.returncode)


def audit_problem(said):
    """Why what pip-audit said is no answer, in one line, or "" .

    Of a package that it cannot look up it says so, and ends as if nothing were known of it.
    """
    if re.search("ConnectionError|ConnectTimeout|Max retries|ServiceError", said):
        return "audit: the list of weaknesses cannot be reached; it needs a network."
    unknown = len(re.findall("could not be audited", said))
    if unknown:
        return (
            f"audit: {unknown} packages could not be looked up, so nothing is known of them; "
            "run make audit where PyPI itself can be reached."
        )
    return ""


def _importable(module):
    try:
        __import__(module)
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["audit"]:
            audit()
        if sys.argv[1:2] == ["port"]:
            problem = port_problem(sys.argv[2])
            if problem:
                stop(problem)
        else:
            set_up(TESTS if sys.argv[1:2] == ["test"] else RUNTIME)
    except KeyboardInterrupt:
        stop("stopped; make again goes on with what was downloaded.")
    except OSError as error:
        stop(f"{error}: mend that, then make again.")
