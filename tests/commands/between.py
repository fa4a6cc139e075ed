"""Something between the operator and the Neon API: it sees every call, and may lie in an answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.commands.operator import Operator
from tests.stack import Api

POLICY = """
default_environment = "production"
local_timezone = "America/Mexico_City"

[environments.production]
project = "{project}"
api = "{url}"
database = "neondb"
role = "neondb_owner"
promised_window = "1d"
"""
KEY = "NEON_API_KEY"
"""The variable that the policy takes the key from when it does not say."""


@dataclass
class Between:
    url: str
    calls: list[tuple[str, str]] = field(default_factory=list)
    lie: Callable[[str, dict[str, str]], str] | None = None
    """Gets a connection URI and the query it answers, and returns the one to send instead."""

    def changing(self) -> list[tuple[str, str]]:
        """The calls that ask for a change."""
        return [call for call in self.calls if call[0] != "GET"]


@contextmanager
def between(real: Api) -> Iterator[Between]:
    """A server that passes everything on to the real API."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            path = self.path.removeprefix("/api/v2")
            middle.calls.append((self.command, path))
            length = int(self.headers.get("Content-Length") or 0)
            kept = {k: v for k, v in self.headers.items() if k.lower() in ("authorization", "content-type")}
            kept.setdefault("Authorization", "")
            answer = real.client.request(self.command, path, content=self.rfile.read(length), headers=kept)
            body = answer.content
            if middle.lie and urlsplit(path).path.endswith("/connection_uri") and answer.is_success:
                query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
                body = json.dumps({"uri": middle.lie(answer.json()["uri"], query)}).encode()
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
            if answer.status_code != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = _pass_on

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the test has the calls."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    middle = Between(f"http://127.0.0.1:{server.server_port}/api/v2")
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    try:
        yield middle
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


@contextmanager
def watched(operator: Operator, folder: Path) -> Iterator[tuple[Operator, Between]]:
    """The operator with a policy whose one environment, `production`, is her stack's project seen through a Between."""
    with operator.api() as real, between(real) as middle:
        policy = folder / "policy.toml"
        policy.write_text(POLICY.format(project=real.project_id, url=middle.url))
        key = real.client.headers["Authorization"].removeprefix("Bearer ")
        yield operator.having(BLOOM_DR_POLICY=str(policy), **{KEY: key}), middle
