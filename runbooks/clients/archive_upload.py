"""One upload: the whole object is in the archive and proved, or there is none and no part of one.

An answer that got lost is not guessed about: the key is looked at, and what is there is our content, whole, or it is
not. S3 compares the SHA-256 of every part on arrival; at the end the object's size and checksum are compared with ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import urlencode

from runbooks.clients.archive_parts import BLOCK, Content, Digest, Part
from runbooks.clients.archive_types import Lock, Stored
from runbooks.clients.archive_wire import GONE, Trouble, Wire
from runbooks.model.errors import ArchiveFault, Refused
from runbooks.model.moment import Moment

Checksums = Literal["required", "supported"]
NOTED = "sha256"
"""The name in an object's metadata that carries the SHA-256 of the whole object, in hex."""
SENDERS = 4
"""Parts on their way at a time."""
SAFE = "under this key is the whole object or none, never a part of one; repeating this finds out"


class Body(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Wishes:
    """How an object is to be kept."""

    tags: Mapping[str, str]
    storage_class: str
    lock: Lock | None = None

    def arguments(self) -> dict[str, Any]:
        wishes: dict[str, Any] = {"StorageClass": self.storage_class}
        if self.tags:
            wishes["Tagging"] = urlencode(self.tags)
        if self.lock:
            wishes |= {"ObjectLockMode": self.lock.mode, "ObjectLockRetainUntilDate": self.lock.until.utc}
        return wishes


@contextmanager
def told(what: str, *, safe: str = SAFE) -> Iterator[None]:
    """Trouble becomes the error for a person."""
    try:
        yield
    except Trouble as trouble:
        error = trouble.told(what, safe=safe)
        for note in getattr(trouble, "__notes__", ()):  # what could not be cleared
            error.add_note(note)
        raise error from trouble


@dataclass(frozen=True)
class Upload:
    wire: Wire
    key: str
    content: Content
    digest: Digest
    wishes: Wishes
    checksums: Checksums

    def run(self) -> Stored:
        """Safe to repeat: the same content under the same key is found, other content is never replaced (Refused).

        Raises LocalFault, LoginRefused, NotFound (the bucket), ArchiveFault.
        """
        with told(f"uploading {self.key}"):
            if len(self.digest.parts) == 1:
                self._send_whole()
            elif not self._is_there():
                self._send_in_parts()
            return self._proved()

    def _send_whole(self) -> None:
        with self.content.window(self.content.parts()[0]) as body:
            try:
                self.wire.call(
                    "put_object", Key=self.key, Body=body, ChecksumSHA256=self.digest.checksum,
                    **self._kept(), **self._only_if_new(),
                )  # fmt: skip
            except Trouble as trouble:
                if body.failure:
                    raise body.failure from trouble
                if not self._is_there():
                    raise

    def _send_in_parts(self) -> None:
        upload_id: str | None = None
        try:
            upload_id = self._begin()
            self._abort_others(upload_id)
            self._complete(upload_id, self._send_parts(upload_id))
        except BaseException as error:
            # Ctrl-C, too, must not leave parts that are paid for and seen by nobody.
            self._abandon(error, upload_id)
            raise

    def _begin(self) -> str:
        begun = self.wire.call("create_multipart_upload", Key=self.key, ChecksumAlgorithm="SHA256", **self._kept())
        return str(begun["UploadId"])

    def _send_parts(self, upload_id: str) -> list[dict[str, Any]]:
        """The first failure stops the rest; returns or raises only when no part is on its way any more."""
        with ThreadPoolExecutor(SENDERS, thread_name_prefix="part") as pool:
            try:
                sending = [pool.submit(self._send_part, upload_id, part) for part in self.content.parts()]
                wait(sending, return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(cancel_futures=True)
        failures = [error for each in sending if not each.cancelled() and (error := each.exception())]
        if failures:
            raise failures[0]
        return [each.result() for each in sending]

    def _send_part(self, upload_id: str, part: Part) -> dict[str, Any]:
        checksum = self.digest.parts[part.number - 1]
        with self.content.window(part) as body:
            try:
                sent = self.wire.call(
                    "upload_part", Key=self.key, UploadId=upload_id, PartNumber=part.number, Body=body,
                    ChecksumSHA256=checksum,
                )  # fmt: skip
            except Trouble as trouble:
                if body.failure:
                    raise body.failure from trouble
                raise
        return {"PartNumber": part.number, "ETag": sent["ETag"], "ChecksumSHA256": checksum}

    def _complete(self, upload_id: str, parts: list[dict[str, Any]]) -> None:
        try:
            self.wire.call(
                "complete_multipart_upload", Key=self.key, UploadId=upload_id, MultipartUpload={"Parts": parts},
                **self._only_if_new(),
            )  # fmt: skip
        except Trouble:
            if not self._is_there():
                raise
            self._abort(upload_id)

    def _kept(self) -> dict[str, Any]:
        return {"Metadata": {NOTED: self.digest.whole}, **self.wishes.arguments()}

    def _only_if_new(self) -> dict[str, str]:
        """Two writers of one key: the second is refused by S3 itself. Not every other store knows the condition."""
        return {"IfNoneMatch": "*"} if self.checksums == "required" else {}

    # --- after trouble ---------------------------------------------------------------------------------------------

    def _is_there(self) -> bool:
        """Whether this very content is under the key. Refused if something else is."""
        try:
            head = self.wire.call("head_object", Key=self.key, ChecksumMode="ENABLED")
        except Trouble as trouble:
            if trouble.code in GONE:
                return False
            raise
        known = (head.get("Metadata", {}).get(NOTED), head.get("ChecksumSHA256"))
        same = self.digest.whole in known or self.digest.checksum in known
        if head["ContentLength"] == self.content.size and same:
            return True
        raise Refused(
            f"the archive already holds something else under {self.key}",
            safe="it was not replaced, and nothing was uploaded",
            next_step="find out who writes to this key; a backup of its own has a key of its own",
        )

    def _abandon(self, error: BaseException, upload_id: str | None) -> None:
        """No part of it stays. What cannot be cleared is noted on `error`; the bucket's rule on incomplete uploads,
        or repeating the upload, clears it later."""
        try:
            if upload_id:
                self._abort(upload_id)
            self._abort_others(upload_id)
        except Trouble as trouble:
            error.add_note(f"while cleaning up: parts of {self.key} may be left in an incomplete upload: {trouble}")

    def _abort_others(self, own: str | None) -> None:
        """End every other incomplete upload of this key: it has one writer, so they are left from lost answers and
        earlier attempts."""
        for each in self.wire.call("list_multipart_uploads", Prefix=self.key).get("Uploads", []):
            if each["Key"] == self.key and each["UploadId"] != own:
                self._abort(each["UploadId"])

    def _abort(self, upload_id: str) -> None:
        try:
            self.wire.call("abort_multipart_upload", Key=self.key, UploadId=upload_id)
        except Trouble as trouble:
            if trouble.code != "NoSuchUpload" and trouble.code not in GONE:
                raise

    # --- proof -----------------------------------------------------------------------------------------------------

    def _proved(self) -> Stored:
        head = self.wire.call("head_object", Key=self.key, ChecksumMode="ENABLED")
        version = head.get("VersionId")
        wrong = self._difference(head)
        if wrong is None:
            return Stored(self.key, self.content.size, self.digest.whole, version)
        fault = ArchiveFault(
            f"{self.key} is not in the archive as it was sent: {wrong}",
            safe="the object was removed again; nothing refers to it",
            next_step="check the S3 service with `[backup] endpoint` and its rights; take the backup again",
        )
        try:
            withdraw(self.wire, self.key, version)
        except Trouble as trouble:
            fault.safe = "nothing refers to the object"
            fault.with_cleanup_trouble(trouble)
        raise fault

    def _difference(self, head: Mapping[str, Any]) -> str | None:
        """None if size, checksum and lock are what they have to be."""
        if head["ContentLength"] != self.content.size:
            return f"it has {head['ContentLength']} bytes instead of {self.content.size}"
        shown = head.get("ChecksumSHA256")
        if shown is None and self.checksums == "required":
            return "the store shows no SHA-256 for it, so it did not check any"
        if shown is None and (found := self._read_back()) != self.digest.whole:
            return f"read back it has SHA-256 {found} instead of {self.digest.whole}"
        if shown is not None and shown != self.digest.checksum:
            return f"it has SHA-256 {shown} instead of {self.digest.checksum}"
        return self._lock_missing(head)

    def _lock_missing(self, head: Mapping[str, Any]) -> str | None:
        lock, until = self.wishes.lock, head.get("ObjectLockRetainUntilDate")
        if lock is None:
            return None
        if until is None:
            return "no lock is shown for it (or we may not see it: s3:GetObjectRetention)"
        # S3 keeps whole seconds.
        if head.get("ObjectLockMode") != lock.mode or Moment.of(until).utc < lock.until.utc.replace(microsecond=0):
            return f"it is locked as {head.get('ObjectLockMode')} until {Moment.of(until)} only"
        return None

    def _read_back(self) -> str:
        body = self.wire.call("get_object", Key=self.key)["Body"]
        return sha256_of(body)


def withdraw(wire: Wire, key: str, version: str | None) -> None:
    """Remove what was just written; a locked version is hidden instead, which is all that S3 allows. Trouble."""
    try:
        wire.call("delete_object", Key=key, **({"VersionId": version} if version else {}))
    except Trouble as trouble:
        if not version or trouble.code not in ("AccessDenied", "403"):
            raise
        wire.call("delete_object", Key=key)


def sha256_of(body: Body) -> str:
    """Hex, of all that is left to read."""
    total = hashlib.sha256()
    while block := body.read(BLOCK):
        total.update(block)
    return total.hexdigest()
