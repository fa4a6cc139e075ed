"""Every refusal of the API: status, code and message, in one table.

Where Neon's answer was seen or is published, the row says so. The rest is our guess: when an answer of the real API is
recorded, this table is the one place to correct. A client has to decide by status, never by the words.
"""

from __future__ import annotations

from enum import Enum


class Fault(Enum):
    """(status, code, message). Codes are empty where none is known: Neon's own are empty most of the time."""

    # Published or seen
    BAD_KEY = (401, "", "authentication required: the API key is missing or wrong")
    BUSY = (423, "", "project already has running conflicting operations, scheduling of new ones is prohibited")
    RESET_PROTECTED = (422, "", "cannot reset protected branch")
    DELETE_PROTECTED = (422, "", "cannot delete protected branch")
    RETENTION_TOO_LONG = (400, "", "requested history retention seconds exceeds allowed maximum")
    TAKEN = (409, "", "{what} {name} already exists")
    NO_PASSWORD = (412, "", "the password of role {name} is not stored")

    # Published as rules, status and words guessed
    DELETE_DEFAULT = (422, "", "cannot delete the project's default branch")
    DELETE_ROOT = (422, "", "cannot delete a root branch")
    DELETE_PARENT = (422, "", "branch has children")
    DELETE_PROTECTED_COMPUTE = (422, "", "cannot delete the compute of a protected branch")
    DELETE_PROTECTED_PROJECT = (422, "", "cannot delete a project that has protected branches")
    RESTORE_CHILD = (422, "", "child branches do not support restore: {name} is not a root branch")
    RESTORE_NEEDS_NAME = (422, "", "preserve_under_name is required: {why}")
    RESTORE_NEEDS_POINT = (400, "", "source_timestamp or source_lsn is required to restore a branch from itself")
    ONE_POINT = (400, "", "give a timestamp or an LSN, not both")
    SECOND_COMPUTE = (422, "", "branch {name} already has a read_write compute")
    COMPUTE_DISABLED = (422, "", "endpoint is disabled")
    NO_REPLICATION_OFF = (422, "", "logical replication cannot be disabled once it is enabled")
    EXPIRY_FORM = (400, "", "expires_at must be RFC 3339 with seconds and a zone")
    EXPIRY_RANGE = (400, "", "expires_at must lie in the future, at most 30 days ahead")
    EXPIRY_FORBIDDEN = (422, "", "expires_at is not possible on a {kind} branch")
    EXPIRING_PARENT = (422, "", "a branch that expires cannot get children")
    SCHEDULE_ON_CHILD = (422, "", "branch {name} is not a root branch, so it has no backup schedule")
    NOT_A_RESTORE = (422, "", "branch {name} is not an unfinished restore of a snapshot")
    RECOVERY_OVER = (404, "", "project {name} cannot be recovered any more")
    NOT_DELETED = (422, "", "project {name} is not deleted")

    # Unknown: neither status nor words are documented
    FUTURE = (400, "", "the timestamp {when} is in the future")
    OUTSIDE = (400, "", "{when} is outside of the history of the branch, which begins at {begins}")
    FUTURE_LSN = (400, "", "the LSN {when} is not yet written on the branch")
    NOT_A_TIME = (400, "", "{text} is not an RFC 3339 timestamp with a zone")
    NOT_AN_LSN = (400, "", "{text} is not an LSN")
    NOT_READY = (422, "", "branch not ready yet")
    BAD_BODY = (400, "", "request body: {why}")
    BAD_QUERY = (400, "", "query parameter {name}: {why}")
    NO_COMPUTE = (404, "", "branch {name} has no compute")
    NO_ROLE = (404, "", "role {name} not found")
    NO_DATABASE = (404, "", "database {name} not found")
    REFUSED_BY_SERVER = (422, "", "PostgreSQL refused: {why}")

    # Ours
    NOT_PART = (501, "SANDBOX", "{what} is not part of the sandbox")
    NO_ROUTE = (404, "", "this route is not part of the API, or not of the sandbox")
    OURS = (500, "SANDBOX", "the sandbox failed: {why}")

    def __call__(self, **words: object) -> ApiFault:
        status, code, message = self.value
        return ApiFault(status, code, message.format(**words))


class ApiFault(Exception):
    """A refusal on its way to the client."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def missing(kind: str, id_: str | None) -> ApiFault:
    return ApiFault(404, "", f"{kind} {id_ or ''} not found")
