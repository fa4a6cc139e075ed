"""Watch the locks around a running dump: whom it waits for, and who waits for it."""

from __future__ import annotations

from collections.abc import Callable

from runbooks.clients.postgres import Connection
from runbooks.clients.postgres_faults import translated
from runbooks.model.errors import TableLocked

# Both directions in one question. pg_blocking_pids counts those ahead in the queue too.
_QUEUES = """
SELECT a.application_name = %(name)s AS ours, w.relation::regclass::text, a.pid, b.pid,
       coalesce(nullif(b.application_name, ''), 'a session without a name'), coalesce(b.usename, 'unknown')
FROM pg_locks AS w
JOIN pg_stat_activity AS a ON a.pid = w.pid
CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS p (pid)
JOIN pg_stat_activity AS b ON b.pid = p.pid
WHERE NOT w.granted AND w.locktype = 'relation'
  AND w.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (a.application_name = %(name)s OR b.application_name = %(name)s)
ORDER BY 1 DESC
"""


class Watch:
    """Looks through `conn` at the sessions whose application name is `name`."""

    def __init__(self, conn: Connection, name: str, progress: Callable[[str], None] | None) -> None:
        self._conn, self._name, self._progress = conn, name, progress
        self._told: set[str] = set()
        self._waited_for: str | None = None

    def look(self) -> None:
        """One look; `progress` hears of each queue once."""
        with translated("watch the locks of the dump", safe="the database was only read"):
            rows = self._conn.execute(_QUEUES, {"name": self._name}).fetchall()
        for ours, table, waiting, blocking, who, role in rows:
            if ours:
                self._waited_for = f"table {table} is locked by process {blocking} ({who}, role {role})"
                self._tell(f"the dump waits: {self._waited_for}")
            else:
                self._tell(f"process {waiting} waits until the dump lets go of table {table}, and others behind it")

    def _tell(self, what: str) -> None:
        if self._progress and what not in self._told:
            self._told.add(what)
            self._progress(what)

    def explain(self, error: TableLocked) -> TableLocked:
        """`error` with the table and its holder in front, if they were seen."""
        if self._waited_for is None:
            self.look()
        if self._waited_for is None:
            return error
        return TableLocked(f"{self._waited_for}; {error.happened}", safe=error.safe, next_step=error.next_step)
