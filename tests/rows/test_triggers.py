"""C21: the application's triggers do not fire on rows brought back, or the run stops; and nothing else is changed."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from runbooks.clients.postgres import connect
from runbooks.model.errors import CouldNotVerify, ProofFailed, Refused, TableLocked, UsageFault
from runbooks.rows.apply import apply
from runbooks.rows.found import Request
from runbooks.rows.plan import Plan, make_plan
from runbooks.rows.survey import survey
from tests.rows.cluster import Pair, Pairs, recover, texts, value

OUTBOX = """
CREATE TABLE doc (id int PRIMARY KEY, body text, updated_at timestamptz);
CREATE TABLE outbox (id serial PRIMARY KEY, what text);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.updated_at := now(); RETURN NEW; END';
CREATE FUNCTION send() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO public.outbox (what) VALUES (NEW.id); RETURN NULL; END';
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
INSERT INTO doc SELECT g, 'text', '2024-01-01Z' FROM generate_series(1, 9) AS g;
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON doc FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER send AFTER INSERT ON doc FOR EACH ROW EXECUTE FUNCTION send();
CREATE TRIGGER always BEFORE INSERT ON doc FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE doc ENABLE ALWAYS TRIGGER always;
CREATE TRIGGER replica BEFORE INSERT ON doc FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE doc ENABLE REPLICA TRIGGER replica;
CREATE TRIGGER off BEFORE INSERT ON doc FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE doc DISABLE TRIGGER off;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON doc DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION send();
GRANT ALL ON ALL TABLES IN SCHEMA public TO guest; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO guest;
"""
GRANTS = "GRANT ALL ON ALL TABLES IN SCHEMA public TO guest; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO guest;"
STATES = "SELECT string_agg(tgname || tgenabled::text, ' ' ORDER BY tgname) FROM pg_trigger WHERE NOT tgisinternal"


def plan_for(pair: Pair, table: str, accept: tuple[str, ...] = ()) -> Plan:
    return make_plan(survey(pair.production, pair.branch, Request.parse([table])), accept_triggers=accept)


def carry_out(pair: Pair, plan: Plan, folder: Path) -> None:
    apply(pair.production, pair.branch, plan, run_id="r", undo_path=folder / "undo", before_commit=lambda _: None)


def test_c21_the_owner_brings_rows_back_without_a_trigger_firing_and_all_are_as_before(
    pairs: Pairs, tmp_path: Path
) -> None:
    pair = pairs(OUTBOX)
    pair.app.execute("DELETE FROM doc WHERE id = 5; TRUNCATE outbox")
    before = value(pair.app, STATES)
    done = recover(pair, tmp_path, "doc")
    assert [trigger.name for trigger in done.plan.suppressed] == ["always", "late", "send", "touch"]
    assert value(pair.app, "SELECT updated_at = '2024-01-01Z' FROM doc WHERE id = 5") is True
    assert value(pair.app, "SELECT count(*) FROM outbox") == 0
    assert value(pair.app, STATES) == before == "alwaysA lateO offD replicaR sendO touchO"


def test_c21_a_role_that_may_not_switch_triggers_off_is_stopped_with_their_names(pairs: Pairs) -> None:
    pair = pairs(OUTBOX, role="guest", after="ALTER SCHEMA public OWNER TO guest")
    pair.app.execute("DELETE FROM doc WHERE id = 5")
    with connect(pair.dsn(1, "admin"), application_name="test") as branch:
        found = survey(pair.production, branch, Request.parse(["doc"]))
    with pytest.raises(Refused) as caught:
        make_plan(found)
    for said in ("public.doc.send (after insert, calls public.send())", "public.doc.touch", "public.doc.always"):
        assert said in caught.value.happened
    with pytest.raises(Refused, match=r"public\.doc\.send") as caught:
        make_plan(found, accept_triggers=["touch", "always", "public.doc.late"])
    assert "touch" not in caught.value.happened
    with pytest.raises(UsageFault, match="tuch"):
        make_plan(found, accept_triggers=["tuch"])


@pytest.mark.parametrize(
    ("trigger", "says"),
    [
        ("touch", r"column updated_at in 1 rows"),
        ("send", r"outbox: 1 inserted, 0 updated, 0 deleted instead of 0 inserted"),
        ("wipe", r"outbox: truncated"),
    ],
)
def test_c21_an_accepted_trigger_that_changes_anything_makes_the_run_roll_back(
    pairs: Pairs, tmp_path: Path, trigger: str, says: str
) -> None:
    pair = pairs(
        f"""
        CREATE TABLE doc (id int PRIMARY KEY, body text, updated_at timestamptz);
        CREATE TABLE outbox (id serial PRIMARY KEY, what text);
        INSERT INTO doc VALUES (1, 'text', '2024-01-01Z'); INSERT INTO outbox (what) VALUES ('x');
        CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.updated_at := now(); RETURN NEW; END';
        CREATE FUNCTION send() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO public.outbox (what) VALUES (NEW.id); RETURN NEW; END';
        CREATE FUNCTION wipe() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
            'BEGIN TRUNCATE public.outbox; RETURN NEW; END';
        CREATE TRIGGER t BEFORE INSERT ON doc FOR EACH ROW EXECUTE FUNCTION {trigger}();
        {GRANTS}
        """,
        role="guest",
    )
    pair.app.execute("DELETE FROM doc")
    with connect(pair.dsn(1, "admin"), application_name="test") as branch:
        found = survey(pair.production, branch, Request.parse(["doc"]))
        plan = make_plan(found, accept_triggers=["t"])
        with pytest.raises(ProofFailed, match=says):
            apply(pair.production, branch, plan, run_id="r", undo_path=tmp_path / "u", before_commit=lambda _: None)
    assert value(pair.app, "SELECT count(*) FROM doc") == 0
    assert value(pair.app, "SELECT count(*) FROM outbox") == 1


def test_c21_an_accepted_trigger_without_effect_goes_through(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(
        "CREATE TABLE doc (id int PRIMARY KEY); INSERT INTO doc VALUES (1);"
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NOTIFY hello; RETURN NEW; END';"
        "CREATE TRIGGER t BEFORE INSERT ON doc FOR EACH ROW EXECUTE FUNCTION f();" + GRANTS,
        role="guest",
    )
    pair.app.execute("DELETE FROM doc")
    with connect(pair.dsn(1, "admin"), application_name="test") as branch:
        plan = make_plan(survey(pair.production, branch, Request.parse(["doc"])), accept_triggers=["public.doc.t"])
        assert [trigger.name for trigger in plan.fired] == ["t"]
        apply(pair.production, branch, plan, run_id="r", undo_path=tmp_path / "u", before_commit=lambda _: None)
    assert value(pair.app, "SELECT count(*) FROM doc") == 1


def test_c21_a_row_that_an_accepted_trigger_suppresses_is_told(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(
        "CREATE TABLE doc (id int PRIMARY KEY); INSERT INTO doc VALUES (1);"
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER t BEFORE INSERT ON doc FOR EACH ROW EXECUTE FUNCTION f();" + GRANTS,
        role="guest",
    )
    pair.app.execute("DELETE FROM doc")
    with connect(pair.dsn(1, "admin"), application_name="test") as branch:
        plan = make_plan(survey(pair.production, branch, Request.parse(["doc"])), accept_triggers=["t"])
        done = apply(pair.production, branch, plan, run_id="r", undo_path=tmp_path / "u", before_commit=lambda _: None)
    (conflict,) = done.tables[0].conflicts
    assert (conflict.count, conflict.keys) == (1, ("(1)",))
    assert "trigger suppressed it" in conflict.why


def test_triggers_of_partitions_keep_each_its_own_state(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(
        """
        CREATE TABLE doc (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
        CREATE TABLE a PARTITION OF doc FOR VALUES FROM (0) TO (10);
        CREATE TABLE b PARTITION OF doc FOR VALUES FROM (10) TO (20);
        INSERT INTO doc SELECT g, g FROM generate_series(1, 19) AS g;
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.n := 0; RETURN NEW; END';
        CREATE TRIGGER t BEFORE INSERT ON doc FOR EACH ROW EXECUTE FUNCTION f();
        CREATE TRIGGER own BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION f();
        ALTER TABLE ONLY b DISABLE TRIGGER t;
        ALTER TABLE ONLY a ENABLE ALWAYS TRIGGER t;
        """
    )
    states = """SELECT string_agg(tgrelid::regclass || tgname || tgenabled::text, ' ' ORDER BY tgrelid::regclass::text,
                tgname) FROM pg_trigger WHERE NOT tgisinternal"""
    before = value(pair.app, states)
    pair.app.execute("DELETE FROM doc WHERE id BETWEEN 5 AND 15")
    recover(pair, tmp_path, "doc")
    assert texts(pair.production, "public.doc") == texts(pair.branch, "public.doc")
    assert value(pair.app, states) == before


def test_an_event_trigger_that_writes_is_noticed_too(pairs: Pairs, tmp_path: Path) -> None:
    """Switching a trigger off is DDL, so a DDL trigger of the application would fire."""
    pair = pairs(
        OUTBOX,
        after="""
        CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO public.outbox (what) VALUES (tg_tag); END';
        CREATE EVENT TRIGGER note ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION note();
        """,
    )
    pair.app.execute("DELETE FROM doc WHERE id = 5")
    with pytest.raises(ProofFailed, match="outbox"):
        recover(pair, tmp_path, "doc")
    assert value(pair.app, "SELECT count(*) FROM outbox") == 0


def test_without_the_servers_counters_nothing_is_written(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(
        "CREATE TABLE doc (id int PRIMARY KEY); INSERT INTO doc VALUES (1)",
        after="DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET track_counts = off', current_database()); END $$",
    )
    pair.app.execute("DELETE FROM doc")
    with pytest.raises(CouldNotVerify, match="track_counts is off"):
        recover(pair, tmp_path, "doc")
    assert value(pair.app, "SELECT count(*) FROM doc") == 0


def test_c10_a_table_that_others_hold_ends_in_an_error_naming_table_and_process(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs(OUTBOX)
    pair.app.execute("DELETE FROM doc WHERE id = 5")
    plan = plan_for(pair, "doc")
    with psycopg.connect(**pair.dsn(0).keywords(), application_name="migration 17") as other:
        other.execute("LOCK TABLE doc IN ROW EXCLUSIVE MODE")
        with pytest.raises(TableLocked) as caught:
            carry_out(pair, plan, tmp_path)
        assert "public.doc" in caught.value.happened
        assert f"migration 17 (process {other.info.backend_pid}, role shop) since " in caught.value.happened
    carry_out(pair, plan, tmp_path)
    assert value(pair.app, STATES) == "alwaysA lateO offD replicaR sendO touchO"


def test_c10_a_session_that_is_not_in_the_way_is_not_blamed(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("CREATE TABLE doc (id int PRIMARY KEY); INSERT INTO doc VALUES (1)")
    pair.app.execute("DELETE FROM doc")
    plan = plan_for(pair, "doc")
    with (
        psycopg.connect(**pair.dsn(0).keywords(), application_name="innocent") as innocent,
        psycopg.connect(**pair.dsn(0).keywords(), application_name="index") as other,
    ):
        innocent.execute("LOCK TABLE doc IN ROW SHARE MODE")
        other.execute("LOCK TABLE doc IN SHARE MODE")
        with pytest.raises(TableLocked, match="in the way: index") as caught:
            carry_out(pair, plan, tmp_path)
    assert "innocent" not in caught.value.happened


def test_c10_a_row_that_others_hold_ends_in_an_error_naming_table_and_process(pairs: Pairs, tmp_path: Path) -> None:
    pair = pairs("CREATE TABLE doc (id int PRIMARY KEY); INSERT INTO doc VALUES (1)")
    pair.app.execute("DELETE FROM doc")
    plan = plan_for(pair, "doc")
    with psycopg.connect(**pair.dsn(0).keywords(), application_name="web") as other:
        other.execute("INSERT INTO doc VALUES (1)")
        with pytest.raises(TableLocked, match=f"public.doc.*web .process {other.info.backend_pid}"):
            carry_out(pair, plan, tmp_path)


def test_rights_that_are_missing_are_refused_before_any_write(pairs: Pairs) -> None:
    pair = pairs(OUTBOX + "REVOKE INSERT ON doc FROM guest", role="guest")
    with connect(pair.dsn(1, "admin"), application_name="test") as branch, pytest.raises(Refused, match="not insert"):
        survey(pair.production, branch, Request.parse(["doc"]))
