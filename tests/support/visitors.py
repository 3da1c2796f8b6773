"""Visitors without a browser: Streamlit's own messages over a websocket, an upload, a farewell.

`python -m tests.support.visitors --visitors 12` prints the server's memory before, while and after.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import ClientConnection, connect

from benchmarks import browser
from core.media import clips
from tests.support import media_files

LARGEST = 1.5 * 2**30  # bytes of the server with twelve visitors
KEPT_SHARE = 0.2  # by which it may be larger two minutes after they left
AFTER_SECONDS = 120.0
STEADY_SECONDS = 30.0
PAGE = "conformal", "step=chain&from=upload"  # a page's name and query, with an uploader of clips


def memory(pid: int) -> int:
    """Resident bytes of a process and its children, such as decoders."""
    total = 0
    for one in (pid, *_children(pid)):
        with contextlib.suppress(OSError, IndexError):  # it has ended
            status = Path(f"/proc/{one}/status").read_text()
            total += 1024 * int(status.partition("VmRSS:")[2].split()[0])
    return total


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _steady_memory(pid: int) -> int:
    """The memory of a process once it has not grown for STEADY_SECONDS."""
    largest, since = memory(pid), time.monotonic()
    while time.monotonic() - since < STEADY_SECONDS:
        time.sleep(1)
        if (now := memory(pid)) > 1.01 * largest:
            largest, since = now, time.monotonic()
    return memory(pid)


@dataclass
class Visitor:
    """A session of the studio; `visit` opens one."""

    address: str
    token: str  # against cross-site requests; the cookie and the header of an upload
    socket: ClientConnection
    session: str = ""
    uploaders: list[str] = field(default_factory=list)  # ids of the widgets that take a file
    texts: list[str] = field(default_factory=list)  # of the last run of the page
    exceptions: list[str] = field(default_factory=list)

    def run_page(self, file: tuple[str, str, int] | None = None) -> None:
        """Run the page; `file` is (id, name, size) of an upload, for its first uploader."""
        message = BackMsg()
        message.rerun_script.page_name, message.rerun_script.query_string = PAGE
        if file:
            state = message.rerun_script.widget_states.widgets.add()
            state.id = self.uploaders[0]
            info = state.file_uploader_state_value.uploaded_file_info.add()
            info.file_id, info.name, info.size = file
            info.file_urls.file_id = file[0]
        self.send(message)
        self.read_until("script_finished")

    def send(self, message: BackMsg) -> None:
        self.socket.send(message.SerializeToString())

    def read_until(self, kind: str, seconds: float = 900) -> ForwardMsg:
        """Read messages up to one of that kind, and keep what matters of the others."""
        end = time.monotonic() + seconds
        while True:
            message = ForwardMsg()
            message.ParseFromString(self.socket.recv(timeout=max(0.1, end - time.monotonic())))
            which = message.WhichOneof("type")
            if which == "new_session":
                self.session = message.new_session.initialize.session_id or self.session
                self.texts.clear()
            elif which == "delta" and message.delta.WhichOneof("type") == "new_element":
                self._keep(message.delta.new_element)
            if which == kind:
                return message

    def _keep(self, element) -> None:
        kind = element.WhichOneof("type")
        if kind == "file_uploader" and element.file_uploader.id not in self.uploaders:
            self.uploaders.append(element.file_uploader.id)
        elif kind == "exception":
            self.exceptions.append(f"{element.exception.type}: {element.exception.message}")
        elif kind == "alert":
            self.texts.append(element.alert.body)
        elif kind == "markdown":
            self.texts.append(element.markdown.body)

    def upload(self, name: str, data: bytes) -> None:
        """Send a file to the page's first uploader, and run the page with it."""
        ask = BackMsg()
        ask.file_urls_request.request_id = "1"
        ask.file_urls_request.file_names.append(name)
        ask.file_urls_request.session_id = self.session
        self.send(ask)
        urls = self.read_until("file_urls_response").file_urls_response.file_urls[0]
        boundary = "visitor"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        body = head.encode() + b"Content-Type: video/mp4\r\n\r\n" + data
        request = urllib.request.Request(
            f"{self.address}{urls.upload_url}",
            body + f"\r\n--{boundary}--\r\n".encode(),
            {
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "X-Xsrftoken": self.token,
                "Cookie": f"_streamlit_xsrf={self.token}",
            },
            method="PUT",
        )
        urllib.request.urlopen(request, timeout=60).close()
        self.run_page(file=(urls.file_id, name, len(data)))


@contextlib.contextmanager
def visit(address: str) -> Iterator[Visitor]:
    """A visitor who has PAGE open; he leaves with the block."""
    with urllib.request.urlopen(f"{address}/_stcore/health", timeout=60) as answer:
        headers: Message = answer.headers
        cookies = ";".join(headers.get_all("Set-Cookie") or [])
    token = cookies.partition("_streamlit_xsrf=")[2].partition(";")[0].strip('"')
    uri = address.replace("http", "ws") + "/_stcore/stream"
    more = {"subprotocols": ["streamlit", token], "max_size": None, "origin": address}
    with connect(uri, **more) as socket:  # type: ignore[arg-type]
        visitor = Visitor(address, token, socket)
        visitor.run_page()
        yield visitor


def film(folder: Path, seconds: float = 6.0) -> bytes:
    """A clip of moving noise, 640 x 360, that decodes into as many frames as a page keeps."""
    clips.write_clip(
        folder / "film.mp4",
        media_files.pictures(round(12 * seconds), 360, 640),
        12,
        media_files.tone(seconds),
    )
    return (folder / "film.mp4").read_bytes()


@dataclass(frozen=True)
class Stay:
    """What a number of visitors did to the server's memory, in bytes, and what failed."""

    before: int
    most: int
    after: int
    failures: list[str]


def receive(count: int, seconds: float, after: float = AFTER_SECONDS) -> Stay:
    """Open the studio to `count` visitors at once, who upload clips for that long, and leave."""
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as home:
        data = film(Path(home))
        with browser.studio_server(Path(home) / "log.txt", dict(os.environ)) as server:
            with visit(server.address) as first:  # what every page loads once
                first.upload("film.mp4", data)
            before = most = _steady_memory(server.pid)  # other pages are loaded meanwhile
            end = time.monotonic() + seconds

            def stay() -> None:
                try:
                    with visit(server.address) as one:
                        while True:
                            one.upload("film.mp4", data)
                            failures.extend(one.exceptions)
                            if time.monotonic() >= end:
                                return
                except Exception as e:  # a visitor who is turned away is a failure
                    failures.append(f"{type(e).__name__}: {e}")

            threads = [threading.Thread(target=stay) for _ in range(count)]
            for t in threads:
                t.start()
            while any(t.is_alive() for t in threads):
                most = max(most, memory(server.pid))
                time.sleep(0.5)
            leave = time.monotonic() + after
            while time.monotonic() < leave:
                time.sleep(1)
            return Stay(before, most, memory(server.pid), failures)


def judge(stay: Stay) -> list[str]:
    """What of a stay breaks the limits, in words."""
    found = list(stay.failures)
    if stay.most > LARGEST:
        found.append(f"{stay.most / 2**30:.2f} GB at the most, of {LARGEST / 2**30:.1f}")
    if stay.after > (1 + KEPT_SHARE) * stay.before:
        found.append(f"{stay.after / 2**20:.0f} MB after, of {stay.before / 2**20:.0f} before")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--after", type=float, default=AFTER_SECONDS)
    given = parser.parse_args()
    found = receive(given.visitors, given.seconds, given.after)
    sizes = (f"{n / 2**20:.0f} MB" for n in (found.before, found.most, found.after))
    print("before {}, at most {}, after {}".format(*sizes), *judge(found), sep="\n")
