"""The same work as a careful person would do it by hand with PostgreSQL's own programs: scripts, and their cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runbooks.clients import postgres
from runbooks.model.dsn import Dsn
from runbooks.sandbox import osuser
from runbooks.sandbox.osuser import Account
from runbooks.sandbox.processes import free_port
from runbooks.sandbox.seed import seed

PASSWORD = "by-hand"

INIT = """
initdb -D data -U admin -A scram-sha-256 --pwfile=password --no-locale -E UTF8 -N >/dev/null
pg_ctl -D data -w -l log -o "-p $PORT -F -k ''" start >/dev/null
createdb -h 127.0.0.1 -p $PORT -U admin bloom
"""

UP = f"{INIT}psql -h 127.0.0.1 -p $PORT -U admin bloom -Atc 'select 1'\npg_ctl -D data -m fast -w stop >/dev/null\n"

BASE = "pg_basebackup -D base -h 127.0.0.1 -p $PORT -U admin -X none -c fast --no-sync --no-manifest"

RECOVERY = """
touch $NEW/recovery.signal
cat >>$NEW/postgresql.auto.conf <<END
restore_command = 'cp $PWD/history/%f %p'
recovery_target_time = '$MOMENT'
recovery_target_action = promote
recovery_target_timeline = current
hot_standby = off
END
"""

UNTIL_WRITABLE = "until psql -h 127.0.0.1 -p %s -U admin bloom -c 'select 1' >/dev/null 2>&1; do sleep 0.05; done"

BRANCH = f"""
NEW=branch
cp -a --reflink=auto base $NEW
{RECOVERY.strip()}
pg_ctl -D $NEW -w -t 600 -l log -o "-p $BRANCH_PORT -F -k ''" start >/dev/null
{UNTIL_WRITABLE % "$BRANCH_PORT"}
psql -h 127.0.0.1 -p $BRANCH_PORT -U admin bloom -Atc 'select count(*) from professionals'
"""

RESTORE = f"""
NEW=data
pg_ctl -D data -m fast -w stop >/dev/null
mv data old
cp -a --reflink=auto base $NEW
{RECOVERY.strip()}
pg_ctl -D data -w -t 600 -l log -o "-p $PORT -F -k ''" start >/dev/null
{UNTIL_WRITABLE % "$PORT"}
"""


@dataclass(frozen=True)
class Hand:
    """A folder to work in, and the account and programs to do it with."""

    folder: Path
    account: Account
    programs: Path
    port: int
    branch_port: int

    @property
    def dsn(self) -> Dsn:
        return Dsn.parse(f"postgresql://admin:{PASSWORD}@127.0.0.1:{self.port}/bloom?sslmode=disable")

    def environment(self, **more: str) -> Mapping[str, str]:
        return {
            "PATH": f"{self.programs}:/usr/bin:/bin",
            "PGPASSWORD": PASSWORD,
            "LC_ALL": "C",
            "TZ": "UTC",
            "PORT": str(self.port),
            "BRANCH_PORT": str(self.branch_port),
            "PWD": str(self.folder),
            **more,
        }

    def run(self, script: str, **more: str) -> str:
        return self.account.run("sh", "-ec", f"cd {self.folder}\n{script}", env=self.environment(**more))


@contextmanager
def hand(folder: Path) -> Iterator[Hand]:
    """An empty place; whatever server still runs in it is stopped at the end."""
    account = Account.choose()
    folder.mkdir(mode=0o700, parents=True)
    account.own(folder)
    account.write(folder / "password", PASSWORD + "\n")
    program = osuser.prepare(folder, account)
    made = Hand(folder, account, program.path.parent, free_port(), free_port())
    try:
        yield made
    finally:
        for data in ("data", "branch"):
            made.run(f"if [ -f {data}/postmaster.pid ]; then pg_ctl -D {data} -m fast -w stop; fi")


def production(hand: Hand, clients: int, say: Callable[[str], None]) -> None:
    """A seeded database with a base backup behind it."""
    hand.run(INIT)
    seed(hand.dsn, clients=clients, progress=say)
    with postgres.connect(hand.dsn, application_name="bloom-dr bench") as conn:
        conn.execute("select pg_create_physical_replication_slot('history', true)")
    hand.run(BASE)


def archive(hand: Hand) -> None:
    """The WAL since the base, in the folder `history`, as an archive_command would have put it there."""
    hand.run("cp -a data/pg_wal history")
