"""The Neon API over real sockets, with faults by script: cut, late, garbled and wrong answers."""

from __future__ import annotations

import json
import re
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from runbooks.clients.neon import Neon
from runbooks.clients.neon_account import NeonAccount
from runbooks.model.dsn import Secret
from tests.fakes.neon_memory import PROJECT, NeonMemory, Reply

KEY = "napi_planted0key1that2must3not4show"


@dataclass(frozen=True)
class Seen:
    """A request as it came in, and how it was answered (status 0: cut)."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    key: str | None
    status: int
    reply: Any
    port: int = 0
    """The client's: one for each connection."""


@dataclass
class Exchange:
    """What a fault may do with one request."""

    handler: BaseHTTPRequestHandler
    happen: Callable[[], Reply]
    """Let the request take effect; returns the answer it deserves."""
    record: Callable[[int, Any], None]
    """Called once, before the client can know."""

    def answer(self, status: int, reply: Any, headers: Mapping[str, str] | None = None) -> None:
        self.record(status, reply)
        content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.handler.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.handler.send_header(name, value)
        if status != 204:
            self.handler.send_header("Content-Length", str(len(content)))
        self.handler.end_headers()
        if status != 204:
            self.handler.wfile.write(content)

    def cut(self) -> None:
        self.record(0, None)
        self.handler.close_connection = True

    def half(self, reply: Any) -> None:
        self.cut()
        content = json.dumps(reply).encode()
        self.handler.send_response(200)
        self.handler.send_header("Content-Type", "application/json")
        self.handler.send_header("Content-Length", str(len(content)))
        self.handler.end_headers()
        self.handler.wfile.write(content[: len(content) // 2])


Fault = Callable[[Exchange], None]


def says(status: int, message: str = "", code: str = "", **headers: str) -> Fault:
    """An answer without any effect."""
    body = {"request_id": "req-1234", "code": code, "message": message}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda exchange: exchange.answer(status, body, named)


def busy(exchange: Exchange) -> None:
    message = "project already has running conflicting operations, scheduling of new ones is prohibited"
    says(423, message)(exchange)


def cut_before(exchange: Exchange) -> None:
    """The connection ends and nothing happened."""
    exchange.cut()


def cut_after(exchange: Exchange) -> None:
    """It happened, but nobody hears of it."""
    exchange.happen()
    exchange.cut()


def half_after(exchange: Exchange) -> None:
    """It happened, and the answer breaks off in the middle."""
    exchange.half(exchange.happen()[1])


def gateway_after(exchange: Exchange) -> None:
    """It happened, and a proxy on the way answers 524 in HTML."""
    exchange.happen()
    exchange.answer(524, b"<html>a timeout occurred</html>", {"Content-Type": "text/html"})


def html_after(exchange: Exchange) -> None:
    """It happened, and a proxy on the way shows a page of its own instead of the answer."""
    exchange.happen()
    exchange.answer(200, b"<html>please log in</html>", {"Content-Type": "text/html; charset=utf-8"})


def gives(change: Callable[[Any], Any]) -> Fault:
    """The right answer, altered: `change` gets the body and returns the one to send."""

    def fault(exchange: Exchange) -> None:
        status, body = exchange.happen()
        exchange.answer(status, change(json.loads(json.dumps(body))))

    return fault


def everything_told(error: BaseException) -> str:
    """All that a traceback, a log or a journal could print of an error."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))


@dataclass
class FakeNeon(NeonMemory):
    """A Neon API at `api` while the `with` block lasts."""

    progress: list[str] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._faults: list[tuple[str, re.Pattern[str], deque[Fault]]] = []
        self._clients: dict[str, Neon] = {}

    # --- for tests -------------------------------------------------------------------------------------------------

    def __enter__(self) -> FakeNeon:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # connections may be kept

            def handle_any(self) -> None:
                fake._serve(self)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/api/v2"

    def neon(self, **other: Any) -> Neon:
        """A client of this fake, on its clock; the same one for the same wishes."""
        wishes = repr(sorted(other.items()))
        if wishes not in self._clients:
            self._clients[wishes] = Neon(**{**self._settings(), "project_id": PROJECT, **other})
        return self._clients[wishes]

    def account(self, **other: Any) -> NeonAccount:
        return NeonAccount(**{**self._settings(), **other})

    def _settings(self) -> dict[str, Any]:
        return {
            "api": self.api,
            "key": Secret(KEY),
            "clock": self.clock.now,
            "sleep": self.clock.sleep,
            "progress": self.progress.append,
        }

    def fail(self, method: str, path: str, *faults: Fault) -> None:
        """The next requests of `method` whose path ends in the pattern `path` meet these faults, one each."""
        self._faults.append((method, re.compile(f"(?:.*){path}"), deque(faults)))

    def changes(self) -> list[Seen]:
        return [one for one in self.seen if one.method != "GET"]

    # --- serving ---------------------------------------------------------------------------------------------------

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        path = parts.path.removeprefix("/api/v2")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        length = int(handler.headers.get("Content-Length") or 0)
        body = json.loads(handler.rfile.read(length)) if length else None
        method, key = handler.command, handler.headers.get("Authorization")
        exchange = Exchange(
            handler,
            happen=lambda: self.handle(method, path, query, body),
            record=lambda status, reply: self.seen.append(
                Seen(method, path, query, body, key, status, reply, handler.client_address[1])
            ),
        )
        fault = self._next_fault(method, path)
        if fault is not None:
            fault(exchange)
        elif key != f"Bearer {KEY}":
            says(401, "authorization header is not valid")(exchange)
        else:
            exchange.answer(*exchange.happen())

    def _next_fault(self, method: str, path: str) -> Fault | None:
        for wanted, pattern, faults in self._faults:
            if faults and wanted in (method, "*") and pattern.fullmatch(path):
                return faults.popleft()
        return None
