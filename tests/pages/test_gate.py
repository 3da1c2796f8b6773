"""A real server: it asks nobody for anything, refuses strange hosts and origins, sends its headers.

The server runs under a socket module that records each look-up and each address beyond the
loopback, and fails it.
"""

from __future__ import annotations

import http.client
import json
import re
from urllib.parse import urlsplit

import pytest

from benchmarks import browser
from tests.support import trained_runs

# Python imports this module by itself at its start.
RECORDER = """
import ipaddress, os, socket

LOG = os.environ["ASKED_LOG"]

def tell(what):
    with open(LOG, "a") as log:
        log.write(f"{what}\\n")

def is_own(host):
    try:
        return host in (None, "", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

def guarded(name, real, host_of):
    def call(*arguments, **options):
        host = host_of(*arguments)
        if not is_own(host):
            tell(f"{name} {host}")
            raise OSError(f"{name}: nothing leaves this machine")
        return real(*arguments, **options)
    return call

for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "create_connection"):
    first = lambda where, *_: where[0] if isinstance(where, tuple) else where
    setattr(socket, name, guarded(name, getattr(socket, name), first))

class Socket(socket.socket):
    def connect(self, address):
        return guarded("connect", super().connect, lambda a: a[0] if isinstance(a, tuple) else "")(
            address
        )
    def connect_ex(self, address):
        return guarded("connect", super().connect_ex, lambda a: a[0])(address)
    def sendto(self, data, *more):
        return guarded("sendto", super().sendto, lambda d, *m: m[-1][0])(data, *more)

socket.socket = Socket
tell("ready")
"""


@pytest.fixture(scope="module")
def recorded_server(tmp_path_factory):
    """The server's address, and a function that reads what it has asked the network for."""
    home = tmp_path_factory.mktemp("gate")
    (home / "sitecustomize.py").write_text(RECORDER)
    log = home / "asked.log"
    environment = trained_runs.home_environment(home)
    environment |= {"PYTHONPATH": str(home), "ASKED_LOG": str(log)}
    environment["STREAMLIT_SERVER_CORS_ALLOWED_ORIGINS"] = "https://studio.example.org"

    def asked() -> set[str]:
        lines = set(log.read_text().splitlines())
        assert "ready" in lines  # the recorder is at work
        return lines - {"ready"}

    with browser.studio_server(home / "server.log", environment) as running:
        yield urlsplit(running.address), asked


def ask(address, path="/", connection="keep-alive", **headers):
    """Status, headers and text of the answer to one GET."""
    asking = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
    headers = {"Host": address.netloc, "Connection": connection} | {
        k.replace("_", "-"): v for k, v in headers.items()
    }
    asking.putrequest("GET", path, skip_host=True)
    for name, value in headers.items():
        asking.putheader(name, value)
    asking.endheaders()
    answer = asking.getresponse()
    text = "" if answer.status == 101 else answer.read().decode(errors="replace")
    asking.close()
    return answer.status, dict(answer.getheaders()), text


def open_websocket(address, **headers):
    """The status that a browser of some page gets for its websocket; 101 opens it."""
    upgrade = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    return ask(address, "/_stcore/stream", "Upgrade", **upgrade, **headers)[0]


def test_a_strange_origin_is_refused_and_nobody_is_asked(recorded_server):
    address, asked = recorded_server
    for origin in (
        "https://evil.example",
        "http://10.0.0.7:8501",
        "null",
        "http://127.0.0.1:1",  # another server of this machine
        f"http://{address.netloc}.evil.example",
        "https://studio.example.org.evil.example",
    ):
        assert open_websocket(address, Origin=origin) == 403, origin
    assert asked() == set()


def test_its_own_pages_and_the_named_origin_are_let_in_and_nobody_is_asked(recorded_server):
    address, asked = recorded_server
    for headers in (
        {"Origin": f"http://{address.netloc}"},
        {"Origin": "https://studio.example.org"},
        {},  # no browser
    ):
        assert open_websocket(address, **headers) == 101, headers
    assert asked() == set()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "a@127.0.0.1"])
def test_a_strange_host_gets_nothing(recorded_server, host):
    address, asked = recorded_server
    status, _, text = ask(address, Host=host)
    assert (status, "server.allowedHosts" in text) == (403, True)
    assert open_websocket(address, Host=host, Origin=f"http://{host}") == 403
    assert asked() == set()


def test_answers_forbid_frames_and_what_lies_elsewhere(recorded_server):
    address, _ = recorded_server
    paths = ["/", "/listen", "/_stcore/health"]
    paths += re.findall(r'src="\.?(/static/[^"]+\.js)"', ask(address)[2])
    assert len(paths) > 3
    for path in paths:
        status, headers, _ = ask(address, path)
        policy = headers["content-security-policy"].split("; ")
        assert (status, headers["x-frame-options"]) == (200, "DENY")
        assert {"frame-ancestors 'none'", "default-src 'self' data: blob:"} <= set(policy)
        assert not any(re.search(r"\*|https?:|wss?:", one) for one in policy)


def test_the_servers_figures_are_no_visitors_business(recorded_server):
    address, _ = recorded_server
    assert ask(address, "/_stcore/metrics")[0] == 403
    hosts = json.loads(ask(address, "/_stcore/host-config")[2])
    assert hosts["allowedOrigins"]  # Streamlit's own sites, which frame-ancestors shuts out
