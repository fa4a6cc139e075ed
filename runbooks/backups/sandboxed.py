"""A repository on the sandbox's own bucket: nothing to configure, nobody's alarms."""

from __future__ import annotations

from datetime import UTC, datetime

from runbooks.clients.archive import Archive
from runbooks.clients.archive_client import open_client
from runbooks.clients.metrics import Inbox
from runbooks.clients.repository import Repository, key_files
from runbooks.model.moment import Moment
from runbooks.model.policy import Policy
from runbooks.model.policy_backup import BackupPolicy, Encryption
from runbooks.sandbox.archive import ArchiveFacts


def sandboxed(name: str, policy: Policy, facts: ArchiveFacts) -> Repository:
    """The policy's rules on the sandbox's own bucket, with its own keys and nobody's alarms."""
    encryption = Encryption(method="age", recipients=(facts.recipient,))
    own = {"bucket": facts.bucket, "region": facts.region, "endpoint": facts.endpoint, "encryption": encryption}
    if policy.backup is None:
        wanted = BackupPolicy.model_validate(own)
    else:
        wanted = policy.backup.model_copy(update=own | {"checksums": "required"})
    archive = Archive(
        facts.bucket,
        region=facts.region,
        endpoint=facts.endpoint,
        clock=_now,
        client=lambda: open_client(
            region=facts.region, endpoint=facts.endpoint, access_key=facts.access_key, secret_key=facts.secret_key
        ),
    )
    local = None if wanted.local_folder is None else facts.local
    return Repository(
        name, wanted, archive, local, Inbox(facts.metrics_file), lambda chosen: key_files(chosen, [facts.key_file])
    )


def _now() -> Moment:
    return Moment.of(datetime.now(UTC))
