"""The archive: backups in an S3 bucket. The only module that knows the bucket.

Nothing is replaced, nothing is believed because of a status code: what was sent is compared with what is there.
"""

from __future__ import annotations

import base64
import hashlib
import io
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from runbooks.clients.archive_client import check_endpoint, open_client
from runbooks.clients.archive_parts import Content
from runbooks.clients.archive_posture import posture_of
from runbooks.clients.archive_reading import Reading
from runbooks.clients.archive_types import (
    Access,
    Cold,
    Head,
    Lock,
    Posture,
    Stored,
    StoredObject,
    Thawing,
    access_of,
    locked_until,
)
from runbooks.clients.archive_upload import NOTED, Checksums, Upload, Wishes, told, withdraw
from runbooks.clients.archive_wire import GONE, NOT_CHANGED, Trouble, Wire
from runbooks.model.errors import ArchiveFault, LocalFault, NotFound, Refused
from runbooks.model.moment import Moment

PROBE = ".bloom-dr-probe-"
"""How the name of the small object begins that is written and read back before the first upload."""


class Archive:
    """One bucket. For any number of threads. No request is sent before the first call.

    Every method raises LoginRefused, ArchiveFault, and NotFound if there is no such bucket.
    """

    def __init__(
        self,
        bucket: str,
        *,
        region: str,
        endpoint: str | None = None,
        checksums: Checksums = "required",
        clock: Callable[[], Moment],
        client: Callable[[], Any] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`endpoint` None: AWS. `checksums` "supported": a store that shows no SHA-256 has every object read back.

        `client` makes the boto3 client, again each time credentials have expired. UsageFault for an endpoint in clear.
        """
        if endpoint is not None:
            check_endpoint(endpoint)
        opener = client or partial(open_client, region=region, endpoint=endpoint)
        self._wire = Wire(bucket, opener, sleep=sleep)
        self._checksums = checksums
        self._clock = clock
        self._probing = threading.Lock()
        self._probed = False

    def __repr__(self) -> str:
        return f"Archive({self._wire.bucket})"

    # --- writing ---------------------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        source: Path | bytes,
        *,
        tags: Mapping[str, str],
        storage_class: str,
        lock: Lock | None = None,
        sha256: str | None = None,
        home: str | None = None,
    ) -> Stored:
        """Upload; on return the whole object is there, compared by size and SHA-256. On any error none is.

        With `sha256` (hex) the source must have it, else LocalFault. Safe to repeat: the same content is found again.
        Refused if the key holds something else. A locked object that turns out wrong can only be hidden, not removed.
        `home` is the prefix, with its slash, that its writer may write below; None: the first folder of the key.
        """
        content = Content(source)
        digest = content.digest()
        if sha256 is not None and digest.whole != sha256:
            raise LocalFault(
                f"the file for {key} is not what it was when it was made: SHA-256 {digest.whole} instead of {sha256}",
                safe="nothing was uploaded",
                next_step="check this machine's disk and memory, then take the backup again",
            )
        folder, slash, _ = key.partition("/")
        self._probe_once((folder + slash if slash else "") if home is None else home, tags)
        return Upload(self._wire, key, content, digest, Wishes(dict(tags), storage_class, lock), self._checksums).run()

    def _probe_once(self, home: str, tags: Mapping[str, str]) -> None:
        """Before the first upload: does this store give back what it got (C14)? Some keep the framing of a request."""
        with self._probing:
            if not self._probed:
                with told("trying out the archive", safe="no backup was uploaded"):
                    self._probe(f"{home}{PROBE}{secrets.token_hex(8)}", tags)
                self._probed = True

    def _probe(self, key: str, tags: Mapping[str, str]) -> None:
        content = b"PGDMP" + secrets.token_bytes(27)
        checksum = base64.b64encode(hashlib.sha256(content).digest()).decode()
        wishes = Wishes(dict(tags), "STANDARD").arguments()
        sent = self._wire.call("put_object", Key=key, Body=content, ChecksumSHA256=checksum, **wishes)
        try:
            found, _ = self._content(key)
        finally:
            try:
                withdraw(self._wire, key, sent.get("VersionId"))
            except Trouble as trouble:
                if trouble.code not in ("AccessDenied", "403"):  # a writer need not have the right to delete
                    raise
        if found != content:
            raise ArchiveFault(
                f"the archive does not give back what it was given: {len(content)} bytes were sent, "
                f"{len(found)} came back, beginning with {found[:16]!r}",
                safe="no backup was uploaded",
                next_step="use another S3 service or a newer version of it: it stores what frames a request",
            )

    def delete(self, key: str) -> None:
        """Remove an object with all its versions. Safe to repeat; nothing there is no error.

        Refused, before anything is removed, if a version is locked: the message names the date it unlocks (C19).
        """
        with told(f"deleting {key}", safe="what could not be deleted is still there; it is safe to repeat this"):
            versions = list(self._versions(key))
            for each in versions:
                if not each.get("marker"):
                    self._check_unlocked(key, each["VersionId"])
            # The current version last: until then nothing older comes to light.
            for each in sorted(versions, key=lambda one: bool(one["IsLatest"])):
                self._delete_version(key, each["VersionId"])

    def _delete_version(self, key: str, version: str) -> None:
        try:
            self._wire.call("delete_object", Key=key, VersionId=version)
        except Trouble as trouble:
            if trouble.code in GONE:
                return
            self._check_unlocked(key, version)
            raise

    def _versions(self, key: str) -> Iterator[dict[str, Any]]:
        """Versions and delete markers of exactly this key; in a bucket without versions the object itself."""
        for page in self._pages("list_object_versions", ("KeyMarker", "VersionIdMarker"), Prefix=key):
            found = [each | {"marker": False} for each in page.get("Versions", [])]
            found += [each | {"marker": True} for each in page.get("DeleteMarkers", [])]
            yield from (each for each in found if each["Key"] == key)
            if any(each["Key"] > key for each in found):
                return  # a key sorts before all that it begins

    def _check_unlocked(self, key: str, version: str) -> None:
        try:
            head = self._wire.call("head_object", Key=key, VersionId=version)
        except Trouble as trouble:
            if trouble.code in GONE:
                return
            raise
        until = locked_until(head)
        held = head.get("ObjectLockLegalHoldStatus") == "ON"
        if held or (until and until > self._clock()):
            when = "by a legal hold, without a date" if held else f"until {until}"
            raise Refused(
                f"{key} is locked {when}",
                safe="it was not deleted, nor was any other version of it",
                next_step="let it be: the next clean-up after that date removes it",
            )

    def require_unlocked(self, key: str) -> None:
        """Refused, as by `delete`, if a version of it is locked; nothing there is no error. Only reads."""
        with told(f"looking whether {key} is locked", safe=NOT_CHANGED):
            for each in self._versions(key):
                if not each["marker"]:
                    self._check_unlocked(key, each["VersionId"])

    # --- reading ---------------------------------------------------------------------------------------------------

    def open(self, key: str) -> BinaryIO:
        """The object as a stream, of one version; dropped connections are taken up again. NotFound, StillCold."""
        with told(f"reading {key}", safe=NOT_CHANGED):
            return cast(BinaryIO, io.BufferedReader(Reading(self._wire, key), 1024 * 1024))

    def read(self, key: str) -> bytes:
        """All of a small object. ArchiveFault if it has not the SHA-256 that its writer noted. NotFound, StillCold."""
        return self.read_with_lock(key)[0]

    def read_with_lock(self, key: str) -> tuple[bytes, Moment | None]:
        """As `read`; and until when this version is locked."""
        content, raw = self._content(key)
        noted = raw.metadata.get(NOTED)
        if noted is not None and hashlib.sha256(content).hexdigest() != noted:
            raise ArchiveFault(
                f"{key} is damaged: its content does not have the SHA-256 that was noted when it was written",
                safe=NOT_CHANGED,
                next_step="use another backup; look for an older version of this object in the bucket",
            )
        return content, raw.locked_until

    def _content(self, key: str) -> tuple[bytes, Reading]:
        """An object, and what was told with it."""
        with told(f"reading {key}", safe=NOT_CHANGED):
            raw = Reading(self._wire, key)
        with io.BufferedReader(raw) as stream:
            return stream.read(), raw

    def exists(self, key: str) -> bool:
        try:
            with told(f"looking for {key}", safe=NOT_CHANGED):
                self._wire.call("head_object", Key=key)
        except NotFound:
            return False
        return True

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Every current object whose key begins with `prefix`, however many there are."""
        with told(f"listing {prefix}", safe=NOT_CHANGED):
            for page in self._pages("list_objects_v2", ("ContinuationToken",), Prefix=prefix):
                for each in page.get("Contents", []):
                    yield StoredObject(
                        each["Key"], int(each["Size"]), Moment.of(each["LastModified"]),
                        each.get("StorageClass") or "STANDARD",
                    )  # fmt: skip

    def _pages(self, operation: str, markers: tuple[str, ...], **arguments: Any) -> Iterator[dict[str, Any]]:
        at: dict[str, str] = {}
        while True:
            page = self._wire.call(operation, **arguments, **at)
            yield page
            if not page.get("IsTruncated"):
                return
            following = {name: page[f"Next{name}"] for name in markers if page.get(f"Next{name}")}
            if not following or following == at:
                raise Trouble("EndlessList", "the list of pages does not go on and does not end", status=400)
            at = following

    def head(self, key: str) -> Head:
        """What is known about an object without reading it. NotFound."""
        with told(f"looking at {key}", safe=NOT_CHANGED):
            head = self._wire.call("head_object", Key=key, ChecksumMode="ENABLED")
            tags = self._wire.call("get_object_tagging", Key=key)["TagSet"] if head.get("TagCount") else []
        return Head(
            size=int(head["ContentLength"]),
            sha256=head.get("Metadata", {}).get(NOTED) or _hex(head.get("ChecksumSHA256")),
            storage_class=head.get("StorageClass") or "STANDARD",
            access=access_of(head),
            locked_until=locked_until(head),
            tags={each["Key"]: each["Value"] for each in tags},
            modified=Moment.of(head["LastModified"]),
        )

    def thaw(self, key: str, days: int) -> Access:
        """Ask once for a copy that can be read for `days`; returns how it stands. Safe to repeat (C18). NotFound."""
        with told(f"asking for the thaw of {key}", safe=NOT_CHANGED):
            access = access_of(self._wire.call("head_object", Key=key))
            if not isinstance(access, Cold):
                return access
            wish = {"Days": days, "GlacierJobParameters": {"Tier": "Standard"}}
            try:
                self._wire.call("restore_object", Key=key, RestoreRequest=wish)
            except Trouble as trouble:
                if trouble.code != "RestoreAlreadyInProgress":
                    raise
            return Thawing(access.takes)

    def posture(self) -> Posture:
        """How the bucket is set up, as found."""
        with told(f"looking at the bucket {self._wire.bucket}", safe=NOT_CHANGED):
            return posture_of(self._wire)


def _hex(checksum: str | None) -> str | None:
    """S3's spelling of a whole object's SHA-256; None for the sum of a multipart object's sums."""
    return base64.b64decode(checksum).hex() if checksum and "-" not in checksum else None
