"""A proxy before a real S3 server that makes trouble by script: refused, late, cut and lost, at any call."""

from __future__ import annotations

import http.client
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from runbooks.clients.archive_client import open_client
from runbooks.sandbox.s3 import S3Server

SILENCE = 1.0
"""How long the client of these tests waits for an answer, in seconds."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    content: bytes


@dataclass
class Exchange:
    """What a fault may do with one request."""

    handler: BaseHTTPRequestHandler
    upstream: int
    ending: threading.Event

    def happen(self) -> Answer:
        """Let the request reach the server; returns its answer."""
        length = int(self.handler.headers.get("Content-Length") or 0)
        body = self.handler.rfile.read(length)
        headers = {name: value for name, value in self.handler.headers.items() if name.lower() != "expect"}
        server = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        try:
            server.request(self.handler.command, self.handler.path, body=body, headers=headers)
            found = server.getresponse()
            return Answer(found.status, found.msg, found.read())
        finally:
            server.close()

    def swallow(self, share: float = 1.0) -> None:
        self.handler.rfile.read(int(int(self.handler.headers.get("Content-Length") or 0) * share))

    def answer(self, answer: Answer, share: float = 1.0) -> None:
        self.handler.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("transfer-encoding", "connection"):
                self.handler.send_header(name, value)
        if "Content-Length" not in answer.headers and answer.status not in (204, 304):
            self.handler.send_header("Content-Length", str(len(answer.content)))
        self.handler.end_headers()
        if self.handler.command != "HEAD":
            self.handler.wfile.write(answer.content[: math.ceil(len(answer.content) * share)])
        if share < 1:
            self.cut()

    def cut(self) -> None:
        self.handler.close_connection = True


Fault = Callable[[Exchange], None]


def says(status: int, code: str) -> Fault:
    """An answer without any effect."""

    def fault(exchange: Exchange) -> None:
        exchange.swallow()
        headers = Message()
        headers["Content-Type"] = "application/xml"
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>by script</Message></Error>"
        exchange.answer(Answer(status, headers, text.encode()))

    return fault


def error(exchange: Exchange) -> None:
    says(500, "InternalError")(exchange)


def cut_request(exchange: Exchange) -> None:
    """The connection ends in the middle of the request: it never arrives."""
    exchange.swallow(0.5)
    exchange.cut()


def lost(exchange: Exchange) -> None:
    """It happened, and nobody hears of it."""
    exchange.happen()
    exchange.cut()


def error_after(exchange: Exchange) -> None:
    """It happened, and a gateway on the way says that it did not."""
    exchange.happen()
    says(502, "BadGateway")(_emptied(exchange))


def half(exchange: Exchange) -> None:
    """It happened, and the answer breaks off in the middle."""
    exchange.answer(exchange.happen(), share=0.5)


def slow(exchange: Exchange) -> None:
    """It happened, but the client has gone before it is told."""
    found = exchange.happen()
    exchange.ending.wait(SILENCE * 1.5)
    try:
        exchange.answer(found)
    except OSError:
        exchange.cut()


def _emptied(exchange: Exchange) -> Exchange:
    """Its body has been read."""
    if exchange.handler.headers.get("Content-Length"):
        exchange.handler.headers.replace_header("Content-Length", "0")
    return exchange


FAULTS: dict[str, Fault] = {
    "error": error,
    "cut request": cut_request,
    "lost": lost,
    "error after": error_after,
    "half": half,
    "slow": slow,
}


def operation(method: str, path: str) -> str:
    """What boto3 calls the request."""
    parts = urlsplit(path)
    query = parse_qs(parts.query, keep_blank_values=True)
    on_bucket = parts.path.strip("/").count("/") == 0
    if method == "PUT":
        return "upload_part" if "partNumber" in query else "put_object"
    if method == "POST":
        return "create_multipart_upload" if "uploads" in query else "complete_multipart_upload"
    if method == "DELETE":
        return "abort_multipart_upload" if "uploadId" in query else "delete_object"
    if method == "HEAD":
        return "head_bucket" if on_bucket else "head_object"
    if not on_bucket:
        return "get_object_tagging" if "tagging" in query else "get_object"
    return next(
        (name for key, name in _LISTS.items() if key in query),
        "list_objects_v2",
    )


_LISTS = {"uploads": "list_multipart_uploads", "versions": "list_object_versions"}


class S3Proxy:
    """In front of `server` while the `with` block lasts."""

    def __init__(self, server: S3Server) -> None:
        self._server = server
        self.seen: list[str] = []
        """The operations, in the order they came."""
        self._at: dict[int, Fault] = {}
        self._of: dict[str, deque[Fault | None]] = {}
        self._always: dict[str, Fault] = {}
        self._from: tuple[int, Fault] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> S3Proxy:
        proxy, self._ending = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                fault = proxy._next(operation(self.command, self.path))
                exchange = Exchange(self, proxy._server.port, proxy._ending)
                if fault:
                    fault(exchange)
                else:
                    exchange.answer(exchange.happen())

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    self.close_connection = True  # the client has gone

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.005,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def client(self) -> Any:
        return open_client(
            region=self._server.region,
            endpoint=self.endpoint,
            access_key=self._server.access_key,
            secret_key=self._server.secret_key,
            silence=SILENCE,
        )

    def fail_call(self, number: int, fault: Fault) -> None:
        """The call of this number from now on (from 0) meets the fault."""
        self._at[len(self.seen) + number] = fault

    def fail(self, name: str, faults: Iterable[Fault | None]) -> None:
        """The next calls of the operation, one fault each; None lets one pass."""
        self._of[name] = deque(faults)

    def fail_always(self, name: str, fault: Fault) -> None:
        self._always[name] = fault

    def fail_from(self, number: int, fault: Fault) -> None:
        """All calls from this number on."""
        self._from = (len(self.seen) + number, fault)

    def heal(self) -> None:
        self._at, self._of, self._always, self._from = {}, {}, {}, None

    def _next(self, name: str) -> Fault | None:
        with self._lock:
            number = len(self.seen)
            self.seen.append(name)
            if number in self._at:
                return self._at[number]
            if self._from and number >= self._from[0]:
                return self._from[1]
            if self._of.get(name):
                return self._of[name].popleft()
            return self._always.get(name)
