r"""Old backups: whole ones come back, and every sort of damage, trick or failed statement ends in an error."""

from __future__ import annotations

import gzip
import io
import random
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbooks.backups import legacy_stream
from runbooks.backups.legacy import LegacyFacts, beginning, inspect
from runbooks.backups.legacy_choice import Choice
from runbooks.backups.legacy_restore import UNFINISHED, LegacyResult, outlook, restore
from runbooks.backups.legacy_stream import BLOCK, Unzipped
from runbooks.backups.legacy_text import DumpText, Rows, Statement
from runbooks.clients import programs
from runbooks.clients.dump_process import login
from runbooks.clients.restore_complaints import Kind
from runbooks.clients.restore_outlook import Target, contents
from runbooks.model.dsn import Dsn
from runbooks.model.errors import DeadlinePassed, LocalFault, ProofFailed, Refused
from tests.clients.dump_ground import SHOP, Ground, inventory, lost, run, session, value
from tests.clients.test_restore import C04
from tests.clients.test_restore_versions import old as old

NASTY = r"""
CREATE SCHEMA "odd "" ; -- name";
CREATE TABLE "odd "" ; -- name"."COPY x FROM stdin;" (id serial PRIMARY KEY, "a;b" text DEFAULT 'x OWNER TO y;',
    c text DEFAULT E'it''s \\ a OWNER TO b', d text CHECK (d <> '--' AND d <> '/*' AND d <> E'\\'));
INSERT INTO "odd "" ; -- name"."COPY x FROM stdin;" ("a;b", c, d) VALUES
    ('\.', E'\\restrict abc\n\\.\n', 'SELECT 1;'), ('-- PostgreSQL database dump complete', E'\n\\.\n--\n', '$$'),
    (E'\\connect x', 'COPY t FROM stdin;', NULL), ('', E'a\tb\rc\\', ''), (E'\\N', E'\\.', E'\r\n');
CREATE TABLE bare (); INSERT INTO bare DEFAULT VALUES; INSERT INTO bare DEFAULT VALUES;
CREATE TABLE alone (x text); INSERT INTO alone SELECT '\.' FROM generate_series(1, 5); INSERT INTO alone VALUES ('');
CREATE FUNCTION dollars(a text) RETURNS text LANGUAGE plpgsql AS $x$
BEGIN -- ' " $y$ \restrict
    EXECUTE 'SELECT $$a;b$$ /* '; RETURN $_$;$$ \. $_$ || a;
/*
-- PostgreSQL database dump complete
\.
\unrestrict abc
*/
END $x$;
CREATE FUNCTION atomic(a int) RETURNS int LANGUAGE sql
    BEGIN ATOMIC SELECT CASE WHEN a > 1 THEN 2 ELSE CASE a WHEN 0 THEN 1 END END;
    SELECT (CASE WHEN a > 1 THEN 2 END); END;
CREATE FUNCTION "begin"(a int) RETURNS int LANGUAGE sql RETURN a;
CREATE FUNCTION "end"(a int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT "begin"(a); END;
CREATE RULE twice AS ON UPDATE TO alone DO INSTEAD (SELECT 1; SELECT ';' AS ")";);
CREATE VIEW texts AS SELECT E'\\' AS a, 'b;''' AS "c""d;", U&'\0041' AS e, 1 AS a$b$c, ';' AS "$$";
COMMENT ON TABLE alone IS E'one\n\\connect postgres\n-- PostgreSQL database dump complete\n'';';
COMMENT ON FUNCTION "begin"(int) IS $$\restrict; GRANT ALL ON x TO y;$$;
"""
"""Everything that looks like something else."""


def sql_of(dsn: Dsn, *options: str, client: programs.Program | None = None) -> bytes:
    """What pg_dump writes."""
    client = client or programs.find("pg_dump", at_least=17)
    with login(dsn, "test") as way:
        command = [client.path, *options, "-d", way.conninfo]
        return subprocess.run(command, env=way.environment, check=True, capture_output=True).stdout


def kept(folder: Path, text: bytes) -> Path:
    path = folder / "bloom_backup_20251203_020000.sql.gz"
    path.write_bytes(gzip.compress(text))
    return path


def seen(text: bytes) -> LegacyFacts:
    return inspect(io.BytesIO(gzip.compress(text)))


@pytest.fixture(scope="module")
def source(ground: Ground) -> Dsn:
    return ground.database(SHOP + NASTY)


@pytest.fixture(scope="module")
def text(source: Dsn) -> bytes:
    return sql_of(source)


@pytest.fixture(scope="module")
def plain(ground: Ground) -> bytes:
    """A small dump."""
    return sql_of(ground.database("CREATE TABLE t (i serial, x text); INSERT INTO t (x) VALUES ('a'), ('b;')"))


def pieces(text: bytes, size: int = BLOCK) -> list[tuple[bytes, bytes | None]]:
    blocks = (text[start : start + size] for start in range(0, len(text), size))
    return [
        (piece.text, None) if isinstance(piece, Statement) else (piece.text, b"".join(piece))
        for piece in DumpText(blocks)
    ]


# What is in it


def test_a_whole_dump_says_what_is_in_it(source: Dsn, text: bytes) -> None:
    facts = seen(text)
    assert facts.server_version.startswith("17.")
    assert facts.client_version.startswith("17.")
    assert facts.restricted
    assert (facts.extensions, facts.large_objects, facts.refreshed) == (("citext", "hstore"), 1, ("public.total",))
    expected = {one.name: one.rows for one in inventory(source).tables if one.kind == "table"}
    assert {one.name: one.rows for one in facts.tables} == expected
    assert {(one.name, one.last_value) for one in facts.sequences} >= {
        ("public.client_id_seq", 3000), ('"Big Shop"."Order_id_seq"', -5000),
    }  # fmt: skip
    assert facts.rows == sum(expected.values())
    assert ["no inventory" in one for one in facts.unknown] == [True]


def test_what_is_put_together_again_is_the_dump(text: bytes) -> None:
    """Nothing is lost between the pieces, but comments and empty lines at the outermost level and `restrict` lines."""
    rest = text
    for statement, rows in pieces(text):
        between, found, rest = rest.partition(statement)
        assert found
        for line in between.splitlines():
            assert not line or line.startswith((b"--", b"\\restrict "))
        if rows is not None:
            assert rest.startswith(b"\n" + rows + b"\\.\n")
            rest = rest[len(rows) + 4 :]
    assert b"\n-- PostgreSQL database dump complete\n" in rest


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 64, 1000, 4096])
def test_the_pieces_are_the_same_however_the_octets_arrive(ground: Ground, size: int) -> None:
    text = sql_of(ground.database(NASTY))
    assert pieces(text, size) == pieces(text)


_texts = st.text(st.sampled_from("\\.\n\r\t'\"$;-/*aE(\0 {}:é").filter(lambda c: c != "\0"), max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(_texts, min_size=1, max_size=4), max_size=6), _texts, st.integers(1, 40))
def test_no_content_can_pose_as_something_else(tables: list[list[str]], name: str, size: int) -> None:
    """COPY rows as the server writes them, names and texts as pg_dump quotes them, in any blocks."""
    escapes = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    quoted = '"' + name.replace('"', '""') + 'n"'
    literal = "E'" + name.replace("\\", "\\\\").replace("'", "''") + "'"
    expected: list[tuple[bytes, bytes | None]] = []
    text = "--\n-- PostgreSQL database dump\n--\n\n"
    for rows in tables:
        data = "".join("".join(escapes.get(c, c) for c in row) + "\n" for row in rows)
        comment = f"COMMENT ON TABLE public.{quoted} IS {literal};"
        tag = f"$t{'_' * len(name)}$"
        body = f"CREATE FUNCTION public.{quoted}() AS {tag}{name}$${tag};"
        copy = f"COPY public.{quoted} (a) FROM stdin;"
        text += f"-- Name: x; Type: y\n--\n\n{comment}\n\n\n{body}\n\n{copy}\n{data}\\.\n\n\n"
        expected += [(comment.encode(), None), (body.encode(), None), (copy.encode(), data.encode())]
    text += "--\n-- PostgreSQL database dump complete\n--\n\n"
    assert pieces(text.encode(), size) == expected


def test_c02_two_dumps_of_unchanged_data_have_one_content_whatever_their_restrict_key_is(source: Dsn) -> None:
    one, other = sql_of(source), sql_of(source)
    assert one != other
    assert seen(one).content == seen(other).content
    assert seen(one).content != seen(other.replace(b"Mail7@x", b"Mail8@x")).content


def test_rows_that_are_written_as_inserts_are_not_counted_and_that_is_said(ground: Ground, tmp_path: Path) -> None:
    dsn = ground.database(NASTY)
    text = sql_of(dsn, "--inserts")
    facts = seen(text)
    assert {one.rows for one in facts.tables} == {None}
    assert any("written as INSERTs, and are not counted" in one for one in facts.unknown)
    target = ground.database()
    result = restore(kept(tmp_path, text), target)
    assert result.unproved == facts.unknown
    assert not lost(inventory(dsn), inventory(target))


# What is no whole dump


def test_c12_the_twenty_octets_of_a_failed_dump_are_no_backup(tmp_path: Path) -> None:
    made = subprocess.run(["sh", "-c", "false | gzip -c"], capture_output=True, check=True).stdout
    assert len(made) == 20
    with pytest.raises(ProofFailed, match="nothing in the file but the gzip around it"):
        inspect(io.BytesIO(made))
    with pytest.raises(ProofFailed, match="the file is empty"):
        inspect(io.BytesIO(b""))
    with pytest.raises(LocalFault):
        inspect(tmp_path / "none.sql.gz")


def test_a_gzip_that_is_cut_anywhere_is_broken(plain: bytes) -> None:
    packed = gzip.compress(plain)
    for length in (*range(40), *range(40, len(packed), 37), *range(len(packed) - 20, len(packed))):
        with pytest.raises(ProofFailed):
            inspect(io.BytesIO(packed[:length]))


def test_a_dump_that_is_cut_anywhere_is_broken_although_its_gzip_is_whole(plain: bytes) -> None:
    """C12: pg_dump wrote a part and failed, and gzip finished its work."""
    end = plain.index(b"\n\\unrestrict") + len(b"\n\\unrestrict") + 64
    for length in (*range(0, end, 11), *range(end - 150, end)):
        with pytest.raises(ProofFailed):
            seen(plain[:length])


@pytest.mark.parametrize("seed", range(30))
def test_one_changed_octet_is_seen(plain: bytes, seed: int) -> None:
    packed = bytearray(gzip.compress(plain, mtime=0))
    # Of the ten octets of gzip's header (flags, time, system) not all matter to the content.
    packed[random.Random(seed).randrange(10, len(packed))] ^= 1 << seed % 8
    with pytest.raises(ProofFailed):
        inspect(io.BytesIO(bytes(packed)))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"PGDMP\x01\x10\x00" + bytes(4000), "pg_dump -Fc"),
        (b"--\n-- PostgreSQL database cluster dump\n--\n\nCREATE ROLE x;\n", "pg_dumpall"),
        (b"toc.dat" + bytes(250) + b"ustar" + bytes(300), "tar archive"),
        (b"INSERT INTO t VALUES (1);\n", "not pg_dump's plain text"),
        (b"\r\n\0\xff" * 5000, "not pg_dump's plain text"),
        (b"-", "not pg_dump's plain text"),
    ],
)
def test_what_is_not_pg_dumps_plain_text_is_named(content: bytes, told: str) -> None:
    with pytest.raises(ProofFailed, match=told):
        seen(content)


def test_a_file_that_is_no_gzip_is_named(plain: bytes) -> None:
    with pytest.raises(ProofFailed, match="no gzip or is damaged"):
        inspect(io.BytesIO(plain))


def test_several_members_and_zeros_at_the_end_are_one_file(plain: bytes) -> None:
    members = b"".join(gzip.compress(plain[start : start + 97]) for start in range(0, len(plain), 97))
    for padding in (b"", bytes(1), bytes(3 * BLOCK)):
        facts = inspect(io.BytesIO(members + padding))
        assert (facts.octets, facts.content) == (len(members + padding), seen(plain).content)
    with pytest.raises(ProofFailed, match="no gzip or is damaged"):
        inspect(io.BytesIO(members + b"foreign"))


def test_the_trailer_inside_of_rows_and_functions_does_not_count(plain: bytes) -> None:
    trailer = b"\n--\n-- PostgreSQL database dump complete\n--\n"
    body = plain[: plain.index(b"\\restrict")]
    for text in (
        b"COPY public.t (x) FROM stdin;" + trailer,
        b"CREATE FUNCTION f() AS $$" + trailer,
        b"COMMENT ON TABLE t IS '" + trailer,
        b"CREATE TABLE t (i int)" + trailer,
    ):
        with pytest.raises(ProofFailed, match="stops"):
            seen(body + text)
    with pytest.raises(Refused, match="goes on behind the end"):
        seen(body + trailer + b"SELECT 1;\n")
    assert seen(body + trailer).tables == ()


@pytest.mark.parametrize(
    "line",
    [b"\\! touch x", b"\\i /etc/passwd", b"\\restrict abc", b"\\unrestrict abc", b"SELECT 1 \\g | sh", b"\\.",
     b"SELECT 1; \\! sh", b"COPY t FROM PROGRAM 'x';", b"COPY t FROM '/etc/passwd';", b"copy t from stdin;",
     b"SET client_encoding = 'SJIS';", b"COPY t FROM stdin; SELECT 1;", b"/* x */",
     b"COPY public.t (x) FROM stdin WITH (FORMAT csv);"],
)  # fmt: skip
def test_what_pg_dump_does_not_write_is_refused(plain: bytes, line: bytes) -> None:
    text = plain.replace(b"\n\nSET default_tablespace", b"\n\n" + line + b"\n\nSET default_tablespace", 1)
    assert text != plain
    with pytest.raises(Refused):
        seen(text)


def test_a_restrict_line_counts_only_before_the_first_statement(plain: bytes) -> None:
    before, _, after = plain.partition(b"\\restrict")
    key, _, after = after.partition(b"\n")
    with pytest.raises(Refused):
        seen(
            before + after.replace(b"\n\nSET default_tablespace", b"\n\n\\restrict" + key + b"\nSET default_tablespace")
        )


def test_a_dump_that_makes_its_own_database_is_refused_with_the_reason(ground: Ground) -> None:
    for options in (["-C"], ["-C", "--clean", "--if-exists"]):
        with pytest.raises(Refused, match="pg_dump -C"):
            seen(sql_of(ground.database(), *options))


# Memory


class Endless(io.RawIOBase):
    """A dump with one row of `size` octets and a comment between members, made while it is read."""

    def __init__(self, size: int) -> None:
        self._parts = self._made(size)

    def _made(self, size: int) -> Iterator[bytes]:
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        yield packer.compress(b"--\n-- PostgreSQL database dump\n--\n\nCOPY public.t (x) FROM stdin;\nx\n")
        for _ in range(size // BLOCK):
            yield packer.compress(b"\\\\.x" * (BLOCK // 4))
        yield packer.compress(b"\n\\.\n\n--\n-- PostgreSQL database dump complete\n--\n\n") + packer.flush()

    def read(self, size: int = -1) -> bytes:
        del size
        return next((part for part in self._parts if part), b"")


def test_memory_does_not_grow_with_the_file_or_a_row() -> None:
    tracemalloc.start()
    try:
        facts = inspect(Endless(150 * BLOCK))  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [(one.name, one.rows) for one in facts.tables] == [("public.t", 2)]
    assert peak < 10 * BLOCK


def test_no_block_is_greater_than_the_limit_however_small_it_was_packed() -> None:
    packed = gzip.compress(bytes(40 * BLOCK))
    assert len(packed) < BLOCK // 4
    blocks = [len(block) for block in Unzipped(io.BytesIO(packed))]
    assert (max(blocks), sum(blocks)) == (BLOCK, 40 * BLOCK)


@pytest.mark.parametrize("between", [b"", b"\n"], ids=["one line", "many lines"])
def test_a_statement_that_never_ends_is_refused_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch, between: bytes
) -> None:
    monkeypatch.setattr(legacy_stream, "STATEMENT_LIMIT", 3 * BLOCK)
    monkeypatch.setattr("runbooks.backups.legacy_text.STATEMENT_LIMIT", 3 * BLOCK)
    taken = 0

    def blocks() -> Iterator[bytes]:
        nonlocal taken
        yield b"--\n-- PostgreSQL database dump\n--\n\nINSERT INTO t VALUES ('\n"
        while True:
            taken += 1
            yield b"x" * (BLOCK - 1) + (between or b"x")

    with pytest.raises(Refused, match="a statement of more than 3 MB"):
        list(DumpText(blocks()))
    assert taken <= 5


# The restore


def judged(path: Path, dsn: Dsn, source: Dsn, **how: object) -> LegacyResult:
    result = restore(path, dsn, **how)  # type: ignore[arg-type]
    differences = lost(inventory(source), inventory(dsn))
    assert not differences, [str(one) for one in differences]
    return result


@pytest.mark.parametrize("owners", [True, False])
def test_a_whole_dump_comes_back_equal(ground: Ground, source: Dsn, text: bytes, tmp_path: Path, owners: bool) -> None:
    result = judged(kept(tmp_path, text), ground.database(), source, owners=owners)
    assert result.clean
    assert (result.complaints, result.left_out, result.unpopulated) == ((), (), ())
    assert result.rows == result.facts.rows > 8000
    assert dict(result.skipped).get("owners", 0) == (0 if owners else text.count(b"\nALTER ") - _not_owner(text))


def _not_owner(text: bytes) -> int:
    return sum(s.startswith(b"ALTER ") and b" OWNER TO cloud_admin;" not in s for s, _ in pieces(text))


def test_a_dump_of_a_dump_that_came_back_has_the_same_content(ground: Ground, text: bytes, tmp_path: Path) -> None:
    """pg_dump itself as the judge of the splitter."""
    target = ground.database()
    restore(kept(tmp_path, text), target, owners=True)
    again = sql_of(target)
    # The numbers of large objects and the order of what is named alike may differ, statements may not.
    assert sorted(s for s, rows in pieces(again) if rows is None) == sorted(s for s, r in pieces(text) if r is None)


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_JP", "UTF8"])
def test_a_dump_in_another_encoding_comes_back(ground: Ground, tmp_path: Path, encoding: str) -> None:
    letter = {"LATIN1": "é", "EUC_JP": "表", "UTF8": "😀"}[encoding]
    source = ground.database(f'CREATE TABLE "t{letter}" (x text); INSERT INTO "t{letter}" VALUES (\'{letter};\')')
    target = ground.database()
    result = judged(kept(tmp_path, sql_of(source, f"--encoding={encoding}")), target, source)
    assert [one.name for one in result.facts.tables] == [f'public."t{letter}"']


def test_rows_that_were_written_through_the_partitioned_table_are_counted_in_it(
    ground: Ground, source: Dsn, tmp_path: Path
) -> None:
    path = kept(tmp_path, sql_of(source, "--load-via-partition-root"))
    facts = inspect(path)
    assert ("public.visit", 500) in [(one.name, one.rows) for one in facts.tables]
    judged(path, ground.database(), source)


@pytest.mark.parametrize("options", [["--clean", "--if-exists"], ["--use-set-session-authorization"], ["-v"]])
def test_other_ways_to_write_a_dump_come_back_too(
    ground: Ground, source: Dsn, tmp_path: Path, options: list[str]
) -> None:
    judged(kept(tmp_path, sql_of(source, *options)), ground.database(), source)


def test_c02_an_older_server_gets_everything_but_one_setting_which_is_told(
    old: Dsn, ground: Ground, tmp_path: Path
) -> None:
    source = ground.database(SHOP)
    target = old.with_database("target")
    result = judged(kept(tmp_path, sql_of(source)), target, source)
    assert [(one.kind, one.text) for one in result.complaints] == [(Kind.HARMLESS, "SET transaction_timeout = 0;")]
    assert result.clean


def test_a_dump_by_an_older_pg_dump_comes_back_in_a_newer_server(old: Dsn, ground: Ground, tmp_path: Path) -> None:
    client = programs.search("pg_dump", at_least=14, environment={}, root=Path("/"), wheel=None)
    source = old.with_database("source")
    run(source, SHOP + NASTY)
    target = ground.database()
    result = judged(kept(tmp_path, sql_of(source, client=client)), target, source)
    assert result.facts.client_version.startswith(f"{client.version[0]}.{client.version[1]}")
    assert result.clean


def test_c02_any_other_unknown_setting_still_stops_the_restore(ground: Ground, plain: bytes, tmp_path: Path) -> None:
    text = plain.replace(b"SET transaction_timeout = 0;", b"SET fusion_timeout = 0;")
    with pytest.raises(ProofFailed, match=r"\(SET fusion_timeout = 0;\)"):
        restore(kept(tmp_path, text), ground.database())


def test_c02_only_settings_that_the_target_lacks_are_dropped() -> None:
    lifted = ["SET transaction_timeout = 0;", "SET idle_session_timeout = 0;"]
    for major, wanted in ((13, [False, False]), (16, [False, True]), (17, [True, True])):
        choice = Choice(Target(True, False, frozenset()), major, has_public=True, owners=True)
        assert [choice.wants(one) for one in lifted] == wanted
        assert choice.wants("SET transaction_timeout = 5;")


def test_the_schema_that_every_database_has_is_made_only_if_the_dump_has_dropped_it() -> None:
    choice = Choice(Target(True, False, frozenset()), 17, has_public=True, owners=True)
    assert not choice.wants("CREATE SCHEMA public;")
    assert [one.kind for one in choice.dropped] == [Kind.HARMLESS]
    assert choice.wants("DROP SCHEMA IF EXISTS public;")
    assert choice.wants("CREATE SCHEMA public;")


def test_c03_the_first_failed_statement_stops_the_restore_and_is_named(
    ground: Ground, plain: bytes, tmp_path: Path
) -> None:
    target = ground.database()
    text = plain.replace(
        b"ALTER TABLE ONLY public.t ALTER", b"CREATE VIEW v AS SELECT nope;\nALTER TABLE ONLY public.t ALTER"
    )
    assert text != plain
    with pytest.raises(ProofFailed, match=r"CREATE VIEW v AS SELECT nope;\).*column \"nope\" does not exist") as caught:
        restore(kept(tmp_path, text), target)
    assert caught.value.safe == UNFINISHED
    assert value(target, "SELECT count(*) FROM public.t") == 0, "nothing was run from there on"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace(b"1\ta\n", b"x\ta\n"),
        lambda text: text.replace(b"1\ta\n", b"1\n"),
        lambda text: text.replace(b"1\ta\n", b"1\t\xff\n"),
        lambda text: text.replace(b"'public.t_i_seq', 2, true", b"'public.t_i_seq', -2, true"),
    ],
)
def test_c03_rows_that_are_refused_are_no_restore(
    ground: Ground, plain: bytes, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    text = damage(plain)
    assert text != plain
    with pytest.raises(ProofFailed, match=r"run a statement of the dump \((COPY public\.t|SELECT pg_catalog\.setval)"):
        restore(kept(tmp_path, text), ground.database())


def test_c03_what_did_not_arrive_is_seen_although_no_statement_failed(
    ground: Ground, plain: bytes, tmp_path: Path
) -> None:
    end = b"\n--\n-- PostgreSQL database dump complete"
    for statement, told in (
        (b"DELETE FROM public.t WHERE i = 1;", r"table public\.t: 2 rows expected, 1 rows found"),
        (b"ALTER TABLE public.t RENAME TO u;", r"table public\.t: 2 rows expected, no such table found"),
        (b"SELECT pg_catalog.nextval('public.t_i_seq');", r"sequence public\.t_i_seq: 2 expected, 3 found"),
        (b"BEGIN; DELETE FROM public.t; COMMIT;", r"2 rows expected, 0 rows found"),
        (b"DO $$BEGIN PERFORM lo_create(1); END$$;", r"large objects: 0 expected, 1 found"),
    ):
        with pytest.raises(ProofFailed, match=told) as caught:
            restore(kept(tmp_path, plain.replace(end, b"\n" + statement + b"\n" + end)), ground.database())
        assert caught.value.safe == UNFINISHED


@pytest.mark.parametrize("length", [100, 0.5, 0.99])
def test_c03_a_cut_file_is_refused_before_the_target_is_touched(
    ground: Ground, text: bytes, tmp_path: Path, length: float
) -> None:
    path, target = kept(tmp_path, text), ground.database()
    octets = path.read_bytes()
    path.write_bytes(octets[: int(length if length > 1 else length * len(octets))])
    with pytest.raises(ProofFailed):
        restore(path, target)
    with session(target) as conn:
        assert contents(conn) == ()


def test_a_file_that_changes_after_it_was_inspected_is_no_restore(ground: Ground, plain: bytes, tmp_path: Path) -> None:
    facts = inspect(kept(tmp_path, plain))
    with pytest.raises(ProofFailed, match="changed while it was restored"):
        restore(kept(tmp_path, plain.replace(b"1\ta\n", b"1\tc\n")), ground.database(), facts=facts)
    path = kept(tmp_path, plain)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ProofFailed, match="stops") as caught:
        restore(path, ground.database(), facts=facts)
    assert caught.value.safe == UNFINISHED


@dataclass(frozen=True)
class Tolerated:
    message: str
    reason: str


def test_c03_only_what_the_policy_tolerates_goes_on_and_it_is_told(
    ground: Ground, plain: bytes, tmp_path: Path
) -> None:
    end = b"\n--\n-- PostgreSQL database dump complete"
    text = plain.replace(end, b"\nCREATE POLICY p ON public.t TO nobody;\n" + end)
    with pytest.raises(ProofFailed, match='role "nobody" does not exist'):
        restore(kept(tmp_path, text), ground.database())
    reason = Tolerated('role "nobody" does not exist', "gone since 2024")
    result = restore(kept(tmp_path, text), ground.database(), tolerated=[reason])
    assert [(one.kind, one.reason) for one in result.complaints] == [(Kind.TOLERATED, "gone since 2024")]
    assert not result.clean
    broken = plain.replace(b"1\ta\n", b"x\ta\n")
    with pytest.raises(ProofFailed, match="2 rows expected, 0 rows found"):
        restore(kept(tmp_path, broken), ground.database(), tolerated=[Tolerated("invalid input syntax", "why not")])


@pytest.fixture
def provider(ground: Ground, tmp_path: Path) -> tuple[Path, Dsn]:
    """A dump with roles that the target does not have, and things that only a superuser can create."""
    run(ground.admin(), "CREATE ROLE plat_super; CREATE ROLE plat_admin SUPERUSER")
    source = ground.database(C04)
    path = kept(tmp_path, sql_of(source))
    run(source, "DROP SUBSCRIPTION s; DROP OWNED BY plat_super, plat_admin")
    run(ground.admin(), "DROP ROLE plat_super; DROP ROLE plat_admin")
    return path, source


def test_c04_roles_of_the_provider_do_not_stop_the_rows(ground: Ground, provider: tuple[Path, Dsn]) -> None:
    path, source = provider
    target = ground.database(owner="shop")
    facts = inspect(path)
    assert "192.0.2.1" not in facts.model_dump_json(), "a connection string may hold a password"
    before = outlook(facts, target)
    result = judged(path, target, source)
    assert value(target, "SELECT count(*) FROM public.t") == 1
    assert value(target, "SELECT tableowner FROM pg_tables WHERE tablename = 't'") == "shop"
    assert value(target, "SELECT string_agg(pubname, ',') FROM pg_publication") == "q"
    assert {one.what: one.reason for one in result.left_out} == {
        "EVENT TRIGGER et": "only a superuser can create it",
        "PUBLICATION p": "only a superuser can publish all tables",
        "SUBSCRIPTION s": "it would fetch changes from another server",
    }
    assert sorted(before, key=str) == sorted(result.left_out, key=str)
    assert not result.clean
    assert result.complaints == ()
    assert "GRANT SELECT ON TABLE public.t TO plat_super;" in result.grants
    assert any(one.startswith("ALTER DEFAULT PRIVILEGES FOR ROLE plat_admin ") for one in result.grants)
    skipped = dict(result.skipped)
    assert (skipped["privileges"], skipped["default privileges"], skipped["comments of extensions"]) == (1, 1, 1)
    assert skipped["owners"] >= 2


def test_c04_with_owners_a_role_that_is_missing_stops_the_restore(ground: Ground, provider: tuple[Path, Dsn]) -> None:
    with pytest.raises(ProofFailed, match=r"GRANT SELECT ON TABLE public\.t TO plat_super;.*does not exist"):
        restore(provider[0], ground.database(), owners=True)


def test_c04_texts_about_owners_and_grants_are_no_owners_and_grants() -> None:
    choice = Choice(Target(False, False, frozenset()), 17, has_public=True, owners=False)
    for text in (
        "ALTER TABLE ONLY public.t ALTER COLUMN x SET DEFAULT 'a OWNER TO b;';",
        "ALTER TABLE ONLY public.t ALTER COLUMN x SET DEFAULT 'a OWNER TO b'::text;",
        "ALTER TABLE ONLY public.t ADD CONSTRAINT c CHECK ((x <> ' OWNER TO y;'));",
        "COMMENT ON TABLE public.t IS 'GRANT ALL ON x TO y;';",
        "CREATE VIEW public.v AS SELECT ' OWNER TO x;';",
    ):
        assert choice.wants(text), text
    for text in ('ALTER TABLE "a b"."c;d" OWNER TO "e f";', "ALTER FUNCTION public.f(a text) OWNER TO g;",
                 "ALTER LARGE OBJECT 5 OWNER TO g;", "ALTER OPERATOR public.=(a,b) OWNER TO g;"):  # fmt: skip
        assert not choice.wants(text), text


C06 = """
CREATE TABLE zcat (code text PRIMARY KEY); INSERT INTO zcat VALUES ('x');
CREATE FUNCTION ok(text) RETURNS boolean LANGUAGE sql STABLE
    AS 'SELECT EXISTS (SELECT 1 FROM public.zcat WHERE code = $1)';
CREATE TABLE aitem (id int PRIMARY KEY, code text CHECK (ok(code))); INSERT INTO aitem VALUES (1, 'secret-of-x');
"""


def test_c06_a_check_that_looks_into_a_later_table_is_red_and_names_the_table(ground: Ground, tmp_path: Path) -> None:
    source = ground.database(C06.replace("VALUES ('x')", "VALUES ('secret-of-x')"))
    with pytest.raises(ProofFailed, match=r"COPY public\.aitem .*violates check constraint") as caught:
        restore(kept(tmp_path, sql_of(source)), ground.database())
    assert "secret-of-x" not in str(caught.value), "values of rows have no place in a report"


def unrefreshable(ground: Ground) -> Dsn:
    body = "LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT sum(c) FROM {}); END'"
    total = f"CREATE OR REPLACE FUNCTION total() RETURNS bigint {body}"
    source = ground.database("CREATE TABLE price (c int); INSERT INTO price VALUES (1)")
    run(source, f"{total.format('public.price')}; CREATE MATERIALIZED VIEW mv AS SELECT total() AS s")
    run(source, total.format("price"))
    return source


def test_c06_a_view_that_cannot_be_refreshed_is_red_and_named(ground: Ground, tmp_path: Path) -> None:
    path = kept(tmp_path, sql_of(unrefreshable(ground)))
    with pytest.raises(ProofFailed, match=r"REFRESH MATERIALIZED VIEW public\.mv;.*\"price\" does not exist"):
        restore(path, ground.database())
    with pytest.raises(ProofFailed, match=r"materialized view public\.mv has no data"):
        restore(path, ground.database(), tolerated=[Tolerated('relation "price" does not exist', "known")])


def test_c06_a_view_that_had_no_data_at_the_source_is_told(ground: Ground, tmp_path: Path) -> None:
    source = ground.database("CREATE MATERIALIZED VIEW mv AS SELECT 1 AS i WITH NO DATA")
    assert restore(kept(tmp_path, sql_of(source)), ground.database()).unpopulated == ("public.mv",)


def test_c07_a_target_that_is_not_empty_is_refused(ground: Ground, plain: bytes, tmp_path: Path) -> None:
    target = ground.database("CREATE TABLE np (v int)")
    path = kept(tmp_path, plain)
    for act in (lambda: restore(path, target), lambda: outlook(inspect(path), target)):
        with pytest.raises(Refused, match=r"holds table public\.np"):
            act()


def test_a_restore_ends_when_its_time_is_over(ground: Ground, plain: bytes, tmp_path: Path) -> None:
    text = plain.replace(b"\nCOPY public.t", b"\nSELECT pg_catalog.pg_sleep(600);\nCOPY public.t")
    target = ground.database()
    path = kept(tmp_path, text)
    with pytest.raises(DeadlinePassed) as caught:
        restore(path, target, time_limit=timedelta(seconds=1), facts=inspect(path))
    assert caught.value.safe == UNFINISHED
    with pytest.raises(DeadlinePassed):
        restore(path, ground.database(), time_limit=timedelta(0))
    assert value(ground.admin(), "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%'"
                 " AND state = 'active' AND pid <> pg_backend_pid()") == 0  # fmt: skip


def test_the_beginning_of_a_statement_shows_no_values() -> None:
    assert beginning("INSERT INTO public.t VALUES (4111, 'x');") == "INSERT INTO public.t"
    assert beginning("CREATE SUBSCRIPTION s CONNECTION 'password=x'") == "CREATE SUBSCRIPTION s CONNECTION"
    assert beginning("CREATE FUNCTION f() AS $$secret$$") == "CREATE FUNCTION f() AS"
    assert beginning("CREATE TABLE public.t (\n    a int\n)") == "CREATE TABLE public.t ("


def test_progress_names_the_tables(ground: Ground, plain: bytes, tmp_path: Path) -> None:
    heard: list[str] = []
    restore(kept(tmp_path, plain), ground.database(), progress=heard.append)
    assert heard == ["read the rows of 1 tables", "restored the rows of 1 of 1 tables"]


def test_rows_go_by_once_and_the_rest_is_passed_over(plain: bytes) -> None:
    counts = [piece.count for piece in DumpText([plain]) if isinstance(piece, Rows)]
    assert counts == [0], "nobody asked for them yet"
    assert seen(plain).rows == 2
