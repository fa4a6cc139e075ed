"""Where a backup is restored to: a database that the policy names, or one on the environment's own Neon branch.

Named, never given as a URL: what stands in a command line is seen by every user of the machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from psycopg import sql

from runbooks.clients import inventory_catalog
from runbooks.clients.neon_types import Branch
from runbooks.clients.postgres import Connection, Expected, Identity, identity, prove, prove_apart
from runbooks.clients.postgres_faults import translated
from runbooks.clients.restore_outlook import Target, contents
from runbooks.clients.world import World
from runbooks.model.dsn import Dsn, same_database
from runbooks.model.errors import (
    DatabaseUnreachable,
    LoginRefused,
    NeonFault,
    NotFound,
    PolicyFault,
    UsageFault,
    WrongTarget,
)
from runbooks.model.inventory import Locale
from runbooks.model.nearest import did_you_mean
from runbooks.model.policy import Policy
from runbooks.model.record import Record

NEON = "neon/"
_DATABASE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}", re.ASCII)
_KEPT = ("postgres", "template0", "template1")
SAFE = "nothing was changed in any database"
Tell = Callable[[str], None]


class Destination(Record):
    """Where the rows go. Nothing secret: the login is asked for anew each time."""

    name: str
    """As typed: `rds`, `neon/restored`."""
    host: str
    database: str
    role: str
    project: str | None = None
    branch: str | None = None
    branch_name: str | None = None
    missing: bool = False
    """It is on Neon and not there yet: the run makes it."""

    @property
    def place(self) -> str:
        """The Neon branch, or the host: what consent has to name."""
        return self.branch or self.host

    def __str__(self) -> str:
        where = f"Neon branch {self.branch_name} ({self.branch})" if self.branch else f"host {self.host}"
        return f"database {self.database} on {where}"


class Found(Record):
    """What was found at the destination. Of a database that is not there yet: what its server says."""

    identity: Identity
    locale: Locale
    holds: tuple[str, ...]
    """What is in it besides extensions."""


def check_name(policy: Policy, name: str) -> None:
    """UsageFault, with the names there are, unless `name` is one of a target."""
    if name.startswith(NEON):
        database = name.removeprefix(NEON)
        if not _DATABASE.fullmatch(database) or database in _KEPT:
            raise _wrong(policy, f"{database!r} cannot be the name of a database to restore into")
    elif name not in policy.targets:
        looks_secret = "://" in name or "@" in name or "=" in name
        told = "what was given with --to" if looks_secret else repr(name)
        near = "" if looks_secret else did_you_mean(name, policy.targets)
        raise _wrong(policy, f"{told} is not the name of a target{near}")


def _wrong(policy: Policy, what: str) -> UsageFault:
    there = [*policy.targets, "neon/DATABASE (a database on the environment's Neon branch, made if it is not there)"]
    return UsageFault(
        what,
        safe="nothing was started",
        next_step=f"give --to one of: {', '.join(there)}; others are named in [targets.NAME] of the policy",
    )


def destination(world: World, name: str) -> Destination:
    """Only reads. UsageFault, PolicyFault, WrongTarget for the environment's own database; what Neon raises."""
    check_name(world.policy, name)
    if not name.startswith(NEON):
        dsn = _of_policy(world, name)
        return Destination(name=name, host=dsn.host, database=dsn.database, role=dsn.user)
    database, environment = name.removeprefix(NEON), world.environment
    if database == environment.database:
        raise own_database(f"{name} is the environment's own database")
    branch = world.target_branch()
    return Destination(
        name=name,
        host=world.neon.connection(branch=branch, database=environment.database, role=environment.role).host,
        database=database,
        role=environment.role,
        project=branch.project_id,
        branch=branch.id,
        branch_name=branch.name,
        missing=not exists(world, branch, database),
    )


def exists(world: World, branch: Branch, database: str) -> bool:
    return any(each.name == database for each in world.neon.databases(branch.id))


def own_database(what: str) -> WrongTarget:
    return WrongTarget(
        f"{what}, and a backup is never restored over its source",
        safe=SAFE,
        next_step="restore into a new database (--to neon/NAME makes one), and switch to it when it is proved",
    )


def _of_policy(world: World, name: str) -> Dsn:
    """UsageFault and PolicyFault never quote the connection string."""
    try:
        return Dsn.parse(world.policy.targets[name].url(world.environ)).direct()
    except UsageFault as fault:
        variable = world.policy.targets[name].url_env
        raise UsageFault(
            f"the environment variable {variable}: {fault.happened}", safe=fault.safe, next_step=fault.next_step
        ) from None


def login(world: World, there: Destination, *, beside: bool = False) -> Dsn:
    """How it is reached, with the password; `beside` (on Neon): the environment's own database on that branch."""
    if there.branch is None:
        return _of_policy(world, there.name)
    database = world.environment.database if beside else there.database
    return world.neon.connection(branch=world.neon.branch(there.branch), database=database, role=there.role)


def open_session(world: World, dsn: Dsn, name: str, tell: Tell, **settings: str) -> Connection:
    wait = world.policy.recovery.connect_wait
    return world.connect(dsn, application_name=f"bloom-dr {name}", wait=wait, progress=tell, **settings)


@contextmanager
def session(
    world: World, there: Destination, expected: Identity | None, name: str, tell: Tell, *, beside: bool = False
) -> Iterator[Connection]:
    """A session there, proved to be in the surveyed place. WrongTarget, and the errors of connecting."""
    with closing(open_session(world, login(world, there, beside=beside), name, tell)) as conn:
        if beside:
            prove(conn, Expected(project_id=there.project, branch_id=there.branch))
        elif expected is not None:
            prove(conn, expected)
        yield conn


def examine(world: World, there: Destination, name: str, tell: Tell) -> tuple[Found, Target, str | None]:
    """What is there, what it allows, and why it could not be compared with the source (None: it is another one).

    Only reads. WrongTarget if it is the environment's own database under another spelling.
    """
    with session(world, there, None, name, tell, beside=there.missing) as conn:
        doubt = None if there.branch else _apart(world, there, conn, name, tell)
        if there.branch:
            prove(conn, Expected(project_id=there.project, branch_id=there.branch))
        here = identity(conn)
        with translated("look at the target", safe=SAFE):
            locale = inventory_catalog.locale(conn)
        found = Found(
            identity=here.model_copy(update={"database": there.database}),
            locale=locale,
            holds=() if there.missing else contents(conn),
        )
        return found, Target.of(conn), doubt


def _apart(world: World, there: Destination, conn: Connection, name: str, tell: Tell) -> str | None:
    """WrongTarget if `conn` is in the environment's own database. The servers are the witnesses, not the spelling.

    When Neon is lost its database cannot be asked, and that must not stop a restore to elsewhere.
    """
    environment = world.environment
    try:
        own = world.neon.connection(branch=world.target_branch(), database=environment.database, role=environment.role)
        if same_database(own, login(world, there)):
            raise own_database(f"target {there.name} is the environment's own database")
        with closing(open_session(world, own, f"{name} source", tell)) as source:
            try:
                prove_apart(source, conn)
            except WrongTarget as same:
                raise own_database(
                    f"target {there.name} is the environment's own database, spelled otherwise"
                ) from same
    except (NeonFault, NotFound, DatabaseUnreachable, LoginRefused, PolicyFault) as error:
        return error.happened
    return None


# --- a database that this run made ----------------------------------------------------------------------------------


def oid_of(conn: Connection) -> int:
    """Changes when a database is dropped and made again."""
    with translated("look at the target", safe=SAFE):
        row: Any = conn.execute("SELECT oid::bigint FROM pg_database WHERE datname = current_database()").fetchone()
    return int(row[0])


def label(conn: Connection, text: str) -> None:
    """Say in the database's own comment what it is, for whoever finds it later."""
    database = conn.info.dbname
    with translated(f"label database {database}", safe="its content was not touched"):
        conn.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(database), sql.Literal(text)))


def labelled(conn: Connection) -> str | None:
    with translated("look at the target", safe=SAFE):
        row: Any = conn.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
        ).fetchone()
    return None if row[0] is None else str(row[0])


def drop(beside: Connection, database: str) -> None:
    """Drop it, unless somebody else has a session there. What a killed process of ours still runs there is ended."""
    with translated(
        f"drop the half-restored database {database}",
        safe="it was not dropped",
        next_step="end the sessions that use it, then run the same command again",
    ):
        beside.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND usename = current_user AND application_name = 'bloom-dr restore'",
            (database,),
        )
        beside.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(database)))
