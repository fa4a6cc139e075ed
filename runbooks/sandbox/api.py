"""The HTTP side: the key, JSON in and out, refusals in Neon's form."""

from __future__ import annotations

import hmac
import json
import logging
import socket
import socketserver
import uuid
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import psycopg

from runbooks.model.errors import BloomError
from runbooks.sandbox import routes
from runbooks.sandbox.archive import ROUTE, SandboxArchive
from runbooks.sandbox.faults import ApiFault, Fault
from runbooks.sandbox.plane import Answer, Call, Plane
from runbooks.sandbox.processes import LOCALHOST

log = logging.getLogger(__name__)

PREFIX = "/api/v2"
LARGEST_BODY = 1024 * 1024


class Api(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, plane: Plane, archive: SandboxArchive, key: str) -> None:
        """Raises OSError if the port is taken; 0 takes any."""
        self.plane = plane
        self.archive = archive
        self.key = key
        self._open: set[socket.socket] = set()
        super().__init__((LOCALHOST, port), _Handler)

    def server_bind(self) -> None:
        """Without HTTPServer's question to the name service, which may take its time and whose answer nobody needs."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = LOCALHOST, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        self._open.discard(request)
        super().close_request(request)

    def server_close(self) -> None:
        """Also ends connections that clients keep open: nothing is answered from a stack that has stopped."""
        super().server_close()
        for request in tuple(self._open):
            with suppress(OSError):  # its client was quicker
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.exception("a request could not be answered")

    @property
    def url(self) -> str:
        return f"http://{LOCALHOST}:{self.server_address[1]}{PREFIX}"


class _Handler(BaseHTTPRequestHandler):
    server: Api
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        request_id = self.headers.get("X-Request-ID") or str(uuid.uuid4())
        try:
            status, body = self._answer()
        except ApiFault as fault:
            status, body = fault.status, _refusal(fault, request_id)
        except (BloomError, psycopg.Error, OSError) as error:
            log.exception("%s %s failed", self.command, urlsplit(self.path).path)
            status, body = 500, _refusal(Fault.OURS(why=error), request_id)
        self._send(status, body, request_id)

    def _answer(self) -> Answer:
        raw = self._read()
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.server.key}".encode()):
            raise Fault.BAD_KEY()
        parts = urlsplit(self.path)
        if parts.path == ROUTE and self.command in ("GET", "POST"):
            return _archive(self.server.archive, start=self.command == "POST")
        if not parts.path.startswith(PREFIX + "/"):
            raise Fault.NO_ROUTE()
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        handler, parameters = routes.find(self.command, parts.path.removeprefix(PREFIX), query)
        return handler(self.server.plane, Call(parameters, query, _parsed(raw)))

    def _read(self) -> bytes:
        """The whole body, always: what is left unread would be taken for the next request."""
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            self.close_connection = True
            raise Fault.BAD_BODY(why="its length is missing or too large")
        return self.rfile.read(int(length))

    def _send(self, status: int, body: dict[str, Any] | None, request_id: str) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("x-neon-ret-request-id", request_id)
        if body is not None:
            self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        log.debug(format, *args)


def _archive(archive: SandboxArchive, *, start: bool) -> Answer:
    """With its secrets: who has the stack's key is its operator."""
    try:
        facts = archive.start() if start else archive.running()
    except BloomError as error:
        log.exception("the archive could not be started")
        told = {"kind": type(error).__name__, "happened": error.happened, "safe": error.safe, "next": error.next_step}
        return 503, {"error": told}
    return 200, {"archive": facts.reveal() if facts else None}


def _refusal(fault: ApiFault, request_id: str) -> dict[str, Any]:
    return {"request_id": request_id, "code": fault.code, "message": fault.message}


def _parsed(raw: bytes) -> object:
    if not raw:
        return None
    try:
        return json.loads(raw)
    except ValueError:
        raise Fault.BAD_BODY(why="it is not JSON") from None
