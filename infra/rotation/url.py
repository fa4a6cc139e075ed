"""A connection URL of which only the login is ever replaced: host, database and options stay as somebody wrote them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from .fault import RotationFault

_PORT = 5432
_FORM = re.compile(
    r"(?P<scheme>postgres(?:ql)?://)(?P<user>[^:@/?]+)(?::(?P<password>[^@/?]*))?@(?P<rest>"
    r"(?P<host>[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?/(?P<database>[^/?]+)(?:\?(?P<query>.*))?)",
    re.DOTALL,
)


@dataclass(frozen=True, repr=False)
class Url:
    """`repr` and `str` hide the password; `text` does not."""

    scheme: str
    user: str
    password: str
    rest: str
    """From the host to the end, unchanged."""

    @classmethod
    def parse(cls, text: str) -> Url:
        """RotationFault, which quotes nothing of `text`, if it is no postgresql:// URL with one host."""
        found = _FORM.fullmatch(text)
        if found is None:
            raise RotationFault("what should be a connection URL is not postgresql://USER:PASSWORD@HOST/DATABASE")
        return cls(found["scheme"], unquote(found["user"]), unquote(found["password"] or ""), found["rest"])

    def text(self) -> str:
        """With the password: every character that could mean something in a URL is percent-encoded."""
        return f"{self.scheme}{quote(self.user, safe='')}:{quote(self.password, safe='')}@{self.rest}"

    def as_role(self, user: str, password: str) -> Url:
        return replace(self, user=user, password=password)

    @property
    def host(self) -> str:
        return self._part("host").lower()

    @property
    def port(self) -> int:
        return int(self._part("port") or _PORT)

    @property
    def database(self) -> str:
        return unquote(self._part("database"))

    @property
    def options(self) -> dict[str, str]:
        """As libpq reads them: a plus is a plus."""
        pairs = [pair.partition("=") for pair in self._part("query").split("&") if pair]
        return {unquote(name): unquote(value) for name, _, value in pairs}

    @property
    def place(self) -> tuple[str, int, str | None]:
        """Which server it is."""
        return self.host, self.port, self.options.get("hostaddr")

    def _part(self, name: str) -> str:
        found = _FORM.fullmatch(f"postgres://x@{self.rest}")
        assert found is not None  # it matched when it was parsed
        return found[name] or ""

    def __repr__(self) -> str:
        return f"Url({self.user}:***@{self.host})"
