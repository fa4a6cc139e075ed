"""Where a database is and how to log in: one parser, one spelling out, and no way to print the password."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from posixpath import normpath

from runbooks.model import conninfo
from runbooks.model.conninfo import refusal
from runbooks.model.errors import UsageFault
from runbooks.model.secret import MASK, Secret

__all__ = ["Dsn", "Secret", "same_database", "same_server"]

PORT = 5432
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_ENCRYPTED = frozenset(_SSL_MODES[3:])
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?", re.ASCII)
_LOOKS_NUMERIC = re.compile(r"(?:.*\.)?(?:\d+|0[xX][0-9A-Fa-f]*)\.?", re.ASCII)
_POOLED = re.compile(r"^([^.]+)-pooler(?=\.|$)", re.IGNORECASE)
_ENDPOINT_LABEL = re.compile(r"(ep-[^.]+)(?:\.|$)")
_ENDPOINT_OPTION = re.compile(r"(?:^|(?<= ))endpoint=([^ ]+)")


@dataclass(frozen=True, repr=False)
class Dsn:
    """One database on one server, as one role. Every instance holds the rules of `parse`, however it was made.

    `options` are the remaining libpq keywords, sorted; empty ones are left out.
    """

    host: str
    port: int
    user: str
    password: Secret | None
    database: str
    options: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        fixed = {"password": "-"} | self.keywords(with_options=False)
        known = conninfo.known([*fixed.items(), *self.options])  # refuses a second password among the options
        rest = sorted((name, value) for name, value in known.items() if name not in fixed)
        object.__setattr__(self, "options", tuple(rest))
        _check_address(self.host, self.option("hostaddr"))
        if not 1 <= self.port <= 65535:
            raise refusal("the port in the connection string is not between 1 and 65535")
        if not self.user:
            raise refusal("the connection string names no user")
        if not self.database:
            raise refusal("the connection string names no database")
        _check_encryption(self)

    @classmethod
    def parse(cls, text: str) -> Dsn:
        """From a `postgresql://` URL or libpq's `keyword=value` form. UsageFault, which never quotes `text`, if it is
        malformed, names several hosts, or allows an unencrypted connection to another machine.

        Defaults: port 5432; database = user; `sslmode=require` unless the address is this machine's own (psycopg's
        `prefer` would fall back to plain text in silence).
        """
        given = conninfo.read(text)
        host = given.pop("host", "") or given.get("hostaddr", "")
        user, password, port = given.pop("user", ""), given.pop("password", ""), given.pop("port", str(PORT))
        database = given.pop("dbname", user)
        if "," in port:
            raise _several_hosts()
        if not host:
            raise refusal("the connection string names no host")
        if not re.fullmatch(r"[0-9]{1,5}", port):
            raise refusal("the port in the connection string is not a number (or the password holds a / or ? as it is)")
        if "sslmode" not in given and not is_this_machine(given.get("hostaddr", host)):
            given["sslmode"] = "require"
        secret = Secret(password) if password else None
        return cls(host, int(port), user, secret, database, tuple(given.items()))

    def option(self, keyword: str) -> str | None:
        """The value of one of `options`."""
        return dict(self.options).get(keyword)

    @property
    def is_pooled(self) -> bool:
        """Whether this leads to Neon's pooler, where no session state is safe: see `direct`."""
        return self.direct() != self

    def direct(self) -> Dsn:
        """The same database without the pooler: `-pooler` at the end of the host's first label is removed."""
        if _is_socket(self.host):
            return self
        options = tuple(
            (name, re.sub(r"(?<![^ ])(endpoint=[^ ]+)-pooler(?![^ ])", r"\1", value) if name == "options" else value)
            for name, value in self.options
        )
        return replace(self, host=_POOLED.sub(r"\1", self.host), options=options)

    @property
    def endpoint_id(self) -> str | None:
        """Neon's endpoint: from the host (`ep-...`), or from `options=endpoint=...` of a client without SNI."""
        direct = self.direct()
        found = _ENDPOINT_LABEL.match(direct.host.lower()) or _ENDPOINT_OPTION.search(direct.option("options") or "")
        return found[1].lower() if found else None

    def keywords(self, *, with_options: bool = True) -> dict[str, str]:
        """For `psycopg.connect(**keywords)`. Contains the password."""
        login = {} if self.password is None else {"password": self.password.reveal()}
        place = {"host": self.host, "port": str(self.port), "user": self.user, "dbname": self.database}
        return place | login | (dict(self.options) if with_options else {})

    def reveal_url(self) -> str:
        """The `postgresql://` URL that `parse` reads back as an equal Dsn. Contains the password."""
        return conninfo.write(self.keywords())

    def with_database(self, name: str) -> Dsn:
        """The same server and role, another database."""
        return replace(self, database=name)

    def __str__(self) -> str:
        return conninfo.write(self.keywords(), mask=MASK)

    def __repr__(self) -> str:
        return f"Dsn({str(self)!r})"


def same_server(a: Dsn, b: Dsn) -> bool:
    """Whether both spell the same server. In doubt True: it guards against writing to the wrong one.

    False is no proof that they differ (a name server may know two names, a branch may have two endpoints): for that,
    connect and compare what the servers say of themselves.
    """
    if a.port != b.port:
        return False
    if a.endpoint_id and b.endpoint_id:  # all of Neon's endpoints share a few addresses
        return a.endpoint_id == b.endpoint_id
    one, other = _address(a), _address(b)
    return one == other if one and other else _name(a) == _name(b)


def same_database(a: Dsn, b: Dsn) -> bool:
    """`same_server`, and the same database on it. The role does not matter."""
    return a.database == b.database and same_server(a, b)


def _is_socket(host: str) -> bool:
    return host.startswith("/")


def _ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return IPv4Address(text)
    except ValueError:
        pass
    try:
        address = IPv6Address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address


def is_this_machine(address: str) -> bool:
    """This machine itself, so that nothing crosses a network. A name server may know `x.localhost`, so not that."""
    ip = _ip(address)
    return _is_socket(address) or (ip.is_loopback if ip else address.lower().removesuffix(".") == "localhost")


def _address(dsn: Dsn) -> str | None:
    """What is connected to, if it is known without asking a name server."""
    target = dsn.option("hostaddr") or dsn.host
    ip = _ip(target)
    if _is_socket(target):
        return normpath(target).replace("//", "/")
    if is_this_machine(target) or (ip and ip.is_unspecified):  # 0.0.0.0 and :: reach this machine too
        return "this machine"
    return str(ip) if ip else None


def _name(dsn: Dsn) -> str:
    return dsn.direct().host.lower().removesuffix(".")


def _check_address(host: str, hostaddr: str | None) -> None:
    """Refuses what is neither a name, an IP address nor a socket folder, and a number that only some resolvers read."""
    if "," in host + (hostaddr or ""):
        raise _several_hosts()
    if hostaddr is not None and _ip(hostaddr) is None:
        raise refusal("the hostaddr in the connection string is not an IP address")
    if _is_socket(host):
        return
    named = len(host) <= 254 and _HOST_NAME.fullmatch(host) and not _LOOKS_NUMERIC.fullmatch(host)
    if not named and _ip(host) is None:
        raise refusal("the host in the connection string is neither a host name, an IP address nor a socket folder")


def _several_hosts() -> UsageFault:
    return refusal("the connection string names several hosts", "name the one host that is meant")


def _check_encryption(dsn: Dsn) -> None:
    mode = dsn.option("sslmode") or "prefer"
    if mode not in _SSL_MODES:
        raise refusal(
            f"the sslmode in the connection string is not one of {', '.join(_SSL_MODES)}", "use sslmode=require"
        )
    if mode not in _ENCRYPTED and not is_this_machine(dsn.option("hostaddr") or dsn.host):
        raise refusal(
            f"sslmode={mode} lets passwords and data cross a network unencrypted",
            "use sslmode=require, or verify-full with sslrootcert=system",
        )
