"""A tiny S3 in memory, for what a real server will not do: keep the framing of requests, lie about it, or be cold."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from runbooks.clients.archive_client import open_client
from runbooks.model.secret import Secret

BUCKET = "small-bucket"
DATE = "Wed, 03 Dec 2025 02:00:00 GMT"


@dataclass
class Object:
    content: bytes
    headers: dict[str, str]
    sent: int
    """How many bytes its writer meant to store."""
    storage_class: str = "STANDARD"
    restore: str = ""
    """The header x-amz-restore."""


@dataclass
class SmallS3:
    """One bucket at `endpoint` while the `with` block lasts; no versions, no signatures checked."""

    frames: bool = False
    """Keep the chunks of the request as content, as a store did that did not know the new framing (C14)."""
    lies: bool = False
    """Tell the size and checksum that were sent, whatever is stored."""
    flips: bool = False
    """Store one bit wrong."""
    shows_checksums: bool = True
    objects: dict[str, Object] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)

    def __enter__(self) -> SmallS3:
        small = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                small._serve(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.005,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def client(self) -> Any:
        return open_client(
            region="us-east-1",
            endpoint=f"http://127.0.0.1:{self._http.server_address[1]}",
            access_key="A",
            secret_key=Secret("B"),
        )

    def cold(self, key: str, storage_class: str, restore: str = "", archive_status: str = "") -> None:
        headers = {"x-amz-archive-status": archive_status} if archive_status else {}
        self.objects[key] = Object(b"frozen", headers, 6, storage_class, restore)

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        key = unquote(parts.path).removeprefix(f"/{BUCKET}").lstrip("/")
        query = parse_qs(parts.query, keep_blank_values=True)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.seen.append(f"{handler.command} {'restore' if 'restore' in query else key}")
        if handler.command == "PUT":
            self._store(key, body, handler)
            _answer(handler, 200)
        elif handler.command == "DELETE":
            self.objects.pop(key, None)
            _answer(handler, 204)
        elif key not in self.objects:
            _refuse(handler, 404, "NoSuchKey")
        elif handler.command == "POST":
            self._restore(handler, self.objects[key])
        else:
            self._give(handler, self.objects[key])

    def _store(self, key: str, body: bytes, handler: BaseHTTPRequestHandler) -> None:
        kept = {name: value for name, value in handler.headers.items() if name.lower().startswith("x-amz-meta-")}
        if self.shows_checksums:
            kept["x-amz-checksum-sha256"] = handler.headers.get("x-amz-checksum-sha256", "")
        content = body
        if self.frames:
            content = b"%x\r\n%s\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n" % (len(body), body)
        if self.flips and PROBED not in key:
            content = body[:-1] + bytes([body[-1] ^ 1])
        self.objects[key] = Object(content, kept, len(body), handler.headers.get("x-amz-storage-class", "STANDARD"))

    def _restore(self, handler: BaseHTTPRequestHandler, found: Object) -> None:
        if found.restore:
            _refuse(handler, 409, "RestoreAlreadyInProgress")
        else:
            found.restore = 'ongoing-request="true"'
            _answer(handler, 202)

    def _give(self, handler: BaseHTTPRequestHandler, found: Object) -> None:
        frozen = found.storage_class in ("GLACIER", "DEEP_ARCHIVE") or "x-amz-archive-status" in found.headers
        if handler.command == "GET" and frozen and 'ongoing-request="false"' not in found.restore:
            _refuse(handler, 403, "InvalidObjectState")
            return
        headers = dict(found.headers) | {"ETag": '"e"', "Last-Modified": DATE}
        if found.storage_class != "STANDARD":
            headers["x-amz-storage-class"] = found.storage_class
        if found.restore:
            headers["x-amz-restore"] = found.restore
        size = found.sent if self.lies and handler.command == "HEAD" else len(found.content)
        _answer(handler, 200, headers, found.content, size)


PROBED = ".bloom-dr-probe-"


def _answer(
    handler: BaseHTTPRequestHandler,
    status: int,
    headers: dict[str, str] | None = None,
    content: bytes = b"",
    size: int | None = None,
) -> None:
    handler.send_response_only(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    if status != 204:
        handler.send_header("Content-Length", str(len(content) if size is None else size))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(content)


def _refuse(handler: BaseHTTPRequestHandler, status: int, code: str) -> None:
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>refused</Message></Error>"
    _answer(handler, status, {"Content-Type": "application/xml"}, text.encode())
