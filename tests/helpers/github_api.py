"""A stand-in of GitHub's REST API on this machine: the comments of one pull request."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class Api(HTTPServer):
    """Comments of one pull request."""

    comments: list[dict[str, Any]]
    refuse: int = 0
    tokens: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Api

    def _answer(self, content: Any, code: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(self.server.refuse or code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _read(self) -> dict[str, Any]:
        self.server.tokens.append(self.headers["Authorization"])
        return dict(json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}"))

    def do_GET(self) -> None:
        self._read()
        page = int(self.path.split("page=")[-1])
        self._answer(self.server.comments[(page - 1) * 100 : page * 100])

    def do_POST(self) -> None:
        comment = {"id": len(self.server.comments), "html_url": "here", **self._read()}
        self.server.comments.append(comment)
        self._answer(comment, 201)

    def do_PATCH(self) -> None:
        comment = self.server.comments[int(self.path.rsplit("/", 1)[-1])]
        comment.update(self._read())
        self._answer(comment)

    def log_message(self, *arguments: Any) -> None: ...


@contextmanager
def serve(comments: list[dict[str, Any]]) -> Iterator[Api]:
    """Answer on a free port."""
    server = Api(("127.0.0.1", 0), Handler)
    server.comments, server.tokens = comments, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)
