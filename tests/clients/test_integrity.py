"""The integrity checks: a sound database passes all of them, and each kind of broken rule is found and named."""

from __future__ import annotations

import pytest

from runbooks.clients.integrity import Integrity, integrity
from runbooks.model.dsn import Dsn
from tests.clients.dump_ground import SHOP, Ground, run, session
from tests.clients.dump_ground import ground as ground


def checked(dsn: Dsn) -> Integrity:
    with session(dsn) as conn:
        return integrity(conn)


def test_a_sound_database_passes_and_everything_was_looked_at(ground: Ground) -> None:
    found = checked(ground.database(SHOP))
    assert found.findings == ()
    assert found.not_checked == ()
    assert found.checked == {
        "foreign key": 1,
        "unique index": 4,
        "check": 1,
        "sequence": 2,
        "materialized view": 1,
        "index": 5,
        "B-tree": 5,
    }


def test_nothing_is_left_in_the_database(ground: Ground) -> None:
    dsn = ground.database(SHOP)
    checked(dsn)
    with session(dsn) as conn:
        assert conn.execute("SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'").fetchone() == (0,)
        assert conn.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'bloom_amcheck'").fetchone() == (0,)


UNSEEN = "SET session_replication_role = replica;"
"""How a superuser gets past the triggers that hold foreign keys."""
BROKEN = {
    "a child without a parent": (
        "CREATE TABLE p (i int PRIMARY KEY); CREATE TABLE c (i int REFERENCES p)",
        UNSEEN + "INSERT INTO c VALUES (7)",
        "foreign key c_i_fkey on public.c: a row of public.c has no parent",
    ),
    "a key of two columns": (
        "CREATE TABLE p (a int, b text, PRIMARY KEY (a, b));"
        "CREATE TABLE c (x int, y text, FOREIGN KEY (x, y) REFERENCES p); INSERT INTO c VALUES (NULL, 'y')",
        UNSEEN + "INSERT INTO c VALUES (1, 'y')",
        "foreign key c_x_y_fkey on public.c: a row of public.c has no parent",
    ),
    "MATCH FULL with half a key": (
        "CREATE TABLE p (a int, b text, PRIMARY KEY (a, b));"
        "CREATE TABLE c (x int, y text, FOREIGN KEY (x, y) REFERENCES p MATCH FULL); INSERT INTO c VALUES (NULL, NULL)",
        UNSEEN + "INSERT INTO c VALUES (NULL, 'y')",
        "foreign key c_x_y_fkey on public.c: a row of public.c has no parent",
    ),
    "a child in a partition": (
        "CREATE TABLE p (i int PRIMARY KEY); CREATE TABLE c (i int REFERENCES p) PARTITION BY RANGE (i);"
        "CREATE TABLE c1 PARTITION OF c FOR VALUES FROM (0) TO (10)",
        UNSEEN + "INSERT INTO c VALUES (7)",
        "foreign key c_i_fkey on public.c: a row of public.c has no parent",
    ),
    "a key that is there twice": (
        'CREATE TABLE t (i int, "My k" text); CREATE UNIQUE INDEX u ON t (lower("My k")) WHERE i > 0',
        "UPDATE pg_index SET indisunique = false WHERE indexrelid = 'u'::regclass;"
        "INSERT INTO t VALUES (1, 'a'), (1, 'A'), (-1, 'a'); REINDEX INDEX u;"
        "UPDATE pg_index SET indisunique = true WHERE indexrelid = 'u'::regclass",
        "unique index public.u: a key is there twice",
    ),
    "NULL that counts as a value": (
        "CREATE TABLE t (i int); CREATE UNIQUE INDEX u ON t (i) NULLS NOT DISTINCT",
        "UPDATE pg_index SET indisunique = false WHERE indexrelid = 'u'::regclass;"
        "INSERT INTO t VALUES (NULL), (NULL); REINDEX INDEX u;"
        "UPDATE pg_index SET indisunique = true WHERE indexrelid = 'u'::regclass",
        "unique index public.u: a key is there twice",
    ),
    "a row that a CHECK forbids": (
        "CREATE TABLE z (c text); CREATE FUNCTION ok(text) RETURNS boolean LANGUAGE sql STABLE"
        " AS 'SELECT EXISTS (SELECT 1 FROM z WHERE c = $1)';"
        "INSERT INTO z VALUES ('x'); CREATE TABLE t (c text CHECK (ok(c))); INSERT INTO t VALUES ('x')",
        "DELETE FROM z",
        "check t_c_check on public.t: a row does not fulfil it",
    ),
    "a check that cannot be run": (
        "CREATE FUNCTION ok(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END';"
        "CREATE TABLE t (c int CHECK (ok(c))); INSERT INTO t VALUES (1)",
        "CREATE OR REPLACE FUNCTION ok(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN 1 / 0; END'",
        "check t_c_check on public.t: the check itself failed: division by zero",
    ),
    "an index that is not valid": (
        "CREATE TABLE t (i int); CREATE INDEX x ON t (i)",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'x'::regclass",
        "index public.x: it is not valid",
    ),
    "an index that lost a row": (
        "CREATE TABLE t (i int); CREATE INDEX x ON t (i); INSERT INTO t VALUES (1)",
        "UPDATE pg_index SET indisready = false, indislive = false WHERE indexrelid = 'x'::regclass;"
        "INSERT INTO t VALUES (2);"
        "UPDATE pg_index SET indisready = true, indislive = true WHERE indexrelid = 'x'::regclass",
        'index public.x: heap tuple (0,2) from table "t" lacks matching index tuple',
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_rule_is_found_and_named(ground: Ground, how: str) -> None:
    make, damage, said = BROKEN[how]
    dsn = ground.database(make)
    assert checked(dsn).findings == ()
    for statement in damage.split(";") if "UPDATE pg_index" in damage else [damage]:
        run(dsn, statement)
    found = checked(dsn)
    assert any(str(one).startswith(said) for one in found.broken), [str(one) for one in found.findings]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("CREATE TABLE t (i serial); INSERT INTO t VALUES (50)", "it stands at 1, and 50 is in use"),
        (
            "CREATE TABLE t (i int GENERATED BY DEFAULT AS IDENTITY (INCREMENT -1 MAXVALUE -1));"
            "INSERT INTO t VALUES (-9)",
            "it stands at -1, and -9 is in use",
        ),
        ("CREATE TABLE t (i serial); INSERT INTO t VALUES (1)", "it stands at 1, and 1 is in use"),
        ("CREATE MATERIALIZED VIEW v AS SELECT 1 WITH NO DATA", "it has no data (never refreshed)"),
    ],
)
def test_what_the_source_may_have_had_too_is_told_and_is_no_damage(ground: Ground, script: str, said: str) -> None:
    found = checked(ground.database(script))
    assert [one.told for one in found.findings] == [said]
    assert found.broken == ()


def test_sequences_at_or_past_the_ids_are_sound(ground: Ground) -> None:
    dsn = ground.database("CREATE TABLE t (i serial); INSERT INTO t DEFAULT VALUES; SELECT setval('t_i_seq', 9)")
    assert checked(dsn).findings == ()


def test_constraints_that_nobody_claims_are_left_alone(ground: Ground) -> None:
    dsn = ground.database(
        "CREATE TABLE p (i int PRIMARY KEY); CREATE TABLE c (i int); INSERT INTO c VALUES (7);"
        "ALTER TABLE c ADD FOREIGN KEY (i) REFERENCES p NOT VALID; ALTER TABLE c ADD CHECK (i < 5) NOT VALID"
    )
    assert checked(dsn).findings == ()


def test_what_a_role_may_not_read_is_told_as_not_checked(ground: Ground) -> None:
    dsn = ground.database("CREATE TABLE t (i int UNIQUE CHECK (i > 0)); REVOKE ALL ON t FROM PUBLIC")
    found = checked(ground.login(dsn.database, "shop"))
    assert len(found.not_checked) == 2
    assert "permission denied for table t" in found.not_checked[0]
