"""S3 on the wire: what is sent again, when credentials are fetched anew, and what each refusal means to a person.

Every call the archive makes may be repeated, with one exception that its caller looks after (beginning a multipart
upload), so trouble on the way is met by sending the same again.
"""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

from runbooks.model.errors import ArchiveFault, BloomError, LoginRefused, NotFound, StillCold

ATTEMPTS = 6
PAUSES = (0.2, 0.6, 2.0, 6.0, 20.0)
NOT_CHANGED = "nothing in the archive was changed"

EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_ON_THE_WAY = (ConnectionError, HTTPClientError, IncompleteReadError, ResponseParserError)
_PASSING = frozenset({
    "InternalError", "SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException", "RequestTimeout",
    "RequestTimeoutException", "OperationAborted", "ConditionalRequestConflict", "BadDigest", "IncompleteBody",
})  # fmt: skip
"""BadDigest: what arrived is not what was sent. If the file itself is bad, it stays so, and that is the answer."""
_LOGIN = frozenset({
    "AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AllAccessDisabled",
    "AccountProblem", "NoCredentials", "Forbidden", "Unauthorized", "401", *EXPIRED,
})  # fmt: skip
_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
GONE = frozenset({"404", "NoSuchKey", "NoSuchVersion", "NotFound"})
NOT_THERE_BEFORE = frozenset({"PreconditionFailed", "412"})


@dataclass(eq=False)
class Trouble(Exception):
    """A call that did not succeed. Stays inside the archive's modules; `told` makes the error for a person."""

    code: str
    message: str
    status: int = 0
    """0: no answer came, so the call may have had its effect."""
    request_id: str = ""

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"

    @property
    def passing(self) -> bool:
        return self.status in (0, 429) or (self.status >= 500 and self.status != 501) or self.code in _PASSING

    @property
    def expired(self) -> bool:
        return self.code in EXPIRED or self.code == "400"  # the answer to a HEAD has no body to say which

    def told(self, what: str, *, safe: str = NOT_CHANGED) -> BloomError:
        """`what` in the words of an error: 'reading production/…/toc.dat.age'."""
        request = f" (request {self.request_id})" if self.request_id else ""
        happened = f"{what}: {self.message} [{self.code}]{request}"
        if self.code in GONE:
            return NotFound(f"{what}: the archive has no such object", safe=safe, next_step="list what is there")
        if self.code == "NoSuchBucket":
            return NotFound(happened, safe=safe, next_step="check [backup] bucket and region in the policy")
        if self.code == "InvalidObjectState":
            cure = "ask for its thaw and wait, or take a backup that is readable now"
            return StillCold(f"{what}: it is in cold storage and not thawed", safe=safe, next_step=cure)
        if self.code in _LOGIN:
            cure = "check which AWS credentials this machine has, and that they may do this; then repeat it"
            return LoginRefused(happened, safe=safe, next_step=cure)
        if self.code == "RequestTimeTooSkewed":
            return ArchiveFault(happened, safe=safe, next_step="set this machine's clock, then repeat it")
        return ArchiveFault(happened, safe=safe, next_step="repeat it; if it stays so, look up the code with S3")


class Wire:
    """One bucket and a client that is replaced when its credentials have expired. For any number of threads."""

    def __init__(self, bucket: str, open_client: Callable[[], Any], *, sleep: Callable[[float], None]) -> None:
        self.bucket = bucket
        self._open = open_client
        self._sleep = sleep
        self._lock = threading.Lock()
        self._client: Any = None

    def __repr__(self) -> str:
        return f"Wire({self.bucket})"

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """The answer; Trouble if there is none after some repeats. A body is rewound before each.

        Expired credentials are fetched anew once; the second refusal stands.
        `answer["ResponseMetadata"]["RetryAttempts"]` tells how often it was sent again.
        """
        renewed = False
        attempt = 0
        while True:
            client = self._current()
            try:
                answer = self._once(client, operation, arguments)
            except Trouble as trouble:
                if trouble.expired and not renewed:
                    renewed = True
                    self._renew(client)
                elif trouble.passing and attempt < ATTEMPTS - 1 and not _is_ours(arguments):
                    self.pause(attempt)
                    attempt += 1
                else:
                    raise
            else:
                answer["ResponseMetadata"]["RetryAttempts"] = attempt
                return answer

    def pause(self, attempt: int) -> None:
        """Before the repeat after attempt number `attempt` (from 0): longer each time, never two clients in step."""
        self._sleep(PAUSES[min(attempt, len(PAUSES) - 1)] * random.uniform(0.5, 1.0))

    def _once(self, client: Any, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        body = arguments.get("Body")
        if isinstance(body, io.IOBase):
            body.seek(0)
        try:
            answer: dict[str, Any] = getattr(client, operation)(Bucket=self.bucket, **arguments)
        except (ClientError, BotoCoreError, ResponseParserError, OSError) as error:
            raise as_trouble(error) from error
        return answer

    def _current(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._opened()
            return self._client

    def _renew(self, used: Any) -> None:
        with self._lock:
            if self._client is used:  # another thread may have been quicker
                self._client = self._opened()

    def _opened(self) -> Any:
        try:
            return self._open()
        except (BotoCoreError, ValueError) as error:
            raise as_trouble(error) from error


def _is_ours(arguments: dict[str, Any]) -> bool:
    """The fault is in our own file; sending it again is no cure."""
    return getattr(arguments.get("Body"), "failure", None) is not None


def as_trouble(error: Exception) -> Trouble:
    if isinstance(error, ClientError):
        about, meta = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
        return Trouble(
            code=str(about.get("Code") or meta.get("HTTPStatusCode") or "unknown"),
            message=_line(about.get("Message") or "refused without a reason"),
            status=int(meta.get("HTTPStatusCode") or 400),
            request_id=str(meta.get("RequestId") or ""),
        )
    if isinstance(error, _NO_CREDENTIALS):
        return Trouble("NoCredentials", _line(error), status=401)
    if isinstance(error, (*_ON_THE_WAY, OSError)):
        return Trouble(type(error).__name__, _line(error))
    return Trouble(type(error).__name__, _line(error), status=400)


def _line(text: object) -> str:
    return " ".join(str(text).split())[:300]
