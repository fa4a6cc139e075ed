"""`backup.keys`: whether a private key given here really opens a backup, and a new pair."""

from __future__ import annotations

import stat
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from runbooks.backups.catalog import catalog
from runbooks.backups.keys import check, new_pair
from runbooks.clients.archive_types import Cold
from runbooks.clients.repository import Repository, key_files, keys_from
from runbooks.clients.seal import KeyPair
from runbooks.model.backup import Manifest, Verdict
from runbooks.model.errors import LocalFault, Refused, UsageFault
from runbooks.report.keys import keys, made
from runbooks.sandbox.s3 import S3Server
from tests.backups.ground import PAIR, repository, taken, the_time
from tests.clients.dump_ground import Ground
from tests.foreign import foreign

OTHER = KeyPair.new("age")


def encrypted_to(repository: Repository, *pairs: KeyPair) -> Repository:
    """The same archive under a policy that names these keys."""
    encryption = repository.encryption.model_copy(update={"recipients": tuple(pair.recipient for pair in pairs)})
    return replace(repository, policy=repository.policy.model_copy(update={"encryption": encryption}))


def holding(repository: Repository, pair: KeyPair | None) -> Repository:
    """The same repository on a machine with this private key."""
    return replace(repository, open_keys=lambda _: None if pair is None else pair.opener())


def overwrite(s3: S3Server, key: str, content: bytes) -> None:
    """Past our archive, which replaces nothing."""
    s3.client().put_object(Bucket=s3.bucket, Key=key, Body=content)


@pytest.fixture
def place(s3: S3Server, environment: str) -> Repository:
    return repository(s3, environment=environment)


@pytest.fixture
def backup(place: Repository, ground: Ground, tmp_path: Path) -> Manifest:
    return taken(place, ground.database("CREATE TABLE t (i int); INSERT INTO t VALUES (1)"), tmp_path)


def test_a_key_that_opens_the_newest_backup_passes(place: Repository, backup: Manifest) -> None:
    answer = keys(place)
    assert (answer.exit_code, answer.data["verdict"]) == (0, "passed")
    assert answer.data["policy"] == [{"fingerprint": PAIR.recipient, "private_key_here": True}]
    assert answer.data["tried"]["id"] == answer.data["newest"]["id"] == str(backup.id)
    smallest = min(file.stored_size for file in backup.files)
    assert [f.stored_size for f in backup.files if f.stored_name == answer.data["tried"]["file"]] == [smallest]
    assert "is encrypted to these keys" in answer.text
    assert PAIR.secret.reveal() not in answer.text + str(answer.data)


def test_without_a_private_key_or_without_a_backup_nothing_passes(place: Repository, tmp_path: Path) -> None:
    empty = keys(place)
    assert (empty.exit_code, empty.data["tried"]) == (31, None)
    assert "there is no backup yet" in empty.text
    assert "next: invoke backup.take" in empty.text
    closed = keys(holding(place, None))
    assert closed.exit_code == 31
    assert "no private key is given on this machine" in closed.text
    assert "its private key is not given here" in closed.text


def test_a_key_that_does_not_open_the_newest_backup_fails(place: Repository, backup: Manifest) -> None:
    answer = keys(holding(place, OTHER))
    assert answer.exit_code == 30
    assert f"{OTHER.recipient}  NOT of the policy" in answer.text
    assert "FAILED" in answer.text


def test_a_rotated_key_is_told_and_the_old_one_is_still_needed(place: Repository, backup: Manifest) -> None:
    rotated = encrypted_to(place, OTHER)
    found = check(rotated)
    assert (found.removed, found.added) == ((PAIR.recipient,), (OTHER.recipient,))
    assert found.verdict is Verdict.PASSED
    text = keys(rotated).text
    assert f"! {PAIR.recipient} opens it, and is no longer in the policy" in text
    assert f"! {OTHER.recipient} does not open it" in text
    assert keys(holding(rotated, OTHER)).exit_code == 30


def test_one_of_two_recipients_is_enough_and_the_other_is_told(
    place: Repository, ground: Ground, tmp_path: Path
) -> None:
    both = encrypted_to(place, PAIR, OTHER)
    taken(both, ground.database("CREATE TABLE t (i int)"), tmp_path)
    for pair, here in ((PAIR, [True, False]), (OTHER, [False, True])):
        answer = keys(holding(both, pair))
        assert answer.exit_code == 0
        assert [each["private_key_here"] for each in answer.data["policy"]] == here


def test_a_backup_that_is_not_encrypted_to_the_key_that_its_manifest_names_fails(
    s3: S3Server, place: Repository, ground: Ground, tmp_path: Path
) -> None:
    """The manifest is right in every hash, and nobody can open the files."""
    manifest = taken(encrypted_to(place, OTHER), ground.database("CREATE TABLE t (i int)"), tmp_path)
    liar = manifest.model_copy(update={"encryption": manifest.encryption.model_copy(
        update={"recipients": (PAIR.recipient,)})})  # fmt: skip
    overwrite(s3, manifest.id.manifest_key, liar.to_bytes())
    answer = keys(place)
    assert answer.exit_code == 30
    assert "is not encrypted to the keys that the manifest names" in answer.text


def test_a_file_that_was_exchanged_fails(s3: S3Server, place: Repository, backup: Manifest) -> None:
    smallest = min(backup.files, key=lambda file: (file.stored_size, file.name))
    overwrite(s3, backup.id.file_key(smallest.stored_name), b"x" * smallest.stored_size)
    answer = keys(place)
    assert answer.exit_code == 30
    assert f"{smallest.stored_name} has other content than was stored" in answer.text
    assert f"next: invoke backup.verify --id {backup.id}" in answer.text


def test_a_backup_that_has_to_be_thawed_first_is_passed_over(
    place: Repository, backup: Manifest, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = taken(place, ground.database("CREATE TABLE t (i int)"), tmp_path)
    for cold, code, tried in (({newer.id}, 0, str(backup.id)), ({newer.id, backup.id}, 31, None)):
        found = catalog(place)
        gone_cold = tuple(
            replace(one, access=Cold(timedelta(hours=12))) if one.id in cold else one for one in found.backups
        )
        seen = replace(found, backups=gone_cold)
        monkeypatch.setattr("runbooks.backups.keys.catalog", lambda _, seen=seen: seen)
        answer = keys(place)
        assert answer.exit_code == code, answer.text
        assert (answer.data["tried"] and answer.data["tried"]["id"]) == tried
        assert answer.data["newest"]["id"] == str(newer.id)
        assert ("there is no whole backup that can be read now" in answer.text) == (code == 31)


def test_a_key_file_that_others_may_read_is_refused(place: Repository, backup: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(PAIR.secret.reveal())
    path.chmod(0o644)
    with pytest.raises(UsageFault, match="can be read by other users"):
        keys(replace(place, open_keys=keys_from({"BLOOM_DR_KEYS": str(path)})))
    path.chmod(0o600)
    assert keys(replace(place, open_keys=keys_from({"BLOOM_DR_KEYS": str(path)}))).exit_code == 0


# --- a new pair ----------------------------------------------------------------------------------------------------


def test_a_new_pair_is_in_the_file_alone_and_opens_what_is_sealed_to_it(place: Repository, tmp_path: Path) -> None:
    path = tmp_path / "restorer.key"
    answer = made(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secret = path.read_text().splitlines()[-1]
    assert secret.startswith("AGE-SECRET-KEY-1")
    assert secret not in answer.text + str(answer.data)
    assert f'recipients = ["{answer.data["public_key"]}"]' in answer.text
    opener = key_files(place.encryption, [path])
    assert opener is not None
    assert opener.fingerprints == (answer.data["public_key"],)


def test_age_itself_reads_the_file(tmp_path: Path) -> None:
    age = foreign("age")
    public = new_pair(tmp_path / "key", the_time())
    sealed = subprocess.run([age, "-r", public], input=b"rows", capture_output=True, check=True).stdout
    opened = subprocess.run([age, "-d", "-i", tmp_path / "key"], input=sealed, capture_output=True, check=True).stdout
    assert opened == b"rows"


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    new_pair(tmp_path / "key", the_time())
    before = (tmp_path / "key").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "not-there")
    for name in ("key", "link"):
        with pytest.raises(Refused, match="is there already"):
            new_pair(tmp_path / name, the_time())
    assert (tmp_path / "key").read_bytes() == before
    assert not (tmp_path / "not-there").exists()
    with pytest.raises(LocalFault, match="cannot be written"):
        new_pair(tmp_path / "no-folder" / "key", the_time())


def test_a_key_in_a_git_repository_is_warned_of(tmp_path: Path) -> None:
    assert "git repository" not in made(tmp_path / "one").text
    (tmp_path / ".git").mkdir()
    (tmp_path / "below").mkdir()
    assert "lies in a git repository" in made(tmp_path / "below" / "two").text
