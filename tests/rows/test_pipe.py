"""Keys are shipped by two psql processes; every way this can go wrong is an error."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from psycopg import sql

from runbooks.clients import programs
from runbooks.model.errors import DatabaseFault
from runbooks.rows import presence
from runbooks.rows.found import Request
from runbooks.rows.pipe import ship
from runbooks.rows.survey import survey
from tests.rows.cluster import Pair, Pairs, value

SETUP = """
CREATE TABLE t (a text COLLATE "C", b int, v int, PRIMARY KEY (a, b));
INSERT INTO t SELECT E'k\\t"\\\\N' || g, -g, g FROM generate_series(1, 5000) AS g;
CREATE UNLOGGED TABLE keys (k1 text, k2 int);
"""


def shipped(pair: Pair, query: str = "SELECT a, b FROM public.t", target: str = "keys") -> int:
    with pair.production.transaction():
        pair.production.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        snapshot = value(pair.production, "SELECT pg_export_snapshot()")
        return ship(
            pair.production,
            pair.branch,
            query=sql.SQL(query).format(),
            snapshot=str(snapshot),
            target=sql.Identifier("public", target),
        )


def test_all_keys_arrive_as_they_are(pairs: Pairs) -> None:
    pair = pairs(SETUP)
    assert shipped(pair) == 5000
    assert value(pair.branch, "SELECT count(*) FROM public.keys JOIN public.t ON (a, b) = (k1, k2)") == 5000


@pytest.mark.parametrize(
    ("query", "target", "says"),
    [
        ("SELECT nope FROM public.t", "keys", r"production side.*nope"),
        ("SELECT a, 1 / (b + 4000) FROM public.t", "keys", r"production side.*division by zero"),
        ("SELECT a, b FROM public.t", "nokeys", r"branch side.*nokeys"),
        ("SELECT a, a FROM public.t", "keys", r"branch side.*invalid input"),
        ("SELECT a, 1 / (b + 5000) FROM public.t", "nokeys", r"branch side.*nokeys"),
    ],
)
def test_a_failure_on_either_side_is_an_error_that_says_which(pairs: Pairs, query: str, target: str, says: str) -> None:
    pair = pairs(SETUP)
    with pytest.raises(DatabaseFault, match=f"(?s){says}"):
        shipped(pair, query, target)


PSQL = """#!{python}
import os, sys
if "--version" in sys.argv:
    os.execv({psql!r}, [{psql!r}, "--version"])
passfile = os.environ["PGPASSFILE"]
modes = "%o %o" % (os.stat(passfile).st_mode & 0o777, os.stat(os.path.dirname(passfile)).st_mode & 0o777)
names = " ".join(sorted(name for name in os.environ if name.startswith("PG")))
with open({log!r}, "a") as log:
    log.write("|".join([" ".join(sys.argv), modes, names]) + "\\n")
writes = any("pstdout" in word for word in sys.argv)
{action}
os.execv({psql!r}, [{psql!r}, *sys.argv[1:]])
"""


PART = r"sys.stdout.write('a\t1\n'); sys.stdout.flush()"


def pretend(folder: Path, monkeypatch: pytest.MonkeyPatch, action: str) -> Path:
    """Put a psql first that does `action` before, or instead of, the real thing; gives the log of how it was called."""
    log, fake = folder / "log", folder / "psql"
    real = str(programs.find("psql").path)
    fake.write_text(PSQL.format(python=sys.executable, log=str(log), psql=real, action=action))
    fake.chmod(0o755)
    monkeypatch.setenv(programs.SETTING, str(folder))
    return log


def test_the_password_is_in_no_command_line_and_its_file_is_private(
    pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = pairs(SETUP)
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
    log = pretend(tmp_path, monkeypatch, "")
    assert shipped(pair) == 5000
    calls = [line.split("|") for line in log.read_text().splitlines()]
    assert len(calls) == 2
    for command, modes, names in calls:
        assert pair.production.info.password not in command
        assert modes == "600 700"
        assert names == "PGCLIENTENCODING PGPASSFILE"
        folder = Path(command.split()[0]).parent
        assert not list(folder.glob("*.pass"))


@pytest.mark.parametrize(
    ("action", "says"),
    [
        ("if writes: os.kill(os.getpid(), 9)", "production side ended with -9"),
        ("if not writes: os.kill(os.getpid(), 9)", "branch side ended with -9|production side"),
        ("if not writes: sys.exit(0)", "production side|arrived on the branch"),
        # A part of the rows, then a clean end: COPY ... FROM STDIN takes the end of the pipe for the end of the data.
        (f"if writes: {PART}; sys.exit(0)", "arrived on the branch"),
        (f"if writes: {PART}; sys.stderr.write('bloom-dr rows 5000\\n'); sys.exit(0)", "of 5000 keys .* 1 arrived"),
    ],
)
def test_a_process_that_dies_or_lies_is_an_error(
    pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, says: str
) -> None:
    pair = pairs(SETUP)
    pretend(tmp_path, monkeypatch, action)
    with pytest.raises(DatabaseFault, match=f"(?s){says}"):
        shipped(pair)


@pytest.mark.parametrize("batch", [0, 1000], ids=["shipped", "looked up"])
def test_names_with_any_signs_in_them_reach_psql(pairs: Pairs, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    pair = pairs(
        """
        CREATE SCHEMA "s; drop"; CREATE TABLE "s; drop"."t"") \\ '" ("a"")," int, "\\x :v $1 %%s" text, "{}" int,
            PRIMARY KEY ("a"")," , "\\x :v $1 %%s"));
        INSERT INTO "s; drop"."t"") \\ '" SELECT g, 'v' FROM generate_series(1, 9) AS g;
        """.replace("%%", "%")
    )
    name = """"s; drop"."t"") \\ '\""""
    pair.app.execute(f'DELETE FROM {name} WHERE "a"")," > 5'.encode())
    monkeypatch.setattr(presence, "BATCH", batch)
    found = survey(pair.production, pair.branch, Request.parse([name]))
    assert (found.tables[0].asked, found.missing) == (9, 4)


@pytest.mark.parametrize("batch", [0, 1000], ids=["shipped", "looked up"])
def test_both_ways_of_asking_production_find_the_same(
    pairs: Pairs, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    pair = pairs(
        """
        CREATE TABLE p (id citext PRIMARY KEY, u int UNIQUE);
        CREATE TABLE c (id int PRIMARY KEY, p citext REFERENCES p ON DELETE CASCADE, big bigint);
        INSERT INTO p SELECT 'Key' || g, g FROM generate_series(1, 300) AS g;
        INSERT INTO c SELECT g, upper('Key' || (g % 300 + 1)), g FROM generate_series(1, 600) AS g;
        """,
        before="CREATE EXTENSION citext",
    )
    pair.app.execute("DELETE FROM p WHERE u <= 20; UPDATE p SET id = upper(id); INSERT INTO p VALUES ('x', 7)")
    monkeypatch.setattr(presence, "BATCH", batch)
    monkeypatch.setattr(presence, "SPARSE", 10**9)
    found = survey(pair.production, pair.branch, Request.parse(["p"]))
    assert [(table.asked, table.missing, table.in_conflict) for table in found.tables] == [(300, 19, 1), (40, 38, 2)]
