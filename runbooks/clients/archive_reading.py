"""An object as a file to read: a connection that drops is taken up again where it broke off."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

from runbooks.clients.archive_types import locked_until
from runbooks.clients.archive_upload import told
from runbooks.clients.archive_wire import ATTEMPTS, NOT_CHANGED, Trouble, Wire, as_trouble
from runbooks.model.errors import ArchiveFault


class Reading(io.RawIOBase):
    """The bytes of one object, all of the same version. Not for several threads at once."""

    def __init__(self, wire: Wire, key: str) -> None:
        """Raises Trouble; also for an object that cannot be read now."""
        self._wire, self._key = wire, key
        answer = wire.call("get_object", Key=key)
        self.size = int(answer["ContentLength"])
        self.metadata: dict[str, str] = answer.get("Metadata", {})
        self.locked_until = locked_until(answer)
        self._etag = answer["ETag"]
        self._body: Any = answer["Body"]
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Raises NotFound, LoginRefused, StillCold, ArchiveFault."""
        left = self.size - self._at
        wanted = min(len(buffer), left)
        if wanted == 0:
            return 0
        with told(f"reading {self._key}", safe=NOT_CHANGED):
            block = self._block(wanted)
        buffer[: len(block)] = block
        self._at += len(block)
        return len(block)

    def _block(self, wanted: int) -> bytes:
        """At least a byte. Gives up when several connections in a row bring nothing."""
        last = Trouble("Ended", "the stream ended too early")
        for attempt in range(ATTEMPTS):
            try:
                if self._body is None:
                    self._body = self._resumed()
                if block := bytes(self._body.read(wanted)):
                    return block
            except (BotoCoreError, OSError) as error:
                last = as_trouble(error)
                if not last.passing:
                    raise last from error
            self._drop()
            if attempt < ATTEMPTS - 1:
                self._wire.pause(attempt)
        raise last

    def _resumed(self) -> Any:
        try:
            answer = self._wire.call("get_object", Key=self._key, Range=f"bytes={self._at}-", IfMatch=self._etag)
        except Trouble as trouble:
            if trouble.code in ("PreconditionFailed", "412"):
                raise self._changed() from trouble
            raise
        # A store that knows no ranges sends it all again, from the start.
        if not str(answer.get("ContentRange", "")).startswith(f"bytes {self._at}-"):
            if self._at:
                raise Trouble("NoRange", "the store does not send an object from the middle", status=400)
            return answer["Body"]
        return answer["Body"]

    def _changed(self) -> ArchiveFault:
        return ArchiveFault(
            f"{self._key} was replaced while it was read",
            safe=NOT_CHANGED,
            next_step="find out who writes to the archive, then read it again from the start",
        )

    def _drop(self) -> None:
        if self._body is not None:
            with suppress(BotoCoreError, OSError):
                self._body.close()
            self._body = None

    def close(self) -> None:
        if not self.closed:
            self._drop()
        super().close()
