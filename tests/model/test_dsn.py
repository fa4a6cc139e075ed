"""A connection string is read as libpq reads it, more strictly, and its password is never shown."""

from __future__ import annotations

import copy
import pickle
import re
import traceback
from dataclasses import asdict, replace
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict

from runbooks.model import conninfo
from runbooks.model.dsn import Dsn, Secret, same_database, same_server
from runbooks.model.errors import UsageFault

WORD = "hunter2/correct@horse"
NEON = "ep-quiet-lake-123456.c-2.us-east-1.aws.neon.tech"
POOLED = "ep-quiet-lake-123456-pooler.c-2.us-east-1.aws.neon.tech"
LOCAL = "ep-quiet-lake-123456.sandbox.localhost"

printable = st.characters(exclude_categories=["Cc", "Cs"])
words = st.text(printable, min_size=1, max_size=12)
hosts = st.one_of(
    st.sampled_from([NEON, POOLED, "db.example.com.", "LOCALHOST", "10.0.0.5", "::1", "2001:db8::7", "/run/pg:1 sock"]),
    st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z](\.[a-z]{2,5}){1,3}", fullmatch=True),
)
extras = st.dictionaries(st.sampled_from(["application_name", "options", "channel_binding", "connect_timeout"]), words)


@st.composite
def dsns(draw: st.DrawFn) -> Dsn:
    password = draw(st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
    options = {"sslmode": "verify-full"} | draw(extras)
    return Dsn(
        draw(hosts),
        draw(st.integers(1, 65535)),
        draw(words),
        None if password is None else Secret(password),
        draw(words),
        tuple(options.items()),
    )


def as_keywords(dsn: Dsn) -> str:
    """libpq's other spelling, every value quoted."""
    quoted = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in dsn.keywords().items()}
    return " ".join(f"{name} = '{value}'" for name, value in quoted.items())


def attempt(text: str) -> Dsn | UsageFault:
    try:
        return Dsn.parse(text)
    except UsageFault as fault:
        return fault


def refusal(text: str) -> UsageFault:
    with pytest.raises(UsageFault) as caught:
        Dsn.parse(text)
    return caught.value


# Reading and writing


@given(dsns())
def test_the_url_that_is_written_reads_back_as_the_same_dsn(dsn: Dsn) -> None:
    assert Dsn.parse(dsn.reveal_url()) == dsn


@given(dsns())
def test_both_spellings_are_one_dsn(dsn: Dsn) -> None:
    assume(not any(ord(char) < 32 or ord(char) == 127 for char in as_keywords(dsn)))
    assert Dsn.parse(as_keywords(dsn)) == dsn


@given(dsns())
def test_libpq_reads_the_url_that_is_written_in_the_same_way(dsn: Dsn) -> None:
    assert conninfo_to_dict(dsn.reveal_url()) == dsn.keywords()


odd = st.sampled_from(
    ["", "", "", "a", "b.c", "%41", "a%2Fb", "%", "%00", "a'b", "a\\b", "a b", "é", "a#b", "a+b", "a=b", "x,y"]
)
places = st.sampled_from(
    ["b.c", "localhost", "[::1]", "%2Ftmp", "b.c:5433", "b.c:", "[::1]:5433", "b.c,d.e", "", "::1"]
)
names = st.sampled_from(
    ["user", "password", "dbname", "application_name", "host", "hostaddr", "port", "ssl", "options"]
)
values = odd | st.sampled_from(["'a b'", "'a''b'", r"'a\'b'", r"a\ b", "''", "'", "5433", "127.0.0.1"])
urls = st.builds(
    lambda user, password, place, name, query: f"postgres://{user}:{password}@{place}/{name}?{query}",
    odd, odd, places, odd, st.lists(st.builds("{}={}".format, names, odd), max_size=2).map("&".join),
)  # fmt: skip
pairs = st.lists(st.builds("{}{}{}".format, names, st.sampled_from(["=", " = ", "= ", " "]), values), max_size=5).map(
    " ".join
)


@given(urls | pairs.map("user=a host=b.c ".__add__) | pairs)
@example("user=a host=b.c user=")
@example("postgres://a:@b.c/?password=a=b")
@example("user=a host=b.c ssl=")
@example("postgresql://a@b.c/?user=")
@example("postgresql://a:b@b.c:5433/a?options=endpoint%3Dep-a-1")
@example("host=b.c user=a\\'b password=''  dbname = 'a''b'")
@example("host=b.c user=a password= dbname=b")
@example("postgresql://a@%2Fa/b?user=b")
def test_what_is_accepted_means_the_same_to_libpq(text: str) -> None:
    dsn = attempt(text)
    if isinstance(dsn, Dsn):
        added = {"host", "port", "dbname", "sslmode"}
        theirs = {name: value for name, value in conninfo_to_dict(text).items() if value}
        ours = dsn.keywords()
        assert theirs.items() <= ours.items()
        assert ours.keys() - theirs.keys() <= added
    else:
        assert dsn.exit_code == 2


def test_every_keyword_of_the_installed_libpq_is_known_or_refused_on_purpose() -> None:
    theirs = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    assert theirs <= conninfo.KEYWORDS | conninfo.REFUSED.keys()
    assert not conninfo.KEYWORDS & conninfo.REFUSED.keys()


def test_port_and_database_have_libpqs_defaults() -> None:
    dsn = Dsn.parse("postgresql://ana@db.example.com")
    assert (dsn.port, dsn.database, dsn.password) == (5432, "ana", None)
    assert Dsn.parse("postgresql://ana@db.example.com:/") == dsn
    assert Dsn.parse("host=db.example.com user=ana port='' password=''") == dsn


def test_an_ipv6_host_is_written_in_brackets_in_a_url_and_bare_in_a_keyword() -> None:
    dsn = Dsn.parse("postgresql://ana@[::1]:5433/d")
    assert (dsn.host, dsn.port) == ("::1", 5433)
    assert Dsn.parse("host=::1 port=5433 user=ana dbname=d") == dsn
    assert Dsn.parse("postgresql://ana@[fe80::1%25eth0]/d").host == "fe80::1%eth0"


@pytest.mark.parametrize(
    "text",
    ["postgresql://ana@%2Frun%2Fpg/d", "postgresql:///d?host=/run/pg&user=ana", "host=/run/pg user=ana dbname=d"],
)
def test_a_socket_folder_is_a_host(text: str) -> None:
    assert Dsn.parse(text) == Dsn("/run/pg", 5432, "ana", None, "d")


def test_hostaddr_alone_is_the_host() -> None:
    assert Dsn.parse("hostaddr=127.0.0.1 user=ana").host == "127.0.0.1"


def test_the_endpoint_option_of_a_client_without_sni_is_kept_beside_other_options() -> None:
    dsn = Dsn.parse("postgresql://ana@pg.example.com/d?options=endpoint%3Dep-quiet-lake-123456%20-c%20geqo%3Doff")
    assert dsn.option("options") == "endpoint=ep-quiet-lake-123456 -c geqo=off"
    assert dsn.endpoint_id == "ep-quiet-lake-123456"


def test_the_keywords_are_what_psycopg_takes() -> None:
    assert Dsn.parse("postgresql://ana:pw@h.example/d?channel_binding=require").keywords() == {
        "host": "h.example",
        "port": "5432",
        "user": "ana",
        "password": "pw",
        "dbname": "d",
        "channel_binding": "require",
        "sslmode": "require",
    }


def test_options_are_the_same_in_any_order_and_empty_ones_are_left_out() -> None:
    options = (("sslmode", "require"), ("application_name", "x"), ("sslrootcert", ""))
    dsn = Dsn("h.example", 5432, "ana", None, "d", options)
    assert dsn.options == (("application_name", "x"), ("sslmode", "require"))


def test_with_database_changes_nothing_else() -> None:
    dsn = Dsn.parse(f"postgresql://ana:pw@{POOLED}/d")
    assert dsn.with_database("e") == Dsn.parse(f"postgresql://ana:pw@{POOLED}/e")
    with pytest.raises(UsageFault, match="no database"):
        dsn.with_database("")


# Refusals


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("\n", "empty"),
        ("postgresql://ana@h.example/d\n", "line break"),
        ("host=h.example\nuser=ana", "line break"),
        ("postgresql://ana@h.example/d\0", "control character|cannot be typed"),
        ("postgresql://ana@h.example/d%00", "control character"),
        ("postgresql://ana@h.example/d%0A", "control character"),
        ("postgresql://ana:\udc80@h.example/d", "cannot be typed"),
        (" postgresql://ana@h.example/d", "KEYWORD=VALUE|not one that starts|space"),
        ("postgresql://ana@h.example/my db", "space"),
        ("postgresql://ana@h.example/%zz", "hexadecimal"),
        ("postgresql://ana@h.example/%ff", "UTF-8"),
        ("mysql://ana@h.example/d", "postgresql://"),
        ("jdbc:postgresql://h.example/d", "postgresql://"),
        ("postgresql+psycopg://ana@h.example/d", "postgresql://"),
        ("just words", "KEYWORD=VALUE"),
        ("host=h.example user='ana", "KEYWORD=VALUE"),
        ("host=h.example user=ana\\", "KEYWORD=VALUE"),
        ("postgresql://a,b/d?user=ana", "several hosts"),
        ("postgresql://ana@a:1,b:2/d", "several hosts"),
        ("postgresql://ana@[::1]:1,[::2]:2/d", "several hosts"),
        ("host=a,b user=ana", "several hosts"),
        ("host=/a,/b user=ana", "several hosts"),
        ("host=a port=1,2 user=ana", "several hosts"),
        ("hostaddr=10.0.0.1,10.0.0.2 user=ana", "several hosts"),
        ("host=a host=b user=ana", "'host' twice"),
        ("postgresql://ana@a.example/d?host=b.example", "'host' twice"),
        ("postgresql:///d?user=ana", "no host"),
        ("postgresql://h.example/d", "no user"),
        ("postgresql://:pw@h.example/d", "no user"),
        ("postgresql://ana@h.example:0/d", "between 1 and 65535"),
        ("postgresql://ana@h.example:65536/d", "between 1 and 65535"),
        ("postgresql://ana@h.example:54x/d", "not a number"),
        ("postgresql://ana@h.example:-1/d", "not a number"),
        ("host=h.example port=٥٤٣٢ user=ana", "not a number"),
        ("postgresql://ana@[::1/d", "USER:PASSWORD@HOST"),
        ("postgresql://ana@::1/d", "no host"),
        ("host=h_example..com user=ana", "neither a host name"),
        ("host=-h.example user=ana", "neither a host name"),
        ("host='h example' user=ana", "neither a host name"),
        ("host=@abstract user=ana", "neither a host name"),
        ("hostaddr=h.example user=ana", "not an IP address"),
        ("postgresql://ana@h.example/d?sslmode", "not exactly one '='"),
        ("postgresql://ana@h.example/d?options=endpoint=ep-x", "not exactly one '='"),
        ("postgresql://ana@h.example/d?sslmode=sometimes", "not one of disable"),
        ("postgresql://ana@h.example/d?pgbouncer=true", "Prisma"),
        ("postgresql://ana@h.example/d?service=prod", "another file"),
        ("postgresql://ana@h.example/d?sslpassword=x", "only `password` is kept hidden"),
    ],
)
def test_what_is_malformed_or_names_more_than_one_place_is_refused(text: str, why: str) -> None:
    assert re.search(why, refusal(text).happened)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "0x7f000001", "0127.0.0.1", "10.0.0.5."])
def test_a_number_that_only_some_resolvers_take_for_an_address_is_refused(host: str) -> None:
    assert "neither a host name" in refusal(f"postgresql://ana@{host}/d?sslmode=require").happened


def test_an_unknown_keyword_is_refused_with_the_nearest_known_one() -> None:
    assert "'sslmode'" in refusal("postgresql://ana@h.example/d?sslmod=require").happened
    assert "'dbname'" in refusal("host=h.example user=ana dbnam=d").happened


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_an_unencrypted_connection_to_another_machine_is_refused(mode: str) -> None:
    assert "unencrypted" in refusal(f"postgresql://ana@h.example/d?sslmode={mode}").happened
    assert "unencrypted" in refusal(f"postgresql://ana@{LOCAL}/d?sslmode={mode}").happened
    assert "unencrypted" in refusal(f"postgresql://ana@localhost/d?sslmode={mode}&hostaddr=10.0.0.5").happened


@pytest.mark.parametrize(
    "place",
    [
        "postgresql://ana@localhost/d?",
        "postgresql://ana@127.0.0.9/d?",
        "postgresql://ana@[::1]/d?",
        "postgresql://ana@[::ffff:127.0.0.1]/d?",
        "postgresql://ana@%2Frun%2Fpg/d?",
        f"postgresql://ana@{LOCAL}:5999/d?hostaddr=127.0.0.1&",
    ],
)
def test_this_machine_may_be_reached_unencrypted(place: str) -> None:
    assert Dsn.parse(f"{place}sslmode=disable").option("sslmode") == "disable"
    assert Dsn.parse(place.rstrip("?&")).option("sslmode") is None


def test_without_sslmode_another_machine_is_reached_encrypted() -> None:
    assert Dsn.parse("postgresql://ana@h.example/d").option("sslmode") == "require"
    assert Dsn.parse("postgresql://ana@h.example/d?ssl=true").option("sslmode") == "require"
    assert Dsn.parse("postgresql://ana@h.example/d?sslmode=verify-full").option("sslmode") == "verify-full"


@pytest.mark.parametrize(
    "change",
    [
        {"host": "a,b"},
        {"host": ""},
        {"port": 0},
        {"user": ""},
        {"user": "a\nb"},
        {"database": "a\0b"},
        {"password": Secret("a\0b")},
        {"password": Secret("a\udc80b")},
        {"options": ()},
        {"options": (("sslmode", "require"), ("password", WORD))},
        {"options": (("sslmode", "require"), ("host", "b.example"))},
        {"options": (("sslmode", "require"), ("sslmod", "require"))},
    ],
)
def test_a_dsn_made_by_hand_holds_the_same_rules(change: dict[str, object]) -> None:
    dsn = Dsn.parse("postgresql://ana@h.example/d")
    with pytest.raises(UsageFault):
        replace(dsn, **change)  # type: ignore[arg-type]


# The password


@given(dsns())
def test_the_password_is_masked_wherever_a_dsn_is_shown(dsn: Dsn) -> None:
    shown = {str(dsn), f"{dsn}", repr(dsn), repr([dsn]), repr(asdict(dsn)), "%s" % dsn}  # noqa: UP031
    other = replace(dsn, password=Secret("another") if dsn.password else None)
    assert shown == {str(other), f"{other}", repr(other), repr([other]), repr(asdict(other)), "%s" % other}  # noqa: UP031


def test_a_dsn_with_a_password_is_not_pickled() -> None:
    dsn = Dsn.parse(f"postgresql://ana:{quote(WORD, safe='')}@h.example/d")
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(dsn)
    assert copy.deepcopy(dsn) == dsn
    assert dsn.password is not None
    assert dsn.password.reveal() == WORD


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://ana:{WORD}@h.example/d",
        "postgresql://ana:hunter2@correct@h.example/d",
        "postgresql://ana:hunter2:correct@h.example:x/d",
        "postgresql://ana:hunter2?correct=horse@h.example/d",
        "postgresql://ana:hunter2?host=horse@h.example/d",
        "postgresql://ana:hunter2%correct@h.example/d",
        "postgresql://ana:hunter2 correct@h.example/d",
        "postgresql://ana:hunter2\ncorrect@h.example/d",
        "postgresql://ana:hunter2\udc80correct@h.example/d",
        "postgres//ana:hunter2correct@h.example/d",
        "mysql://ana:hunter2@h.example/d",
        "host=h.example user=ana password=hunter2 correct horse",
        "host=h.example user=ana password=hunter2 correct=horse",
        "host=h.example user=ana password='hunter2",
        "host=h.example user=ana passwort=hunter2",
        "host=hunter2@correct user=ana",
        "hostaddr=hunter2 user=ana",
        "host=h.example port=hunter2 user=ana",
        "host=h.example user=ana sslmode=hunter2",
        "hunter2",
        "hunter2=hunter2",
    ],
)
def test_an_error_about_a_bad_text_shows_no_part_of_it(text: str) -> None:
    fault = refusal(text)
    trace = "".join(traceback.format_exception(fault, chain=True, limit=0))
    told = " ".join([trace, repr(fault), fault.happened, fault.safe, fault.next_step])
    assert not [part for part in ("hunter2", "correct", "horse", "h.example") if part in told]
    assert fault.__context__ is None or "hunter2" not in repr(fault.__context__)


@given(st.text(st.sampled_from("ab@:/?#&=%'\\ [],é\n\0"), min_size=1, max_size=8), st.booleans())
def test_no_password_however_odd_gets_into_an_error(noise: str, as_url: bool) -> None:
    password = f"QZX{noise}QZX"
    text = f"postgresql://ana:{password}@h.example/d" if as_url else f"host=h.example user=ana password={password}"
    fault = attempt(text)
    if isinstance(fault, UsageFault):
        assert "QZX" not in " ".join(map(str, [*fault.args, fault.safe, fault.next_step, fault.__context__]))


def test_libpq_itself_would_show_the_password() -> None:
    """Why the texts above are not simply handed to libpq."""
    with pytest.raises(ProgrammingError, match="hunter2"):
        conninfo_to_dict("postgresql://ana@h.example:5432/d?hunter2=x")


# Pooler and endpoint


def test_c11_the_direct_host_is_the_pooled_one_without_the_suffix_of_its_first_label() -> None:
    dsn = Dsn.parse("postgresql://ana@ep-quiet-lake-12345-pooler.eu-central-1.aws.example/d")
    assert dsn.is_pooled
    assert dsn.direct().host == "ep-quiet-lake-12345.eu-central-1.aws.example"
    assert not dsn.direct().is_pooled
    assert dsn.direct().direct() == dsn.direct()


@pytest.mark.parametrize(
    "host", ["my-pooler-db.example.com", "db.x-pooler.example.com", "pooler.example.com", "/run/x-pooler", NEON]
)
def test_pooler_anywhere_else_in_the_host_means_nothing(host: str) -> None:
    dsn = Dsn(host, 5432, "ana", None, "d", (("sslmode", "require"),))
    assert not dsn.is_pooled
    assert dsn.direct() == dsn


def test_the_endpoint_option_can_name_the_pooler_too() -> None:
    upper = Dsn.parse("postgresql://ana@pg.example.com/d?options=endpoint%3DEP-Quiet-Lake-123456")
    assert upper.endpoint_id == "ep-quiet-lake-123456"
    dsn = Dsn.parse(
        "postgresql://ana@pg.example.com/d?options=endpoint%3Dep-quiet-lake-123456-pooler%20-c%20a%3Db-pooler"
    )
    assert dsn.is_pooled
    assert dsn.direct().option("options") == "endpoint=ep-quiet-lake-123456 -c a=b-pooler"


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [
        (NEON, "ep-quiet-lake-123456"),
        (POOLED, "ep-quiet-lake-123456"),
        (POOLED.upper(), "ep-quiet-lake-123456"),
        ("br-quiet-lake-123456.us-east-1.aws.neon.tech", None),
        ("db.ep-quiet-lake-123456.example", None),
        ("10.0.0.5", None),
        ("/run/ep-quiet", None),
    ],
)
def test_the_endpoint_is_the_first_label_without_the_suffix(host: str, endpoint: str | None) -> None:
    assert Dsn(host, 5432, "ana", None, "d", (("sslmode", "require"),)).endpoint_id == endpoint


# The same place, spelled differently

SAME_SERVER = [
    [
        f"postgresql://ana@{NEON}/d",
        f"postgresql://ana@{NEON}:5432/d?channel_binding=require",
        f"postgres://bea:pw@{POOLED}/d",
        f"host={NEON.upper()}. user=ana dbname=d",
        "postgresql://ana@pg.example.com/d?options=endpoint%3Dep-quiet-lake-123456",
        f"postgresql://ana@{NEON}/d?hostaddr=10.0.0.5",
    ],
    [
        "postgresql://ana@localhost/d",
        "postgresql://ana@LocalHost./d",
        "postgresql://ana@127.0.0.1/d",
        "postgresql://ana@[::1]:5432/d",
        "postgresql://ana@[0:0:0:0:0:0:0:1]/d",
        "postgresql://ana@[::ffff:127.0.0.1]/d",
        "postgresql://ana@0.0.0.0/d?sslmode=require",
        "hostaddr=127.0.0.1 user=ana dbname=d",
        "postgresql://ana@anything.example/d?hostaddr=::1",
    ],
    [
        "postgresql://ana@db.example.com/d",
        "host=DB.Example.COM. user=ana dbname=d",
        "postgresql://ana@db-pooler.example.com/d",
    ],
    ["postgresql://ana@[2001:db8::7]/d", "host=2001:0DB8:0::0007 user=ana dbname=d"],
    [
        "postgresql://ana@[::ffff:10.0.0.7]/d",
        "postgresql://ana@10.0.0.7/d",
        "host=x.example hostaddr=10.0.0.7 user=ana dbname=d",
    ],
    ["postgresql://ana@%2Frun%2Fpg/d", "host=/run//pg/ user=ana dbname=d", "host=//run/./pg user=ana dbname=d"],
    [f"postgresql://ana@{LOCAL}:5999/d?hostaddr=127.0.0.1", "postgresql://ana@localhost:5999/d"],
    ["postgresql://ana@ep-other-sea-654321.c-2.us-east-1.aws.neon.tech/d?hostaddr=10.0.0.5"],
    ["postgresql://ana@localhost:5433/d"],
]
SPELLINGS = [(group, Dsn.parse(text)) for group, texts in enumerate(SAME_SERVER) for text in texts]
spellings = st.sampled_from(SPELLINGS)


@given(spellings, spellings, st.sampled_from("de"), st.sampled_from("de"))
def test_two_spellings_are_the_same_server_exactly_when_they_reach_the_same_place(
    one: tuple[int, Dsn], other: tuple[int, Dsn], first: str, second: str
) -> None:
    a, b = one[1].with_database(first), other[1].with_database(second)
    assert same_server(a, b) == same_server(b, a) == (one[0] == other[0])
    assert same_database(a, b) == same_database(b, a) == (one[0] == other[0] and first == second)


def test_all_pairs_of_spellings() -> None:
    wrong = [(str(a), str(b)) for one, a in SPELLINGS for other, b in SPELLINGS if same_server(a, b) != (one == other)]
    assert wrong == []


@given(dsns())
def test_respelling_a_dsn_never_makes_it_another_server(dsn: Dsn) -> None:
    for spelled in (dsn.host.upper() if not dsn.host.startswith("/") else dsn.host, dsn.direct().host):
        assert same_database(replace(dsn, host=spelled, user="someone", password=None), dsn)
    assert same_database(dsn.direct(), dsn)


def test_the_name_of_a_database_is_told_apart_by_case() -> None:
    dsn = Dsn.parse("postgresql://ana@h.example/d")
    assert not same_database(dsn, dsn.with_database("D"))
