"""The two spellings of a PostgreSQL connection string, read into keywords.

Follows libpq ("Connection Strings" in the PostgreSQL manual), with two differences: a keyword given twice is refused
where libpq takes the last, and so is raw white space in a URL. No error quotes the text: any part may be the password.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, unquote_to_bytes

from runbooks.model.errors import UsageFault
from runbooks.model.nearest import nearest

KEYWORDS = frozenset(
    """
    application_name channel_binding client_encoding connect_timeout dbname fallback_application_name gssdelegation
    gssencmode gsslib host hostaddr keepalives keepalives_count keepalives_idle keepalives_interval krbsrvname
    load_balance_hosts max_protocol_version min_protocol_version options passfile password port replication
    require_auth requirepeer ssl_max_protocol_version ssl_min_protocol_version sslcert sslcertmode sslcompression
    sslcrl sslcrldir sslkey sslmode sslnegotiation sslrootcert sslsni target_session_attrs tcp_user_timeout user
    """.split()  # noqa: SIM905 - forty lines otherwise
)
"""What libpq 18 knows, less `REFUSED`."""

REFUSED = {
    "service": "it takes host and database from another file",
    "sslkeylogfile": "it writes the keys of the session to a file",
    **dict.fromkeys(("sslpassword", "scram_client_key", "scram_server_key"), "only `password` is kept hidden"),
    **dict.fromkeys(
        ("oauth_client_id", "oauth_client_secret", "oauth_issuer", "oauth_scope"),
        "login through OAuth is not supported",
    ),
}
PRISMA = frozenset({"connection_limit", "pgbouncer", "pool_timeout", "schema", "sslaccept", "statement_cache_size"})
"""Bloom's services use Prisma, so this is what a pasted DATABASE_URL carries."""

_URL = re.compile(r"postgres(?:ql)?://(?P<authority>[^/?]*)(?:/(?P<dbname>[^?]*))?(?:\?(?P<query>.*))?", re.DOTALL)
_URL_START = re.compile(r"postgres(?:ql)?://")
_OTHER_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://")
_AUTHORITY = re.compile(
    r"(?:(?P<user>[^:@]*)(?::(?P<password>[^@]*))?@)?(?P<host>\[[^\[\]]*\]|[^:@\[\]]*)(?::(?P<port>[^@]*))?"
)
_PAIR = re.compile(r" *([^ =']+) *= *('(?:[^'\\]|\\.)*'|(?:[^ '\\]|\\.)(?:[^ \\]|\\.)*|)(?: +|$)")
NEVER = re.compile(r"[\x00\ud800-\udfff]")
"""NUL, and the halves of characters by which Python stands for octets that are not UTF-8: no server takes them."""
UNPRINTABLE = re.compile(rf"[\x01-\x1f\x7f]|{NEVER.pattern}")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOW = (
    "write it as postgresql://USER:PASSWORD@HOST/DATABASE?sslmode=require and percent-encode special characters "
    "in each part (@ is %40, / is %2F, : is %3A, % is %25)"
)


def read(text: str) -> dict[str, str]:
    """Known keywords with their decoded, non-empty values. UsageFault if malformed, without any part of `text`."""
    if not text.strip():
        raise refusal("the connection string is empty")
    if UNPRINTABLE.search(text):
        raise refusal("the connection string contains a line break, tab or other character that cannot be typed in one")
    if _URL_START.match(text):
        pairs = _url_pairs(text)
    elif _OTHER_URL.match(text):
        raise refusal("the connection string is a URL, but not one that starts with postgresql:// or postgres://")
    else:
        pairs = _keyword_pairs(text)
    return known(pairs)


def write(keywords: dict[str, str], *, mask: str | None = None) -> str:
    """The URL that `read` turns back into `keywords`. It contains the password if they do, or `mask` in its place."""
    rest = dict(keywords)
    host, port = rest.pop("host"), rest.pop("port")
    user, password, database = rest.pop("user"), rest.pop("password", None), rest.pop("dbname")
    login = _quoted(user) + ("" if password is None else f":{mask or _quoted(password)}")
    shown_host = f"[{_quoted(host, keep=':')}]" if ":" in host and host[0] != "/" else _quoted(host)
    query = "&".join(f"{name}={_quoted(value)}" for name, value in rest.items())
    return f"postgresql://{login}@{shown_host}:{port}/{_quoted(database)}{'?' if query else ''}{query}"


def refusal(happened: str, next_step: str = _HOW) -> UsageFault:
    """A UsageFault about a connection string; `happened` must not quote any part of it."""
    return UsageFault(happened, safe="nothing was started and no connection was made", next_step=next_step)


def _url_pairs(text: str) -> list[tuple[str, str]]:
    if " " in text:
        raise refusal("the connection URL contains a space", "percent-encode it as %20, or remove it")
    parts = _URL.fullmatch(text)
    assert parts is not None  # the start matched, and the rest of the pattern takes anything
    authority = _AUTHORITY.fullmatch(parts["authority"])
    if authority is None:
        raise refusal(
            "the part of the connection URL between // and the next / or ? is not USER:PASSWORD@HOST:PORT; "
            "a special character in the password may not be percent-encoded"
        )
    pairs = [(name, value) for name, value in authority.groupdict(default="").items() if value]
    pairs = [(name, value.strip("[]") if name == "host" else value) for name, value in pairs]
    pairs += [("dbname", parts["dbname"])] if parts["dbname"] else []
    for count, pair in enumerate((parts["query"] or "").split("&") if parts["query"] else [], start=1):
        name, *values = pair.split("=")
        if len(values) != 1:
            raise refusal(
                f"parameter {count} after the ? of the connection URL has not exactly one '='",
                "write name=value, and an = or & inside the value as %3D or %26",
            )
        pairs.append((_decoded(name), values[0]))
    return [_plain_ssl(name, _decoded(value)) for name, value in pairs]


def _plain_ssl(name: str, value: str) -> tuple[str, str]:
    """libpq reads JDBC's `ssl=true`, in URLs only."""
    return ("sslmode", "require") if (name, value) == ("ssl", "true") else (name, value)


def _keyword_pairs(text: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        pair = _PAIR.match(text, position)
        if pair is None:
            raise refusal(
                f"the connection string is not a URL, and its part {len(pairs) + 1} is not KEYWORD=VALUE",
                "quote a value with spaces as 'such a value', with \\' and \\\\ for ' and \\; or " + _HOW,
            )
        name, value = pair.groups()
        pairs.append((name, re.sub(r"\\(.)", r"\1", value[1:-1] if value.startswith("'") else value)))
        position = pair.end()
    return pairs


def known(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The pairs with a value, by keyword. UsageFault for a keyword that is unknown, refused or given twice."""
    keywords: dict[str, str] = {}
    for count, (name, value) in enumerate(pairs, start=1):
        if name not in KEYWORDS:
            raise _unknown(name, count)
        if name in keywords:
            raise refusal(f"the connection string gives '{name}' twice", "give it once")
        if (NEVER if name == "password" else UNPRINTABLE).search(value):
            raise refusal(f"the value of '{name}' contains a control character")
        keywords[name] = value
    return {name: value for name, value in keywords.items() if value}


def _unknown(name: str, count: int) -> UsageFault:
    """Says which keyword is meant, and repeats a name only if it is one of ours: it may be a piece of a password."""
    if name in PRISMA:
        return refusal(f"'{name}' is a parameter of Prisma, not of PostgreSQL", "remove it from the connection string")
    if name in REFUSED:
        return refusal(f"the keyword '{name}' is not accepted: {REFUSED[name]}", "remove it from the connection string")
    close = "".join(f"; the nearest one is '{known}'" for known in nearest(name, KEYWORDS))
    return refusal(f"the connection string has a keyword (number {count}) that PostgreSQL does not know{close}")


def _decoded(text: str) -> str:
    if _BAD_PERCENT.search(text):
        raise refusal("the connection URL has a % that is not followed by two hexadecimal digits")
    octets = unquote_to_bytes(text)
    decoded = octets.decode("utf-8", "replace")
    if decoded.encode("utf-8") != octets:
        raise refusal("the connection URL has percent-encoded octets that are not UTF-8")
    return decoded


def _quoted(text: str, keep: str = "") -> str:
    return quote(text, safe=keep)
