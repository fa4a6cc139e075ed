"""Answers of `backup.keys`: who can open the backups, and what to do with a pair that was just made."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runbooks.backups.keys import Checked, check, new_pair
from runbooks.clients.repository import KEYS, Repository
from runbooks.model.backup import Verdict
from runbooks.model.errors import CouldNotVerify, ProofFailed
from runbooks.model.moment import Moment
from runbooks.report.answer import Answer

_EXIT = {
    Verdict.PASSED: 0,
    Verdict.FAILED: ProofFailed.exit_code,
    Verdict.COULD_NOT_VERIFY: CouldNotVerify.exit_code,
}


def keys(repository: Repository) -> Answer:
    """Who can open the backups of an environment, tried on one file. Ends with the code of ProofFailed if it does not
    open, of CouldNotVerify if there is nothing to try, or to try with. Raises as `check`.
    """
    found = check(repository)
    return Answer("\n".join(_lines(found, repository.environment)), _data(found, repository), _EXIT[found.verdict])


def made(path: Path) -> Answer:
    """A new pair; its private key is in the file and nowhere else. Raises as `new_pair`."""
    public = new_pair(path, Moment.of(datetime.now(UTC)))
    section = f'[backup.encryption]\nmethod = "age"\nrecipients = ["{public}"]'
    text = [
        f"public key:  {public}",
        f"private key: in {path} (mode 0600), and nowhere else",
        "",
        "into policy.toml (if there are recipients already, add the public key to them):",
        "",
        section,
        "",
        *_what_to_do(path),
    ]
    return Answer("\n".join(text), {"public_key": public, "file": str(path), "policy": section})


def _what_to_do(path: Path) -> Iterator[str]:
    yield "what to do with the private key:"
    yield "  keep a copy outside of AWS, Neon and this machine: a password manager, a print in a safe."
    yield "    Whoever has it can read all backups; without it nobody can, and nobody can make it again."
    yield "  the machine that takes backups does not need it: if that is this one, move the file away."
    yield f"  where backups are verified or restored: export {KEYS}={path.absolute()}"
    yield "  when a backup was taken, show that it opens: invoke backup.keys"
    if _in_git(path):
        yield f"! {path} lies in a git repository: move it out before anybody commits it"


def _in_git(path: Path) -> bool:
    return any((folder / ".git").exists() for folder in path.resolve().parents)


def _lines(found: Checked, environment: str) -> Iterator[str]:
    yield f"keys to the backups of {environment}"
    for key in found.policy:
        yield f"  {key}  of the policy; its private key is {'given here' if key in found.here else 'not given here'}"
    for key in found.here:
        if key not in found.policy:
            yield f"  {key}  NOT of the policy; its private key is given here"
    if found.newest is None:
        yield "there is no backup yet"
    else:
        same = not (found.added or found.removed)
        yield f"the newest backup, {found.newest.id}, is encrypted to " + ("these keys" if same else "other keys:")
        for key in found.removed:
            yield f"  ! {key} opens it, and is no longer in the policy: keep its private key as long as this backup"
        for key in found.added:
            yield f"  ! {key} does not open it: the next backup will be the first that it opens"
    yield f"{found.verdict.value.upper()}  {found.why}"
    if found.next_step is not None:
        yield f"next: {found.next_step}"


def _data(found: Checked, repository: Repository) -> dict[str, Any]:
    newest, tried, tried_of = found.newest, found.tried, found.tried_of
    return {
        "environment": repository.environment,
        "verdict": found.verdict.value,
        "why": found.why,
        "policy": [{"fingerprint": key, "private_key_here": key in found.here} for key in found.policy],
        "here": list(found.here),
        "newest": newest
        and {
            "id": str(newest.id),
            "recipients": list(newest.encryption.recipients),
            "removed_from_policy": list(found.removed),
            "new_in_policy": list(found.added),
        },
        "tried": tried and tried_of and {"id": str(tried_of.id), "file": tried.stored_name, "sha256": tried.sha256},
        "next_step": found.next_step,
    }
