"""What we wrote is read with tools that are not ours: aws, age, sha256sum, pg_restore, psql."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from runbooks.clients import programs
from runbooks.sandbox.s3 import S3Server
from tests.backups.ground import PAIR, repository, taken
from tests.clients.dump_ground import SHOP, Ground
from tests.foreign import foreign


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_aws_age_and_pg_restore_bring_a_backup_back_without_us(
    ground: Ground, s3: S3Server, environment: str, tmp_path: Path
) -> None:
    aws, age = foreign("aws"), foreign("age")
    place = repository(s3, environment=environment)
    manifest = taken(place, ground.database(SHOP), tmp_path)
    fetched, plain, key = tmp_path / "fetched", tmp_path / "plain", tmp_path / "key"
    run(
        aws, "s3", "cp", "--recursive", "--only-show-errors", "--endpoint-url", s3.endpoint,
        f"s3://{s3.bucket}/{manifest.id}/", fetched,
        AWS_ACCESS_KEY_ID=s3.access_key, AWS_SECRET_ACCESS_KEY=s3.secret_key.reveal(), AWS_DEFAULT_REGION=s3.region,
    )  # fmt: skip
    told = json.loads((fetched / "manifest.json").read_text())
    key.touch(mode=0o600)
    key.write_text(PAIR.secret.reveal())
    plain.mkdir()
    for file in told["files"]:
        assert run("sha256sum", fetched / file["stored_name"]).split()[0] == file["stored_sha256"]
        run(age, "--decrypt", "--identity", key, "--output", plain / file["name"], fetched / file["stored_name"])
        assert run("sha256sum", plain / file["name"]).split()[0] == file["sha256"]
    dsn = ground.database()
    password = dsn.password
    assert password is not None
    where = f"host={dsn.host} port={dsn.port} user={dsn.user} dbname={dsn.database}"
    (plain / "globals.sql").rename(tmp_path / "globals.sql")
    pg_restore = programs.find("pg_restore", at_least=17).path
    run(pg_restore, "--exit-on-error", "--no-owner", "--jobs=2", "-d", where, plain, PGPASSWORD=password.reveal())
    for table in told["inventory"]["tables"]:
        count = run(
            programs.find("psql").path, "-Atc", f"SELECT count(*) FROM {table['name']}", where,
            PGPASSWORD=password.reveal(),
        )  # fmt: skip
        if table["kind"] == "table":
            assert int(count) == table["rows"], table["name"]
