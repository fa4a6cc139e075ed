"""Set columns of rows that are there to what they were: only of those that still are as the plan saw them."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from runbooks.clients.postgres import Connection
from runbooks.model.errors import ProofFailed
from runbooks.rows.amendments import fingerprint
from runbooks.rows.applied import AmendedTable
from runbooks.rows.compose import (
    equal,
    fields,
    numbered,
    points_at,
    row_text,
    same_key,
    same_numbers,
    same_value,
    scratch,
)
from runbooks.rows.found import Amendment
from runbooks.rows.listed import listed
from runbooks.rows.stage import copy
from runbooks.rows.transaction import ROLLED_BACK


@dataclass(frozen=True)
class Ready:
    """One amendment in production's session: `rows` (k1, ..., v1, ..., seen) and `before` (k1, ..., w1, ..., rest)."""

    amendment: Amendment
    number: int

    @property
    def rows(self) -> sql.Identifier:
        return sql.Identifier("pg_temp", f"bloom_amend_{self.number}")

    @property
    def before(self) -> sql.Identifier:
        """The rows that are changed: their key, what they held (w), and a digest of all that is not touched."""
        return sql.Identifier("pg_temp", f"bloom_before_{self.number}")

    @property
    def k(self) -> tuple[str, ...]:
        return numbered(len(self.amendment.target.key.columns))

    @property
    def v(self) -> tuple[str, ...]:
        return numbered(len(self.amendment.columns), "v")

    @property
    def w(self) -> tuple[str, ...]:
        return numbered(len(self.amendment.written), "w")

    @property
    def rest(self) -> tuple[str, ...]:
        """The columns that are neither set nor made by the server."""
        target, columns = self.amendment.target, self.amendment.columns
        return tuple(each.name for each in target.columns if each.name not in columns and each.generated is None)


def stage(production: Connection, branch: Connection, ready: Ready) -> None:
    """Copy the planned values into a temporary table. ProofFailed unless the same arrived."""
    amendment = ready.amendment
    table = amendment.target.rows
    keys = fields("t", amendment.target.key.columns, renamed=ready.k)
    for name, columns in (
        (ready.rows, sql.SQL("{}, ''::text AS seen").format(fields("t", amendment.columns, renamed=ready.v))),
        (ready.before, sql.SQL("{}, ''::text AS rest").format(fields("t", amendment.written, renamed=ready.w))),
    ):
        production.execute(
            sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {}, {} FROM {} AS t WHERE false").format(
                name, keys, columns, table
            )
        )
    names = (*ready.k, *ready.v, "seen")
    copy(
        branch,
        sql.SQL("COPY (SELECT {} FROM {} AS a) TO STDOUT").format(fields("a", names), scratch(amendment.rows_table)),
        production,
        sql.SQL("COPY {} ({}) FROM STDIN").format(ready.rows, fields(None, names)),
        lambda rows, octets: None,
    )
    production.execute(sql.SQL("ANALYZE {}").format(ready.rows))
    if fingerprint(production, ready.rows, names) != amendment.checksum:
        raise ProofFailed(
            f"of {amendment.count} values to be set in {amendment.name}, not the same arrived that the branch sent",
            safe=ROLLED_BACK,
            next_step="run the same command again; if it fails again, report it with this message",
        )


def hold(conn: Connection, ready: Ready) -> None:
    """Lock the rows that still are as planned and may be set, and keep what they hold."""
    amendment = ready.amendment
    table, key = amendment.target.rows, amendment.target.key
    conn.execute(
        sql.SQL(
            "INSERT INTO {before} SELECT {k}, {w}, md5({rest}) FROM {table} AS t JOIN {rows} AS s ON {same}"
            " WHERE md5({guarded}) = s.seen AND {parents} AND {children} AND {values} FOR UPDATE OF t"
        ).format(
            before=ready.before,
            k=fields("t", key.columns),
            w=fields("t", amendment.written),
            rest=_rest(ready),
            table=table,
            rows=ready.rows,
            same=same_key("s", key, "t"),
            guarded=row_text("t", amendment.guarded),
            parents=_parents_there(ready),
            children=_not_pointed_at(ready),
            values=_values_free(ready),
        )
    )


def write(conn: Connection, ready: Ready) -> None:
    """Set the rows that are held."""
    amendment = ready.amendment
    table, key = amendment.target.rows, amendment.target.key
    places = dict(zip(amendment.columns, ready.v, strict=True))
    sets = sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Identifier("s", places[name])) for name in amendment.written
    )
    conn.execute(
        sql.SQL("UPDATE {} AS t SET {} FROM {} AS s JOIN {} AS b ON {} WHERE {}").format(
            table, sets, ready.rows, ready.before, same_numbers("b", key, "s"), same_key("b", key, "t")
        )
    )


def _parents_there(ready: Ready) -> sql.Composable:
    """Whatever the row will point at is there: else the foreign key would fail all rows for the sake of one."""
    amendment = ready.amendment
    values = {name: sql.Identifier("t", name) for name in (each.name for each in amendment.target.columns)}
    places = zip(amendment.columns, ready.v, strict=True)
    values |= {name: sql.Identifier("s", v) for name, v in places if name in amendment.written}
    conditions: list[sql.Composable] = [sql.SQL("true")]
    for tie in amendment.target.parents:
        if set(tie.child_columns) & set(amendment.written):
            unset = [sql.SQL("{} IS NOT DISTINCT FROM NULL").format(values[name]) for name in tie.child_columns]
            points = [
                sql.SQL("{} {} {}").format(sql.Identifier("p", parent), operator.sql, values[name])
                for parent, operator, name in zip(tie.parent_columns, tie.equals, tie.child_columns, strict=True)
            ]
            there = sql.SQL("EXISTS (SELECT FROM {} AS p WHERE {})").format(
                tie.parent_rows, sql.SQL(" AND ").join(points)
            )
            conditions.append(sql.SQL("({})").format(sql.SQL(" OR ").join([*unset, there])))
    return sql.SQL(" AND ").join(conditions)


def _not_pointed_at(ready: Ready) -> sql.Composable:
    """Nothing points at a value that the row would give up (a key's text may change, not what it equals)."""
    amendment = ready.amendment
    places = dict(zip(amendment.columns, ready.v, strict=True))
    conditions: list[sql.Composable] = [sql.SQL("true")]
    for tie in amendment.target.children:
        given_up = set(tie.parent_columns) & set(amendment.written) - set(amendment.target.key.columns)
        if given_up:
            kept = sql.SQL(" AND ").join(
                sql.SQL("t.{} IS NOT DISTINCT FROM s.{}").format(sql.Identifier(name), sql.Identifier(places[name]))
                for name in sorted(given_up)
            )
            conditions.append(
                sql.SQL("({} OR NOT EXISTS (SELECT FROM {} AS c WHERE {}))").format(
                    kept, tie.child_rows, points_at("c", tie, "t")
                )
            )
    return sql.SQL(" AND ").join(conditions)


def _values_free(ready: Ready) -> sql.Composable:
    """No other row has one of its unique values: else the index would fail all rows for the sake of one."""
    amendment = ready.amendment
    places = dict(zip(amendment.columns, ready.v, strict=True))
    columns = sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(
            sql.Identifier("s", places[column.name]) if column.name in places else sql.Identifier("t", column.name),
            sql.Identifier(column.name),
        )
        for column in amendment.target.columns
    )
    conditions: list[sql.Composable] = [sql.SQL("true")]
    for key in amendment.target.keys:
        if key == amendment.target.key or not key.equals:
            continue
        u = numbered(len(key.expressions), "bloom_u")
        values = sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(sql.SQL(text), sql.Identifier(name))
            for text, name in zip(key.expressions, u, strict=True)
        )
        k = numbered(len(ready.k), "bloom_k")
        conditions.append(
            sql.SQL(
                "NOT EXISTS (SELECT FROM (SELECT {values} FROM (SELECT {columns}) AS x WHERE {where}) AS mine"
                " JOIN (SELECT {key}, {values} FROM {table} AS x WHERE {where}) AS theirs ON {same}"
                " WHERE NOT ({itself}))"
            ).format(
                values=values,
                columns=columns,
                where=sql.SQL(key.predicate) if key.predicate else sql.SQL("true"),
                key=fields("x", amendment.target.key.columns, renamed=k),
                table=amendment.target.rows,
                same=same_value("theirs", key, "mine", u),
                itself=equal("theirs", k, amendment.target.key.equals, "s", ready.k),
            )
        )
    return sql.SQL(" AND ").join(conditions)


def result(conn: Connection, ready: Ready) -> AmendedTable:
    """What was set, and what was left because it is not as planned any more.

    ProofFailed unless each row that was set reads as it did, in the columns set, and as before in all others.
    """
    amendment = ready.amendment
    key = amendment.target.key
    joined = sql.SQL("{} AS b JOIN {} AS s ON {} JOIN {} AS t ON {}").format(
        ready.before, ready.rows, same_numbers("s", key, "b"), amendment.target.rows, same_key("s", key, "t")
    )
    row = conn.execute(
        sql.SQL(
            "SELECT (SELECT count(*) FROM {}), count(*) FILTER (WHERE {} = {} AND md5({}) = b.rest"
            " AND t.xmin = pg_current_xact_id()::xid) FROM {}"
        ).format(ready.before, row_text("s", ready.v), row_text("t", amendment.columns), _rest(ready), joined)
    ).fetchone()
    assert row is not None
    planned, proved = row
    if planned != proved:
        raise ProofFailed(
            f"of {planned} rows of {amendment.name} that were set back, {proved} read as they should",
            safe=ROLLED_BACK,
            next_step="a trigger, a generated column or an identity is at work there; have the trigger switched off by "
            "its owner, or leave these rows out, then run the same command again",
        )
    others = sql.SQL("{} AS s WHERE NOT EXISTS (SELECT FROM {} AS b WHERE {})").format(
        ready.rows, ready.before, same_numbers("b", key, "s")
    )
    return AmendedTable(
        name=amendment.name,
        foreign_key=amendment.foreign_key,
        planned=amendment.count,
        done=planned,
        changed=listed(conn, others, "s", ready.k),
    )


def _rest(ready: Ready) -> sql.Composable:
    return row_text("t", ready.rest) if ready.rest else sql.SQL("''")
