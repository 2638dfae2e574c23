"""Files by their address, from a server of this process: whole, of the right hash, not too large, or a sentence."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from yoloquant.errors import DataError
from yoloquant.evaluation.fetch import fetch, is_address
from yoloquant.evaluation.stored_baseline import stored_baseline

CONTENT = b"results" * 100
ASKED: list[str] = []


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ASKED.append(self.path)
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "/a.npz")
            self.end_headers()
            return
        self.send_response(404 if self.path.startswith("/none") else 200)
        if not self.path.startswith("/endless"):
            self.send_header("Content-Length", str(len(CONTENT) + 5 * self.path.startswith("/cut")))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("YOLOQUANT_CACHE", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    ASKED.clear()
    serving = HTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()


def test_a_file_is_fetched_and_kept_by_its_hash(server: str) -> None:
    assert is_address(server) and not is_address("a.npz") and not is_address(Path("a"))
    digest = hashlib.sha256(CONTENT).hexdigest()
    place = fetch(f"{server}/a.npz?token=secret#sha256={digest}")
    assert place.read_bytes() == CONTENT and place.suffix == ".npz"
    assert fetch(f"{server}/a.npz?token=secret#sha256={digest}") == place and len(ASKED) == 1
    place.write_bytes(b"changed")
    assert fetch(f"{server}/a.npz?token=secret#sha256={digest}").read_bytes() == CONTENT and len(ASKED) == 2
    assert fetch(f"{server}/moved").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/none.npz?token=secret", "cannot be fetched .*Not Found"),
        ("/cut.npz", "cut off after 700 of 705 bytes|cannot be fetched"),
        (f"/a.npz#sha256={'0' * 64}", "wanted was 0000"),
        ("/a.npz#md5=1", "behind # stands sha256="),
    ],
)
def test_what_is_wrong_leaves_nothing(server: str, path: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        fetch(server + path)
    assert "secret" not in str(caught.value)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.parametrize("path", ["/a.npz", "/endless.npz"])
def test_too_much_is_refused(server: str, path: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has .*MB.* that are fetched"):
        fetch(server + path, most=100)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_other_schemes_and_files_that_are_no_results(server: str) -> None:
    with pytest.raises(DataError, match="starts with https://"):
        fetch("file:///etc/passwd")
    with pytest.raises(DataError, match="no results file"):
        stored_baseline(f"{server}/a.npz")
