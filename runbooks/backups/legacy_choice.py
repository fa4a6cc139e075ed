"""Which statements of an old backup a target is given, and what is said of the others (C02, C04)."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from runbooks.backups.legacy import SUBJECT, beginning
from runbooks.backups.legacy_text import IDENTIFIER
from runbooks.clients.dump_toc import Entry, parts
from runbooks.clients.postgres import Connection
from runbooks.clients.postgres_faults import translated
from runbooks.clients.restore_complaints import Complaint, Kind
from runbooks.clients.restore_outlook import LeftOut, Target, unwanted

_OWNER = re.compile(rf"ALTER [A-Z ]+ .* OWNER TO {IDENTIFIER};", re.DOTALL)
_ON_PURPOSE = (
    (_OWNER, "owners"),
    (re.compile(r"ALTER DEFAULT PRIVILEGES "), "default privileges"),
    (re.compile(r"(GRANT|REVOKE) "), "privileges"),
    (re.compile(r"(SET|RESET) SESSION AUTHORIZATION"), "owners"),
)
_SETTING = re.compile(r"SET (transaction_timeout|idle_session_timeout) = 0;")
_SINCE = {"transaction_timeout": 17, "idle_session_timeout": 14}


class Choice:
    """Which statements are run, and what is said of the others."""

    def __init__(self, target: Target, major: int, has_public: bool, *, owners: bool) -> None:
        self._target, self._major, self._has_public, self._owners = target, major, has_public, owners
        self._gone: set[tuple[str, str]] = set()
        self.left_out: list[LeftOut] = []
        self.skipped: Counter[str] = Counter()
        self.grants: list[str] = []
        self.dropped: list[Complaint] = []

    @classmethod
    def of(cls, conn: Connection, *, owners: bool) -> Choice:
        with translated("look at the target", safe="the target was only read"):
            row: Any = conn.execute("SELECT to_regnamespace('public') IS NOT NULL").fetchone()
        return cls(Target.of(conn), conn.info.server_version // 10000, bool(row[0]), owners=owners)

    def wants(self, text: str) -> bool:
        return not (self._lacking(text) or self._needless(text) or (not self._owners and self._on_purpose(text)))

    def _on_purpose(self, text: str) -> bool:
        for pattern, what in _ON_PURPOSE:
            if pattern.match(text) if pattern is not _OWNER else pattern.fullmatch(text):
                self.skipped[what] += 1
                if what.endswith("privileges"):
                    self.grants.append(text)
                return True
        return False

    def _needless(self, text: str) -> bool:
        if text.startswith("COMMENT ON EXTENSION "):  # CREATE EXTENSION writes it, and only its owner may
            self.skipped["comments of extensions"] += 1
            return True
        if text == "CREATE SCHEMA public;" and self._has_public:
            self.dropped.append(Complaint(Kind.HARMLESS, text, "every new database has it"))
            return True
        if re.fullmatch(r"DROP SCHEMA (IF EXISTS )?public;", text):
            self._has_public = False  # pg_dump --clean: it is made again
        setting = _SETTING.fullmatch(text)
        if setting and self._major < _SINCE[setting[1]]:
            reason = "a newer client lifts a limit for its own session that this older server does not have (C02)"
            self.dropped.append(Complaint(Kind.HARMLESS, text, reason))
            return True
        return False

    def _lacking(self, text: str) -> bool:
        """Whether it is about something that the target cannot take."""
        found = SUBJECT.match(text)
        if not found:
            return False
        key = (found["kind"], ".".join(parts(found["name"])))
        if found["verb"] == "CREATE" and (reason := unwanted(_entry(*key, beginning(text)), self._target)):
            self._gone.add(key)
            self.left_out.append(LeftOut(" ".join(key), reason))
        return key in self._gone


def _entry(kind: str, name: str, definition: str) -> Entry:
    return Entry(0, 0, 0, name, kind, None, "", definition, None, frozenset())
