"""Fetching over HTTP from a server that does what servers do.

No ranges, cut connections, wrong sums, wrong sizes, refusals, redirects.
"""

import hashlib
import http.server
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import files
from core.__main__ import main
from core.data import download
from core.data.download import FetchError

AUDIO, VIDEOS = (
    "Audio_Speech_Actors_01-24.zip",
    ["Video_Speech_Actor_01.zip", "Video_Speech_Actor_02.zip"],
)
KILLS = max(
    1, round(0.4 * int(os.environ.get("FAULTS", "5")))
)  # the other part falls to test_preparation_interrupted.py


class Record(http.server.ThreadingHTTPServer):
    """A record with three files.

    `fault(name, attempt)` may give a dict of what goes wrong with one answer.
    """

    def __init__(self, size=200_000):
        super().__init__(("127.0.0.1", 0), Handler)
        rng = np.random.default_rng(0)
        self.content = {name: rng.bytes(size + i) for i, name in enumerate((AUDIO, *VIDEOS))}
        self.home = f"http://127.0.0.1:{self.server_port}"
        self.base = f"{self.home}/api/records/1188976"
        self.extra, self.asked, self.sent = [], [], 0
        self.fault = lambda name, attempt: {}
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def listing(self):
        def entry(name, data):
            checksum = "md5:" + hashlib.md5(data).hexdigest()
            return {
                "key": name,
                "size": len(data),
                "checksum": checksum,
                "links": {"self": f"{self.home}/files/{name}"},
            }

        return {"files": [entry(n, c) for n, c in self.content.items()] + self.extra}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1].partition("?")[0]
        self.server.asked.append((name, self.headers.get("Range")))
        fault = self.server.fault(name, sum(n == name for n, _ in self.server.asked))
        whole = fault.get("content", self.server.content.get(name))
        if name == "1188976":
            whole = fault.get("content", json.dumps(self.server.listing()).encode())
        status = fault.get("status", 200 if whole is not None else 404)
        if status >= 300:
            self.send_response(status)
            for key, value in fault.get("headers", {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        begin = (
            int(self.headers["Range"][6:-1])
            if self.headers.get("Range") and not fault.get("no ranges")
            else 0
        )
        if begin and begin >= len(whole):
            return self.send_error(416)
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header(
                "Content-Range", fault.get("span", f"bytes {begin}-{len(whole) - 1}/{len(whole)}")
            )
        data = whole if "span" in fault else whole[begin:]
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        for i in range(0, len(data), 16_384):
            block = data[i : i + 16_384]
            if "cut" in fault and i + len(block) > fault["cut"]:
                self.wfile.write(block[: max(0, fault["cut"] - i)])
                self.close_connection = True
                return None
            try:
                self.wfile.write(block)
            except OSError:
                return None  # the client was killed
            self.server.sent += len(block) if name.endswith(".zip") else 0
            time.sleep(fault.get("pause", 0))
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def record(monkeypatch):
    monkeypatch.setattr(download, "FIRST_WAIT", 0.01)
    server = Record()
    yield server
    server.shutdown()
    server.server_close()


def same(record, folder, names=(AUDIO, *VIDEOS)):
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        [".fetch.lock", *names]
    )  # and nothing half done
    return all((folder / n).read_bytes() == record.content[n] for n in names)


def test_all_files_come_once_with_their_progress(record, tmp_path):
    said = []
    paths = download.fetch_corpus(
        "ravdess", tmp_path / "r", tick=lambda d, t: said.append((d, t)), base=record.base
    )
    assert [p.name for p in paths] == [AUDIO, *VIDEOS]
    assert same(record, tmp_path / "r")
    total = sum(map(len, record.content.values()))
    assert said[-1] == (total, total)
    assert [d for d, _ in said] == sorted(d for d, _ in said)
    asked = len(record.asked)
    assert download.fetch_corpus("ravdess", tmp_path / "r", base=record.base) == paths
    assert len(record.asked) == asked + 1  # the list alone
    (tmp_path / "r" / AUDIO).write_bytes(
        b"x" * len(record.content[AUDIO])
    )  # of the right size, and wrong
    download.fetch_corpus("ravdess", tmp_path / "r", base=record.base)
    assert same(record, tmp_path / "r")


def test_only_what_is_wanted(record, tmp_path):
    download.fetch_corpus("ravdess", tmp_path, ("audio",), base=record.base)
    assert same(record, tmp_path, [AUDIO])
    with pytest.raises(FetchError, match="has no song"):
        download.fetch_corpus("ravdess", tmp_path, ("song",), base=record.base)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 220_000), max_size=5), st.booleans())
def test_cut_connections_are_taken_up_where_they_broke(cuts, ranges):
    server, patience = Record(), download.FIRST_WAIT
    download.FIRST_WAIT = 0.001
    server.fault = lambda name, n: (
        {}
        if name == "1188976"
        else ({} if ranges else {"no ranges": 1}) | ({"cut": cuts[n - 1]} if n <= len(cuts) else {})
    )
    folder = Path(os.environ.get("TMPDIR", "/tmp"), f"dacssgan-cuts-{os.getpid()}")
    try:
        download.fetch_corpus("ravdess", folder, ("audio",), base=server.base)
        assert same(server, folder, [AUDIO])
        if ranges:
            assert server.sent <= len(server.content[AUDIO]) + 16_384 * len(cuts)  # nothing twice
    finally:
        download.FIRST_WAIT = patience
        server.shutdown()
        server.server_close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("wrong", [b"x" * 200_000, b"x" * 100, b"x" * 300_000, b""])
def test_a_wrong_file_is_removed_and_fetched_once_again(record, tmp_path, wrong):
    record.fault = lambda name, n: {"content": wrong} if name == AUDIO and n == 1 else {}
    download.fetch_corpus("ravdess", tmp_path, ("audio",), base=record.base)
    assert same(record, tmp_path, [AUDIO])
    (tmp_path / AUDIO).unlink()
    record.fault = lambda name, n: {"content": wrong} if name == AUDIO else {}
    with pytest.raises(
        FetchError, match=r"has (the md5|\d.* bytes instead).*twice; it was removed"
    ):
        download.fetch_corpus("ravdess", tmp_path, ("audio",), base=record.base)
    assert same(record, tmp_path, [])


def test_a_server_that_is_away_for_a_moment(record, tmp_path):
    busy = {"status": 503, "headers": {"Retry-After": "0"}}
    record.fault = lambda name, n: busy if n <= 2 else {}
    download.fetch_corpus("ravdess", tmp_path, base=record.base)
    assert same(record, tmp_path)


def test_a_server_that_stays_away_or_refuses(record, tmp_path):
    record.fault = lambda name, n: {"status": 503} if name == AUDIO else {}
    with pytest.raises(
        FetchError,
        match=rf"{AUDIO}: the server answers 503, {download.MAX_FAILED_ATTEMPTS} times in a row; "
        "0 of 200,000 bytes are kept",
    ):
        download.fetch_corpus("ravdess", tmp_path, ("audio",), base=record.base)
    record.fault = lambda name, n: {"status": 404} if name == AUDIO else {}
    with pytest.raises(FetchError, match="refused with status 404"):
        download.fetch_corpus("ravdess", tmp_path, ("audio",), base=record.base)


def test_without_the_list_the_audio_is_known_and_the_videos_are_not(record, tmp_path, monkeypatch):
    data = record.content[AUDIO]
    monkeypatch.setattr(download, "AUDIO_ZIP", (AUDIO, len(data), hashlib.md5(data).hexdigest()))
    for broken in (
        {"status": 404},
        {"status": 500},
        {"content": b"<html>"},
        {"content": b'{"files": 3}'},
    ):
        record.fault = lambda name, n, broken=broken: broken if name == "1188976" else {}
        download.fetch_corpus("ravdess", tmp_path, ("audio",), base=record.base)
        assert same(record, tmp_path, [AUDIO])
        (tmp_path / AUDIO).unlink()
        with pytest.raises(FetchError, match="list of files .* cannot be read"):
            download.fetch_corpus("ravdess", tmp_path, base=record.base)


def test_no_network_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download, "FIRST_WAIT", 0.01)
    for base in (
        "http://127.0.0.1:9/api/records/1188976",
        "https://no-such-host.invalid/api/records/1188976",
    ):
        monkeypatch.setattr(download, "RECORD_ADDRESS", base)
        before = signal.getsignal(signal.SIGTERM)
        assert main(["data", "fetch", "ravdess", "--to", str(tmp_path)]) == 1
        signal.signal(signal.SIGTERM, before)
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1
        assert "no network" in said[0]


def test_only_plain_names_and_web_addresses_are_taken_from_a_server(record, tmp_path):
    good = record.listing()["files"][0]
    record.extra = [
        good | {"key": name}
        for name in ("../../" + AUDIO, "/etc/passwd", "..", VIDEOS[0] + "/x", "a\\b")
    ]
    download.fetch_corpus("ravdess", tmp_path / "r", base=record.base)
    assert same(record, tmp_path / "r")
    assert [p.name for p in tmp_path.iterdir()] == ["r"]
    for link in ("file:///etc/passwd", "ftp://127.0.0.1/x"):
        record.extra = [good | {"links": {"self": link}}]
        with pytest.raises(FetchError, match="not followed"):
            download.fetch_corpus("ravdess", tmp_path / "s", base=record.base)
        record.extra = []
        record.fault = lambda name, n, link=link: (
            {"status": 302, "headers": {"Location": link}} if name == AUDIO else {}
        )
        with pytest.raises(FetchError, match="not followed|is not allowed"):
            download.fetch_corpus("ravdess", tmp_path / "s", ("audio",), base=record.base)
        record.fault = lambda name, n: {}
    here = f"{record.home}/files/{VIDEOS[0]}"
    record.fault = lambda name, n: (
        {"status": 302, "headers": {"Location": here}} if name == AUDIO else {}
    )
    record.content[VIDEOS[0]] = record.content[AUDIO]
    download.fetch_corpus(
        "ravdess", tmp_path / "s", ("audio",), base=record.base
    )  # the same scheme is followed
    assert download.check_address("https://a/b", "http://a/b")
    with pytest.raises(FetchError):
        download.check_address("http://a/b", "https://a/b")


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b"{", b'{"files": [1]}'])
def test_a_list_that_is_none_is_said_in_words(record, tmp_path, content):
    record.fault = lambda name, n: {"content": content} if name == "1188976" else {}
    with pytest.raises(FetchError, match=r"list of files .* cannot be read .* try again later"):
        download.fetch_corpus("ravdess", tmp_path / "r", base=record.base)


def test_an_answer_for_other_bytes_is_not_appended(record, tmp_path):
    begun = download.part_path(
        tmp_path, download.RemoteFile(AUDIO, 0, hashlib.md5(record.content[AUDIO]).hexdigest(), "")
    )
    begun.write_bytes(record.content[AUDIO][:5_000])
    wrong = {"span": "bytes 0-199999/200000"}
    record.fault = lambda name, n: (
        {1: wrong, 2: {"cut": 9_000}, 3: wrong}.get(n, {}) if name == AUDIO else {}
    )
    download.fetch_corpus("ravdess", tmp_path, ("audio",), base=record.base)
    assert same(record, tmp_path, [AUDIO])


def test_room_is_asked_for_first(record, tmp_path, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 300_000_000)
    )
    monkeypatch.setattr(download, "MIN_FREE_BYTES", 299_900_000)
    with pytest.raises(
        FetchError, match=r"Audio_Speech.* and 2 more need 0\.0 GB more and .* has 0\.3 GB free"
    ):
        download.fetch_corpus("ravdess", tmp_path, base=record.base)
    assert record.asked == [("1188976", None)]


def test_stopped_and_continued(record, tmp_path):
    record.fault = lambda name, n: {
        "pause": 0.01
    }  # so that it comes in parts, however fast the machine is
    here = [0]
    with pytest.raises(files.StopRequested):
        download.fetch_corpus(
            "ravdess",
            tmp_path,
            base=record.base,
            tick=lambda done, _: here.append(done),
            should_stop=lambda: 0 < here[-1] < 200_000,
        )
    assert list(tmp_path.glob("*.part"))
    with (
        files.file_lock(tmp_path / ".fetch.lock", "x"),
        pytest.raises(files.BusyError, match=f"process {os.getpid()} "),
    ):
        download.fetch_corpus("ravdess", tmp_path, base=record.base)
    record.asked.clear()
    download.fetch_corpus("ravdess", tmp_path, base=record.base)
    assert same(record, tmp_path)
    assert any(span for _, span in record.asked)


CHILD = """
import sys
from pathlib import Path
from core.data import download
print("ready", flush=True)
download.fetch("ravdess", Path(sys.argv[1]), base=sys.argv[2])
"""


def test_killed_at_any_moment_it_goes_on(record, tmp_path):
    record.fault = lambda name, n: {"pause": 0.01}
    rng, root = random.Random(0), Path(__file__).resolve().parents[2]
    begun = time.monotonic()
    download.fetch_corpus("ravdess", tmp_path / "undisturbed", base=record.base)
    lasts = time.monotonic() - begun
    for kill in range(KILLS):
        folder = tmp_path / str(kill)
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder), record.base],
            cwd=root,
            stdout=subprocess.PIPE,
        )
        assert child.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0, lasts))
        child.kill()
        child.communicate()
        kept = {p.name: p.stat().st_size for p in folder.glob("*.*") if p.name != ".fetch.lock"}
        record.asked.clear()
        download.fetch_corpus("ravdess", folder, base=record.base)
        assert same(record, folder)
        for part, size in kept.items():  # what is there is not asked for again
            name = part.partition(".zip")[0] + ".zip"
            spans = [span for n, span in record.asked if n == name]
            assert spans == (
                [] if size == len(record.content[name]) else [f"bytes={size}-" if size else None]
            )
        shutil.rmtree(folder)


@pytest.mark.parametrize("corpus", ["crema-d", "fer2013", "demo"])
def test_what_to_type_for_the_others(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DACSSGAN_DATA", str(tmp_path / "my data"))
    before = signal.getsignal(signal.SIGTERM)
    assert main(["data", "fetch", corpus]) == 0
    signal.signal(signal.SIGTERM, before)
    said = capsys.readouterr().out
    assert f"python -m core data prepare {corpus}" in said
    if corpus == "crema-d":
        assert (
            f"git -C '{tmp_path}/my data/raw/crema-d' lfs pull --include" in said
        )  # may be pasted as it is
    with pytest.raises(FetchError, match="prepare " + corpus):
        download.fetch_corpus(corpus, tmp_path)
