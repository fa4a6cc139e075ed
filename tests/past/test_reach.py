"""Which tables a recovery has to see: told from the dump's table of contents, in the words that pg_dump writes."""

from __future__ import annotations

import itertools

import pytest

from runbooks.clients.dump_toc import Entry, Toc
from runbooks.model.errors import Refused
from runbooks.past.reach import Name, reach


class Dump:
    """A table of contents, made of statements."""

    def __init__(self, *tables: str) -> None:
        self._numbers = itertools.count(1)
        self.ids: dict[str, int] = {}
        self.entries: list[Entry] = []
        for table in tables:
            self.ids[table] = self._add(table, "TABLE", "")
            self._add(table, "TABLE DATA", "", table, file=f"{table}.dat")

    def tie(self, child: str, parent: str, action: str = "", name: str = "tie") -> None:
        self._add(
            f"{child} {name}", "FK CONSTRAINT",
            f"ALTER TABLE ONLY {spell(child)}\n    ADD CONSTRAINT {name} FOREIGN KEY (p) REFERENCES {spell(parent)}(id)"
            f"{action and ' ' + action};\n\n\n",
            child, parent,
        )  # fmt: skip

    def attach(self, whole: str, part: str) -> None:
        text = f"ALTER TABLE ONLY {spell(whole)} ATTACH PARTITION {spell(part)} FOR VALUES FROM (0) TO (5);\n\n\n"
        self._add(part, "TABLE ATTACH", text, whole, part)

    def _add(self, name: str, kind: str, definition: str, *needs: str, file: str | None = None) -> int:
        number = next(self._numbers)
        wanted = frozenset(self.ids[need] for need in needs)
        self.entries.append(Entry(number, 0, 0, name, kind, "public", "owner", definition, file, wanted))
        return number

    def odd(self, kind: str, definition: str) -> None:
        self._add("odd", kind, definition)

    def made_of(self, table: str, *needs: str) -> None:
        """A column of `table` has the row type of the others."""
        number = next(place for place, entry in enumerate(self.entries) if entry.id == self.ids[table])
        old = self.entries[number]
        wanted = frozenset(self.ids[need] for need in needs)
        self.entries[number] = Entry(old.id, 0, 0, old.name, old.kind, old.schema, old.owner, "", None, wanted)

    def reached(self, *named: str) -> set[str]:
        toc = Toc((1, 16), "neondb", "17.10", "17.10", ".zst", tuple(self.entries))
        return {name[1] for name in reach(toc, [public(name) for name in named]).tables}

    def ties(self, *named: str) -> set[tuple[str, str]]:
        toc = Toc((1, 16), "neondb", "17.10", "17.10", ".zst", tuple(self.entries))
        found = reach(toc, [public(name) for name in named]).ties
        return {(tie.child[1], tie.parent[1]) for tie in found}


def public(table: str) -> Name:
    return "public", table


def spell(table: str) -> str:
    return (
        f"public.{table}" if table.isidentifier() and table.islower() else 'public."' + table.replace('"', '""') + '"'
    )


@pytest.mark.parametrize("action", ["ON DELETE CASCADE", "ON DELETE SET NULL", "ON DELETE SET DEFAULT"])
def test_what_a_delete_reaches_is_followed_at_any_depth(action: str) -> None:
    dump = Dump("a", "b", "c", "d", "apart")
    dump.tie("b", "a", action)
    dump.tie("c", "b", f"ON UPDATE CASCADE {action} DEFERRABLE INITIALLY DEFERRED")
    dump.tie("d", "c", action)
    assert dump.reached("a") == {"a", "b", "c", "d"}
    assert dump.reached("c") == {"c", "d"}


def test_what_only_points_there_is_needed_but_not_followed_and_what_is_pointed_at_is_not() -> None:
    dump = Dump("parent", "a", "invoice", "of_invoice")
    dump.tie("a", "parent", "ON DELETE CASCADE")
    dump.tie("invoice", "a", "ON UPDATE CASCADE ON DELETE RESTRICT")
    dump.tie("of_invoice", "invoice", "ON DELETE CASCADE")
    assert dump.reached("a") == {"a", "invoice"}
    assert dump.ties("a") == {("invoice", "a")}


def test_circles_and_tables_that_point_at_themselves_come_to_an_end() -> None:
    dump = Dump("a", "b")
    dump.tie("a", "a", "ON DELETE CASCADE")
    dump.tie("b", "a", "ON DELETE CASCADE")
    dump.tie("a", "b", "ON DELETE SET NULL")
    assert dump.reached("b") == {"a", "b"}


def test_partitions_of_any_level_come_with_their_table() -> None:
    dump = Dump("a", "whole", "part", "leaf")
    dump.tie("whole", "a", "ON DELETE CASCADE")
    dump.attach("whole", "part")
    dump.attach("part", "leaf")
    assert dump.reached("a") == {"a", "whole", "part", "leaf"}


def test_a_table_that_comes_along_as_the_type_of_a_column_comes_with_its_rows() -> None:
    dump = Dump("a", "typed")
    dump.made_of("a", "typed")
    assert dump.reached("a") == {"a", "typed"}


def test_names_are_read_as_pg_dump_quotes_them() -> None:
    strange = 'Say "x" REFERENCES y(z); ON DELETE'
    dump = Dump("a", strange, "y")
    dump.tie(strange, "a", "ON DELETE CASCADE", name='"of (a) FOREIGN KEY"')
    dump.tie("y", strange, "ON DELETE CASCADE")
    assert dump.reached("a") == {"a", strange, "y"}


@pytest.mark.parametrize("kind", ["FK CONSTRAINT", "TABLE ATTACH"])
def test_what_is_not_understood_is_refused_and_never_skipped(kind: str) -> None:
    dump = Dump("a")
    dump.odd(kind, "ALTER TABLE public.a DO SOMETHING NEW;")
    with pytest.raises(Refused, match="not understood"):
        dump.reached("a")
