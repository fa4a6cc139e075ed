"""Our side of the benchmarks, one whole process each: `python -m bench.ours WHAT`, where WHAT is one of
up FOLDER, branch MOMENT, missing, changed, recover.

Where and with what key comes by the environment: BENCH_API, BENCH_KEY and BENCH_PROJECT, or PRODUCTION and BRANCH.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from psycopg import sql

from runbooks.clients import postgres
from runbooks.clients.neon import Neon
from runbooks.model.dsn import Dsn
from runbooks.model.moment import Moment
from runbooks.model.secret import Secret


def up(folder: str) -> None:
    """From nothing to a first query in a project that can be branched, and down again."""
    from runbooks.sandbox.stack import Stack

    with Stack.start(Path(folder)) as stack:
        print(_first_query(Dsn.parse(stack.uri().reveal()), "select 1"))


def branch(moment: str) -> None:
    """From the request to the first query on the branch."""
    neon = Neon(
        api=os.environ["BENCH_API"], key=Secret(os.environ["BENCH_KEY"]), project_id=os.environ["BENCH_PROJECT"]
    )
    now = datetime.now(UTC)
    made = neon.branch_at(
        parent=neon.default_branch(),
        moment=Moment.parse(moment, now=now),
        name=f"bench-{uuid4()}",
        expires_at=Moment.of(now + timedelta(hours=1)),
        annotation={},
    )
    dsn = neon.connection(branch=made.branch, database="neondb", role="neondb_owner")
    print(_first_query(dsn, "select count(*) from public.professionals"))


def missing() -> None:
    """The whole survey of a row recovery: the lost rows, conflicts, what hangs on them; then the keys it found."""
    from runbooks.rows.compose import scratch
    from runbooks.rows.found import Request
    from runbooks.rows.survey import survey

    with _connected("PRODUCTION") as production, _connected("BRANCH") as branch:
        (found,) = survey(production, branch, Request.parse(["public.visits"])).tables
        keys = sql.SQL("select k1 from {} where state = 'missing'").format(scratch(found.keys_table))
        for (key,) in branch.execute(keys):
            print(key)


def changed() -> None:
    """The survey of a row recovery that looks at every row's content: the keys of missing and of changed rows."""
    from runbooks.rows.compose import scratch
    from runbooks.rows.found import Request
    from runbooks.rows.survey import survey

    with _connected("PRODUCTION") as production, _connected("BRANCH") as branch:
        (found,) = survey(production, branch, Request.parse(["public.visits"], changed=True)).tables
        for state, key in branch.execute(sql.SQL("select state, k1 from {}").format(scratch(found.keys_table))):
            print(state, key)


def recover() -> None:
    """A whole row recovery in the sessions of the runbook: survey, plan, the transaction, and the proof after it."""
    from runbooks.rows.apply import apply
    from runbooks.rows.found import Request
    from runbooks.rows.plan import make_plan
    from runbooks.rows.proof import prove_recovery
    from runbooks.rows.survey import survey

    with _connected("PRODUCTION") as production, _connected("BRANCH") as branch:
        plan = make_plan(survey(production, branch, Request.parse(["public.visits"])))
    with TemporaryDirectory() as folder:
        with _connected("PRODUCTION") as production, _connected("BRANCH") as branch:
            applied = apply(
                production,
                branch,
                plan,
                run_id="bench",
                undo_path=Path(folder) / "undo.jsonl",
                before_commit=lambda ready: None,
            )
        with _connected("PRODUCTION") as production, _connected("BRANCH") as branch:
            proof = prove_recovery(production, branch, plan, applied)
    print(proof.verdict, proof.proved)


def _connected(variable: str) -> postgres.Connection:
    return postgres.connect(Dsn.parse(os.environ[variable]), application_name="bloom-dr bench")


def _first_query(dsn: Dsn, query: str) -> object:
    with postgres.connect(dsn, application_name="bloom-dr bench") as conn:
        row = conn.execute(query.encode()).fetchone()
    assert row
    return row[0]


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    known: dict[str, Callable[..., None]] = {
        "up": up,
        "branch": branch,
        "missing": missing,
        "changed": changed,
        "recover": recover,
    }
    known[what](*rest)
