"""A whole backup, taken and proved, and a whole restore of it, proved; beside the scripts that people run instead."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.by_hand import Hand, hand
from bench.comparison import Comparison, Target, against
from bench.data import folder
from bench.measure import Command, Measured, side_by_side
from runbooks.clients import postgres, programs
from runbooks.clients.neon import Neon
from runbooks.model.dsn import Dsn
from runbooks.sandbox import daemon

PROJECT = Path(__file__).parent.parent
TABLES, ROWS = 6, 600_000
"""About 1.3 GB on the server."""

POLICY = """
default_environment = "sandbox"
local_timezone = "UTC"
[environments.sandbox]
sandbox = true
"""
"""The project's own policy has assertions about Bloom's tables."""

DUMP = 'pg_dump "$URL" | gzip > "$OUT"'
CUSTOM = 'pg_dump -Fc -Z zstd:5 -f "$OUT" "$URL"'
RESTORE = 'gunzip -c "$OUT" | psql -q -v ON_ERROR_STOP=1 "$TARGET" >/dev/null'
PARALLEL = 'pg_restore -j 2 --no-owner -d "$TARGET" "$OUT"'


@dataclass(frozen=True)
class Place:
    """A running sandbox with the data, and where its commands are run."""

    home: Path
    dsn: Dsn

    def environment(self, **more: str) -> dict[str, str]:
        secret = self.dsn.password
        assert secret is not None
        where = f"host={self.dsn.keywords()['hostaddr']} port={self.dsn.port} user={self.dsn.user}"
        return {
            "BLOOM_DR_SANDBOX": str(self.home / "sandbox"),
            "BLOOM_DR_RUNS": str(self.home / "runs"),
            "BLOOM_DR_POLICY": str(self.home / "policy.toml"),
            "PATH": f"{programs.find('pg_dump', at_least=17).path.parent}{os.pathsep}{os.environ['PATH']}",
            "PGPASSWORD": secret.reveal(),
            "URL": f"{where} dbname={self.dsn.database}",
            **more,
        }


def run(runs: int, say: Callable[[str], None]) -> tuple[Comparison, ...]:
    with folder() as kept, _place(kept, say) as place:
        return (_take(place, runs, say), _verify(place, runs, say))


def _take(place: Place, runs: int, say: Callable[[str], None]) -> Comparison:
    ours, script, custom = side_by_side(
        [
            _invoke(place, "backup.take", "--tier", "daily"),
            _shell("pg_dump | gzip", DUMP, place.environment(OUT=str(place.home / "by-hand.sql.gz"))),
            _shell("pg_dump -Fc -Z zstd:5", CUSTOM, place.environment(OUT=str(place.home / "by-hand.dump"))),
        ],
        runs=runs,
        say=say,
    )
    return Comparison(
        "A backup of 1.3 GB: inventory, dump, encryption, upload and a second reading of it all; the peers only dump",
        ours,
        (script, custom),
        (against(ours, script, 0.30), against(ours, custom, 0.9), *_memory(ours)),
    )


def _verify(place: Place, runs: int, say: Callable[[str], None]) -> Comparison:
    with hand(place.home / "target") as ordinary:
        ours, script, parallel = side_by_side(
            [
                _invoke(place, "backup.verify", "--latest", "--rung", "5"),
                _restoring(place, ordinary, "gunzip | psql", RESTORE, "by-hand.sql.gz"),
                _restoring(place, ordinary, "pg_restore -j 2", PARALLEL, "by-hand.dump"),
            ],
            runs=runs,
            say=say,
        )
    return Comparison(
        "The same backup fetched, decrypted, restored, compared and checked (rung 5); the peers only restore",
        ours,
        (script, parallel),
        (against(ours, script, 0.8), against(ours, parallel, 0.95)),
    )


def _memory(ours: Measured) -> tuple[Target, ...]:
    return () if ours.peak_mib is None else (Target("peak memory of the client", 150, ours.peak_mib, " MiB"),)


def _invoke(place: Place, name: str, *flags: str) -> Command:
    return Command(
        "bloom-dr",
        " ".join(("invoke", name, *flags)),
        [sys.executable, "-m", "invoke", name, *flags, "--json"],
        environment=place.environment(),
        folder=PROJECT,
        check=_proved,
    )


def _proved(output: str) -> None:
    told: Any = json.loads(output)
    assert told["verdict"] == "proved", told


def _shell(what: str, script: str, environment: dict[str, str]) -> Command:
    return Command(what, script, ["bash", "-c", f"set -eo pipefail; {script}"], environment=environment)


def _restoring(place: Place, target: Hand, what: str, script: str, file: str) -> Command:
    where = f"host=127.0.0.1 port={target.port} user=admin"
    environment = place.environment(OUT=str(place.home / file), TARGET=f"{where} dbname=restored")
    secret = target.dsn.password
    assert secret is not None
    return Command(
        what,
        script,
        ["bash", "-c", f"set -eo pipefail; {script}"],
        environment=environment | {"PGPASSWORD": secret.reveal()},
        prepare=lambda: _emptied(target),
    )


def _emptied(target: Hand) -> None:
    with postgres.connect(target.dsn, application_name="bloom-dr bench") as conn:
        conn.execute("DROP DATABASE IF EXISTS restored")
        conn.execute("DROP ROLE IF EXISTS neondb_owner")
        conn.execute("CREATE ROLE neondb_owner")
        conn.execute("CREATE DATABASE restored")


@contextmanager
def _place(kept: Path, say: Callable[[str], None]) -> Iterator[Place]:
    home = kept / "backups"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o711)
    with ExitStack() as closing:
        closing.callback(shutil.rmtree, home, ignore_errors=True)
        (home / "policy.toml").write_text(POLICY)
        running = daemon.up(home / "sandbox")
        closing.callback(daemon.down, home / "sandbox", delete=True)
        neon = Neon(api=running.api_url, key=running.api_key, project_id=running.project_id)
        dsn = neon.connection(branch=neon.default_branch(), database="neondb", role="neondb_owner")
        say(f"making {TABLES} tables of {ROWS:,} rows")
        _fill(dsn)
        daemon.archive(home / "sandbox")
        yield Place(home, dsn)


def _fill(dsn: Dsn) -> None:
    script = Path(__file__).with_name("data.sql").read_text()
    with postgres.connect(dsn, application_name="bloom-dr bench", search_path="public") as conn:
        conn.execute("select set_config('bench.rows', %s, false)", [str(ROWS)])
        for number in range(1, TABLES + 1):
            for statement in script.replace("visits", f"visits_{number}").split("\n\n"):
                conn.execute(statement.encode())
