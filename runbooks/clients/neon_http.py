"""The Neon API on the wire: what may be sent again, what must be looked up first, what is final.

423, 429 and 503 mean that nothing was executed, so any request may be repeated. After any other trouble only a GET may:
a change that got no answer may have happened, so its effect is looked for before it is sent again.
"""

from __future__ import annotations

import ipaddress
import json
import re
import ssl
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from runbooks.clients.neon_request import (
    NOTHING_CHANGED,
    Answer,
    Busy,
    Clock,
    Lost,
    Progress,
    Request,
    Sleep,
    Waiting,
)
from runbooks.clients.neon_types import JsonObject
from runbooks.model.dsn import Secret
from runbooks.model.errors import BloomError, LoginRefused, NeonFault, NotFound, UsageFault
from runbooks.model.moment import Moment

T = TypeVar("T")

TIMEOUT = httpx.Timeout(60, connect=10)
"""Seconds for one connection, and between two pieces of an answer."""
WHOLE_ANSWER = timedelta(minutes=3)
"""A server that sends a byte now and then never runs into the timeout above; this ends it."""
LARGEST_ANSWER = 64 * 1024 * 1024
MOST_PAGES = 1000

CURES = {
    "BRANCHES_LIMIT_EXCEEDED": "remove branches that are no longer needed, or raise the plan, then run it again",
    "ROOT_BRANCHES_LIMIT_EXCEEDED": "remove root branches left by earlier restores, or raise the plan; run it again",
    "BRANCHES_PROTECTED_LIMIT_EXCEEDED": "take protection off a branch that does not need it, then run it again",
    "ACTIVE_ENDPOINTS_LIMIT_EXCEEDED": "suspend computes that are not needed now, then run it again",
    "ENDPOINTS_LIMIT_EXCEEDED": "remove branches with computes that are no longer needed, then run it again",
    "COMPUTE_TIME_EXCEEDED": "raise the plan or its spending limit in the Neon Console: no compute starts before",
    "DATA_TRANSFER_LIMIT_EXCEEDED": "raise the plan or its spending limit in the Neon Console: no data leaves before",
}
"""What to do about a limit, by Neon's error code."""


class Wire:
    """One API, one key. Follows no redirects, because the key would travel along."""

    def __init__(
        self, *, api: str, key: Secret, clock: Clock, sleep: Sleep, progress: Progress | None, patience: timedelta
    ) -> None:
        """UsageFault if the address or the key cannot be used; no request is sent."""
        self._host, is_local = _checked_address(api)
        self._key = _checked_key(key)
        self._clock, self._sleep = clock, sleep
        self._progress = progress or (lambda _line: None)
        self._patience = patience
        self._client = httpx.Client(
            base_url=api.rstrip("/") + "/",
            auth=self._sign,
            timeout=TIMEOUT,
            # A connection that the server has meanwhile closed looks like a lost answer: use a new one each time.
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=not is_local,  # a proxy has no business between us and this machine
        )

    def __repr__(self) -> str:
        return f"Wire({self._host})"

    def waiting(self, what: str, safe: str = NOTHING_CHANGED) -> Waiting:
        """Pauses that end when this wire's patience does."""
        return Waiting(
            clock=self._clock, sleep=self._sleep, progress=self._progress, limit=self._patience, what=what, safe=safe
        )

    def get(
        self, path: str, query: JsonObject | None = None, *, what: str, accept: frozenset[int] = frozenset()
    ) -> Answer:
        """Ask until there is an answer. Raises NotFound, LoginRefused, NeonFault."""
        ask = Request("GET", path, what, NOTHING_CHANGED, query=query, accept=accept)
        waiting = self.waiting(what)
        while not isinstance(outcome := self._exchange(ask), Answer):
            waiting.pause(outcome.why, outcome.at_least)
        return outcome

    def pages(self, path: str, items: str, query: JsonObject, *, cursor: str, what: str) -> Iterator[JsonObject]:
        """All pages of a list; `cursor` is the field of `pagination` that names the next one. NeonFault on a circle."""
        seen: set[str] = set()
        at: str | None = None
        for _ in range(MOST_PAGES):
            body = self.get(path, {**query, "cursor": at} if at else query, what=what).body
            yield body
            pagination = body.get("pagination")
            following = pagination.get(cursor) if isinstance(pagination, dict) else None
            if not following or (following == at and not body.get(items)):
                return
            if not isinstance(following, str) or following in seen:
                break
            seen.add(following)
            at = following
        raise NeonFault(
            f"{what}: Neon's list of pages does not end",
            safe=NOTHING_CHANGED,
            next_step="run the same command again; if it stays so, report it to Neon",
        )

    def once(self, change: Request, look: Callable[[], T | None]) -> Answer | T:
        """Send a change that must not happen twice. Without an answer, `look` decides whether it has happened.

        Returns the answer, or what `look` found. Raises NotFound, LoginRefused, NeonFault.
        """
        waiting = self.waiting(change.what, change.safe)
        while not isinstance(outcome := self._exchange(change), Answer):
            if isinstance(outcome, Lost) and (found := look()) is not None:
                return found
            waiting.pause(outcome.why, outcome.at_least)
            if isinstance(outcome, Lost) and (found := look()) is not None:  # it may have been slow
                return found
        return outcome

    def refusal(self, answer: Answer, what: str, safe: str) -> BloomError:
        """The error for an answer that is not a success."""
        message = self._clean(str(answer.body.get("message") or "no reason given"))
        request = f" (request {self._clean(answer.request_id)})" if answer.request_id else ""
        happened = f"{what}: Neon answered {answer.status}: {message}{request}"
        if answer.status in (401, 403):
            cure = "check that NEON_API_KEY holds a valid key with rights on this project, then run it again"
            return LoginRefused(happened, safe=safe, next_step=cure)
        if answer.status == 404:
            return NotFound(happened, safe=safe, next_step="check the names and ids, then run it again")
        cure = CURES.get(str(answer.body.get("code")), "change what Neon objects to, then run it again")
        return NeonFault(happened, safe=safe, next_step=cure)

    def _sign(self, request: httpx.Request) -> httpx.Request:
        request.headers["Authorization"] = f"Bearer {self._key.reveal()}"
        return request

    def _exchange(self, request: Request) -> Answer | Busy | Lost:
        deadline = self._clock().utc + WHOLE_ANSWER
        try:
            with self._client.stream(
                request.method, request.path, params=dict(request.query or {}), json=request.body
            ) as response:
                content = self._read(response, deadline)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            if certificate := _certificate_trouble(error):
                raise NeonFault(
                    f"{request.what}: the certificate of {self._host} is not valid: {self._clean(certificate)}",
                    safe=request.safe,
                    next_step="check NEON_API_URL and this machine's clock and certificates, then run it again",
                ) from error
            return Busy(f"no connection to {self._host} ({self._clean(str(error)) or type(error).__name__})")
        except httpx.RequestError as error:
            return Lost(f"no answer from {self._host} ({type(error).__name__}: {self._clean(str(error))})")
        return self._judge(request, response, content)

    def _read(self, response: httpx.Response, deadline: datetime) -> bytes:
        content = bytearray()
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > LARGEST_ANSWER or self._clock().utc > deadline:
                raise httpx.ReadTimeout(f"the answer has no end, {len(content)} bytes were read")
        return bytes(content)

    def _judge(self, request: Request, response: httpx.Response, content: bytes) -> Answer | Busy | Lost:
        body = _json_object(content)
        status = response.status_code
        request_id = (body or {}).get("request_id") or response.headers.get("x-neon-ret-request-id")
        answer = Answer(status, body or {}, str(request_id) if request_id else None)
        message = str(answer.body.get("message") or "it is busy")
        if status in (423, 429, 503) or (status == 422 and "not ready" in message.lower()):
            return Busy(f"{self._clean(message)} ({status})", _retry_after(response, self._clock()))
        if status >= 500 or status == 408:
            return Lost(f"it answered {status}")
        if 200 <= status < 300:
            return answer if body is not None or status == 204 else self._unreadable(request, response)
        if status in request.accept:
            return answer
        raise self.refusal(answer, request.what, request.safe)

    def _unreadable(self, request: Request, response: httpx.Response) -> Lost:
        kind = self._clean(response.headers.get("content-type", "nothing"))
        if request.method == "GET" and "json" not in kind:
            raise NeonFault(
                f"{request.what}: {self._host} answered {kind} instead of JSON",
                safe=request.safe,
                next_step="check that NEON_API_URL names the Neon API and that no proxy answers in its place",
            )
        return Lost(f"its answer was cut or is not JSON ({kind})")

    def _clean(self, text: str) -> str:
        """One short line without our key and without the passwords of connection strings."""
        line = " ".join(text.replace(self._key.reveal(), "***").split())
        return re.sub(r"(://[^\s:/@]*):[^\s@]*@", r"\1:***@", line)[:300]


def _checked_address(api: str) -> tuple[str, bool]:
    """Host, and whether it is this machine. UsageFault unless TLS or this machine protects the key on its way."""
    try:
        parts = urlsplit(api)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise _unusable("the address of the Neon API cannot be read") from None
    if not host or parts.scheme not in ("http", "https") or parts.username or parts.query or parts.fragment:
        raise _unusable("the address of the Neon API is not a plain https address")
    is_local = _is_loopback(host)
    if parts.scheme == "http" and not is_local:
        raise _unusable(f"the address of the Neon API on {host} is not https, so the key would travel in clear text")
    return host, is_local


def _checked_key(key: Secret) -> Secret:
    """A key with a blank or a line end in it would be quoted, in full, by an error of the HTTP library."""
    if not re.fullmatch(r"[!-~]+", key.reveal()):
        raise UsageFault(
            "the Neon API key is empty or holds blanks, line ends or letters that no key has",
            safe="no request was sent",
            next_step="set NEON_API_KEY to the key alone, then run it again",
        )
    return key


def _unusable(what: str) -> UsageFault:
    cure = "set NEON_API_URL to https://console.neon.tech/api/v2, then run it again"
    return UsageFault(what, safe="no request was sent", next_step=cure)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(content)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _retry_after(response: httpx.Response, now: Moment) -> timedelta:
    """What the server asks for, in seconds or as a date; zero if it does not say or cannot be understood."""
    text = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return timedelta(seconds=int(text))
    try:
        return max(Moment.of(parsedate_to_datetime(text)).utc - now.utc, timedelta(0))
    except (ValueError, TypeError):
        return timedelta(0)


def _certificate_trouble(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return None
