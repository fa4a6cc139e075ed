"""The policy file is understood completely, or refused with the place and the reason."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from runbooks.model import policy_file
from runbooks.model.errors import PolicyFault, UsageFault
from runbooks.model.policy import NeonEnvironment, Policy, Recovery, SandboxEnvironment

Loading = Callable[[str], Policy]
Telling = Callable[[str], str]
ROOT = Path(__file__).resolve().parents[2]
SMALLEST = """
default_environment = "sandbox"
local_timezone = "UTC"
[environments.sandbox]
sandbox = true
"""
PRODUCTION = """
[environments.production]
project = "example-production-1"
database = "neondb"
role = "owner"
promised_window = "7d"
"""


def outcome(content: dict[str, object]) -> str:
    try:
        Policy.model_validate(content)
    except ValidationError as error:
        return policy_file.fault(Path("policy.toml"), error).happened
    return "accepted"


@pytest.fixture
def load(tmp_path: Path) -> Loading:
    def load(text: str) -> Policy:
        (tmp_path / "policy.toml").write_text(text, encoding="utf-8")
        return Policy.load(tmp_path / "policy.toml")

    return load


@pytest.fixture
def refusal(load: Loading, tmp_path: Path) -> Telling:
    def refusal(text: str) -> str:
        """What is said, behind the name of the file."""
        with pytest.raises(PolicyFault) as caught:
            load(text)
        file, _, told = caught.value.happened.partition(": ")
        assert file == str(tmp_path / "policy.toml")
        assert caught.value.safe == "nothing was started"
        return told

    return refusal


# The file that comes with the project


def test_the_worked_example_loads_and_starts_in_the_sandbox() -> None:
    policy = Policy.load(ROOT / "policy.toml")
    environment = policy.environment(policy.default_environment)
    assert isinstance(environment, SandboxEnvironment)
    assert (environment.database, environment.role) == ("neondb", "neondb_owner")


def test_the_worked_example_holds_the_numbers_of_the_strategy() -> None:
    policy = Policy.load(ROOT / "policy.toml")
    numbers = {name: policy.objective(name) for name in ("accidental-delete", "corruption", "provider-loss")}
    assert {name: (each.rto, each.rpo) for name, each in numbers.items()} == {
        "accidental-delete": (timedelta(minutes=30), timedelta(minutes=5)),
        "corruption": (timedelta(hours=2), timedelta(hours=24)),
        "provider-loss": (timedelta(hours=4), timedelta(hours=24)),
    }
    assert [contact.name for contact in policy.contacts] == [
        "DevOps on call",
        "Database administrator",
        "Neon support",
        "AWS support",
    ]


@pytest.mark.parametrize("key", [*NeonEnvironment.model_fields, *Recovery.model_fields, *list(Policy.model_fields)[:2]])
def test_the_worked_example_shows_every_key_under_a_comment(key: str) -> None:
    above = (ROOT / "policy.toml").read_text(encoding="utf-8").partition(f"{key} = ")
    assert above[1], "the key is not in the example"
    block = above[0].rpartition("\n\n")[2]
    assert block.startswith(("# ", "[environments.", "[recovery]\n# "))
    assert "# " in block or key == "sandbox"


def test_what_the_example_spells_out_equals_the_defaults(load: Loading) -> None:
    example, smallest = Policy.load(ROOT / "policy.toml"), load(SMALLEST)
    assert smallest.objectives == example.objectives
    assert smallest.recovery == example.recovery
    assert smallest.environments["sandbox"] == example.environments["sandbox"]
    assert smallest.contacts == ()


# What is read


def test_a_neon_environment_has_neons_address_and_variable_by_default(load: Loading) -> None:
    environment = load(SMALLEST + PRODUCTION).environment("production")
    assert isinstance(environment, NeonEnvironment)
    assert not environment.sandbox
    assert environment.api == "https://console.neon.tech/api/v2"
    assert environment.api_key_env == "NEON_API_KEY"
    assert environment.branch is None
    assert environment.promised_window == timedelta(days=7)


@pytest.mark.parametrize(
    "url", ["https://neon.example/api/v2/", "http://127.0.0.1:8080/api/v2", "http://[::1]:80/api", "http://localhost"]
)
def test_an_api_address_is_encrypted_or_on_this_machine(load: Loading, url: str) -> None:
    environment = load(f'{SMALLEST}{PRODUCTION}api = "{url}"').environment("production")
    assert isinstance(environment, NeonEnvironment)
    assert environment.api == url.removesuffix("/")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://neon.example/api", "has to start with https://"),
        ("http://127.0.0.1.example/api", "has to start with https://"),
        ("http://x.localhost/api", "has to start with https://"),
        ("https://user:key@neon.example/api", "is not a URL"),
        ("https://neon.example/api?key=x", "is not a URL"),
        ("ftp://neon.example", "is not a URL"),
        ("neon.example", "is not a URL"),
        ("https://neon.example/api\\n", "is not a URL"),
    ],
)
def test_another_api_address_is_refused(refusal: Telling, url: str, why: str) -> None:
    told = refusal(f'{SMALLEST}{PRODUCTION}api = "{url}"')
    assert told.startswith(f"environments.production.api: {why}")
    assert "user:key" not in told


def test_a_policy_is_frozen(load: Loading) -> None:
    policy = load(SMALLEST)
    with pytest.raises(ValidationError, match="frozen"):
        policy.default_environment = "production"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        policy.recovery.lock_timeout = timedelta(1)  # type: ignore[misc]


# What is refused


PLACE = "environments.production"
ONE_CONTACT = "[[contacts]]\nname = 'a'\nhow = 'b'\nrole = 'c'\n"


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        (PRODUCTION.replace("project ", "projct "), f"{PLACE}.projct", "unknown key; did you mean 'project'?"),
        ("[recovry]", "recovry", "unknown key; did you mean 'recovery'?"),
        ("[recovery]\nlock_timout = '5s'", "recovery.lock_timout", "unknown key; did you mean 'lock_timeout'?"),
        ("[objectives.corupton]", "objectives.corupton", "unknown key; did you mean 'corruption'?"),
        ("[objectives.provider_loss]", "objectives.provider_loss", "unknown key; did you mean 'provider-loss'?"),
        ("[objectives.corruption]\nrpoo = '1h'", "objectives.corruption.rpoo", "unknown key; did you mean 'rpo'?"),
        ("[objectives.corruption]\nrto = '1h'", "objectives.corruption.rpo", "is missing"),
        ("[objectives]\ncorruption = 3", "objectives.corruption", "expected a table, found a whole number"),
        ("zzz = 1", "environments.sandbox.zzz", "unknown key"),
        ("project = 'x'", "environments.sandbox.project", "has no meaning beside sandbox = true"),
        ("[environments.'Not Good']\nsandbox = true", "environments.Not Good", "is not a name of lower-case letters"),
        (PRODUCTION.replace("role =", "#"), f"{PLACE}.role", "is missing"),
        (PRODUCTION.replace('"owner"', "7"), f"{PLACE}.role", "expected text, found a whole number"),
        (PRODUCTION.replace('"owner"', "7.5"), f"{PLACE}.role", "expected text, found a number"),
        (PRODUCTION.replace('"owner"', "['a']"), f"{PLACE}.role", "expected text, found a list"),
        (PRODUCTION.replace('"owner"', "' '"), f"{PLACE}.role", "is not a line of text"),
        (PRODUCTION.replace("-production-1", "_1"), f"{PLACE}.project", "is not a Neon project id such as"),
        (PRODUCTION + "branch = 'main'", f"{PLACE}.branch", "is not a branch id (they start with br-)"),
        (PRODUCTION + "sandbox = 'no'", f"{PLACE}.sandbox", "expected true or false, found text"),
        (PRODUCTION + "api_key_env = 'A-B'", f"{PLACE}.api_key_env", "is not the name of an environment variable"),
        (PRODUCTION.replace('"7d"', "7"), f"{PLACE}.promised_window", 'is a number without a unit; write "7s", "7m",'),
        (PRODUCTION.replace('"7d"', "true"), f"{PLACE}.promised_window", "expected a duration such as"),
        (PRODUCTION.replace('"7d"', "2025-12-03"), f"{PLACE}.promised_window", "expected a duration such as"),
        (PRODUCTION.replace('"7d"', '"7"'), f"{PLACE}.promised_window", "is not a duration such as"),
        (
            PRODUCTION.replace('"7d"', '"31d"'),
            f"{PLACE}.promised_window",
            "is 31d, and has to lie between 1h and 30d: ",
        ),
        (
            "[recovery]\nbranch_lifetime = '30d1s'",
            "recovery.branch_lifetime",
            "is 30d1s, and has to lie between 1h and ",
        ),
        ("[recovery]\nlock_timeout = '0s'", "recovery.lock_timeout", "is 0s, and has to lie between 1s and 5m: "),
        (
            "[recovery]\nstatement_timeout = '2d'",
            "recovery.statement_timeout",
            "is 2d, and has to lie between 1s and 1d: ",
        ),
        ("[recovery]\nconnect_wait = '29s'", "recovery.connect_wait", "is 29s, and has to lie between 30s and 10m: "),
        (ONE_CONTACT + ONE_CONTACT.replace("'b'", "5"), "contacts[entry 2].how", "expected text, found a whole number"),
        ("[contacts]", "contacts", "expected a list, found a table"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_cure(refusal: Telling, text: str, place: str, why: str) -> None:
    assert refusal(SMALLEST + text).startswith(f"{place}: {why}")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[environments.sandbox]\nx = 1", "line 6"),
        ("sandbox = true\n", "line 6"),
        ("sandbox = true", "line 6"),
        ("role = ", "line 6"),
        ("role = 'open\n", "line 6"),
        ("x = " + "9" * 5000, "too long or too deeply nested"),
        ("x = " + "[" * 50_000, "too long or too deeply nested"),
    ],
)
def test_what_is_not_toml_is_named_with_its_line(refusal: Telling, text: str, why: str) -> None:
    told = refusal(SMALLEST + text)
    assert told.startswith("not valid TOML: ")
    assert why in told


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"UTC"', '"America/Mexico"', "local_timezone: 'America/Mexico' is not a zone in the IANA list; nearest: Amer"),
        ('"UTC"', '"CST"', "local_timezone: 'CST' is an abbreviation and ambiguous"),
        ("local_timezone", "#", "local_timezone: is missing"),
        (
            '= "sandbox"',
            '= "sandbix"',
            "default_environment: the policy has no environment 'sandbix', only sandbox; did",
        ),
        ("= true", "= false", "4 faults\n  environments.sandbox.project: is missing"),
    ],
)
def test_the_general_keys_are_checked_too(refusal: Telling, old: str, new: str, told: str) -> None:
    assert refusal(SMALLEST.replace(old, new)).startswith(told)


def test_all_mistakes_are_told_at_once(refusal: Telling) -> None:
    told = refusal(SMALLEST + PRODUCTION.replace("7d", "99d").replace("role", "rol") + "[recovery]\nlock_timeout = 5")
    assert told.splitlines()[0] == "2 faults"
    assert "environments.production.rol: unknown key; did you mean 'role'?" in told
    assert "recovery.lock_timeout" in told


def test_an_api_key_in_place_of_a_variable_is_refused_and_not_repeated(refusal: Telling) -> None:
    told = refusal(f"{SMALLEST}{PRODUCTION}api_key_env = 'napi_abcdef123456'")
    assert "is an API key" in told
    assert "napi_" not in told


def test_a_file_that_cannot_be_read_is_a_policy_fault(tmp_path: Path) -> None:
    with pytest.raises(PolicyFault, match="no such file"):
        Policy.load(tmp_path / "policy.toml")
    with pytest.raises(PolicyFault, match="cannot be read"):
        Policy.load(tmp_path)
    (tmp_path / "policy.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(PolicyFault, match="not UTF-8"):
        Policy.load(tmp_path / "policy.toml")


keys = st.sampled_from(["sandbox", "project", "rto", "corruption", "s", "x"])
scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
contents = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


@given(contents, st.sampled_from(sorted(Policy.model_fields)))
def test_any_content_is_accepted_or_is_a_validation_error_that_can_be_told(value: object, key: str) -> None:
    content = {
        "default_environment": "s",
        "local_timezone": "UTC",
        "environments": {"s": {"sandbox": True}},
        key: value,
    }
    assert outcome(content).startswith(("accepted", "policy.toml: "))


# What is asked of it


def test_an_unknown_environment_is_refused_with_the_known_ones_and_the_nearest(load: Loading) -> None:
    with pytest.raises(UsageFault) as caught:
        load(SMALLEST + PRODUCTION).environment("prodction")
    assert caught.value.happened == (
        "the policy has no environment 'prodction', only sandbox, production; did you mean 'production'?"
    )
    assert caught.value.next_step == "choose one of: sandbox, production"


def test_an_unknown_scenario_is_refused_with_the_nearest(load: Loading) -> None:
    with pytest.raises(UsageFault, match="did you mean 'provider-loss'"):
        load(SMALLEST).objective("provider_loss")


def test_the_api_key_comes_from_the_named_variable_and_a_broken_one_is_not_shown(load: Loading) -> None:
    environment = load(f"{SMALLEST}{PRODUCTION}api_key_env = 'OUR_KEY'").environment("production")
    assert isinstance(environment, NeonEnvironment)
    assert environment.api_key({"OUR_KEY": "napi_x", "NEON_API_KEY": "other"}) == "napi_x"
    with pytest.raises(PolicyFault, match=r"OUR_KEY.* is not set"):
        environment.api_key({"NEON_API_KEY": "other"})
    with pytest.raises(PolicyFault, match=r"OUR_KEY.* holds a space, line break") as caught:
        environment.api_key({"OUR_KEY": "napi_x\n"})
    assert "napi_x" not in f"{caught.value} {caught.value.next_step}"
