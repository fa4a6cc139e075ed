"""The wire: what is tried again and for how long, what is final, and what never leaves the program."""

from __future__ import annotations

import logging
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runbooks.clients.neon import Neon
from runbooks.model.dsn import Secret
from runbooks.model.errors import BloomError, LoginRefused, NeonFault, NotFound, UsageFault
from tests.fakes.neon_http import KEY, Exchange, FakeNeon, busy, cut_before, everything_told, gateway_after, gives, says
from tests.fakes.neon_memory import NOON, PASSWORD, PROJECT


@pytest.fixture
def fake() -> Iterator[FakeNeon]:
    with FakeNeon() as fake:
        yield fake


# --- trying again ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [busy, says(429), says(503), says(500), says(502), says(408), cut_before, gateway_after],
    ids=["423", "429", "503", "500", "502", "408", "cut before", "504 after"],
)
def test_a_read_is_tried_again_after_any_passing_trouble(fake: FakeNeon, fault: Any) -> None:
    fake.fail("GET", PROJECT, fault, fault, fault)
    assert fake.neon().project().name == "shop"
    assert len(fake.seen) == 4


def test_an_answer_cut_in_the_middle_is_asked_for_again(fake: FakeNeon) -> None:
    fake.fail("GET", PROJECT, lambda exchange: exchange.half(exchange.happen()[1]))
    assert fake.neon().project().name == "shop"


def test_json_cut_without_a_length_is_asked_for_again(fake: FakeNeon) -> None:
    fake.fail("GET", PROJECT, lambda exchange: exchange.answer(200, b'{"project": {"id": "quiet-la'))
    assert fake.neon().project().name == "shop"


@pytest.mark.parametrize("fault", [busy, says(429), says(503)], ids=["423", "429", "503"])
def test_a_change_that_was_not_executed_is_sent_again(fake: FakeNeon, fault: Any) -> None:
    fake.fail("PATCH", PROJECT, fault, fault)
    fake.neon().set_history_retention(timedelta(days=7))
    assert len(fake.changes()) == 3


@pytest.mark.parametrize("status", [400, 409, 412, 422])
def test_other_refusals_are_final(fake: FakeNeon, status: int) -> None:
    fake.fail("PATCH", PROJECT, says(status, "requested history retention seconds exceeds allowed maximum"))
    with pytest.raises(NeonFault, match="exceeds allowed maximum"):
        fake.neon().set_history_retention(timedelta(days=7))
    assert len(fake.changes()) == 1
    assert fake.clock.slept == []


@pytest.mark.parametrize(
    ("status", "error"), [(401, LoginRefused), (403, LoginRefused), (404, NotFound), (400, NeonFault)]
)
def test_a_refusal_is_final_and_has_its_own_kind(fake: FakeNeon, status: int, error: type[Exception]) -> None:
    fake.fail("GET", PROJECT, says(status, "no"))
    with pytest.raises(error, match=rf"reading the project: Neon answered {status}: no \(request req-1234\)"):
        fake.neon().project()
    assert len(fake.seen) == 1


def test_a_wrong_key_is_a_refused_login(fake: FakeNeon) -> None:
    with pytest.raises(LoginRefused):
        fake.neon(key=Secret("napi_wrong")).project()


def test_pauses_grow_and_stay_within_the_jitter(fake: FakeNeon) -> None:
    fake.fail("GET", PROJECT, *8 * [busy])
    fake.neon().project()
    for pause, full in zip(fake.clock.slept, (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5), strict=True):
        assert full / 2 <= pause <= full


def test_trying_ends_at_the_deadline_and_says_what_was_waited_for(fake: FakeNeon) -> None:
    fake.fail("GET", PROJECT, *99 * [busy])
    with pytest.raises(NeonFault, match=r"gave up after 300 s, still waiting for Neon: .*conflicting.* \(423\)"):
        fake.neon().project()
    assert (fake.clock.time - NOON).total_seconds() == 300


def test_each_pause_tells_what_it_is_for_and_until_when(fake: FakeNeon) -> None:
    fake.fail("GET", PROJECT, says(503, "we are down"))
    fake.neon().project()
    assert fake.progress == ["waiting for Neon: we are down (503) (0 s, until 12:05:00Z)"]


@pytest.mark.parametrize(("wish", "seconds"), [("40", 40), ("Mon, 02 Mar 2026 12:00:50 GMT", 50)])
def test_retry_after_is_honoured_in_seconds_and_as_a_date(fake: FakeNeon, wish: str, seconds: int) -> None:
    fake.fail("GET", PROJECT, says(429, Retry_After=wish))
    fake.neon().project()
    assert fake.clock.slept == [seconds]


@pytest.mark.parametrize("wish", ["soon", "-5", "Mon, 02 Mar 2020 12:00:50 GMT", "1e9"])
def test_a_retry_after_that_makes_no_sense_is_ignored(fake: FakeNeon, wish: str) -> None:
    fake.fail("GET", PROJECT, says(429, Retry_After=wish))
    fake.neon().project()
    assert fake.clock.slept[0] <= 1


def test_a_retry_after_beyond_the_deadline_is_told_at_once(fake: FakeNeon) -> None:
    fake.fail("GET", PROJECT, says(429, "slow down", Retry_After="3600"))
    with pytest.raises(NeonFault, match="asks for 3600 s more"):
        fake.neon().project()
    assert fake.clock.slept == []


def test_a_service_that_cannot_be_reached_is_tried_until_the_deadline_also_for_a_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}/api/v2"
    fake = FakeNeon()
    neon = Neon(api=closed, key=Secret(KEY), project_id=PROJECT, clock=fake.clock.now, sleep=fake.clock.sleep)
    with pytest.raises(NeonFault, match=r"still waiting for Neon: no connection to 127.0.0.1 \(.*refused"):
        neon.set_history_retention(timedelta(days=7))


def test_a_service_that_sends_a_byte_now_and_then_does_not_hold_us_for_ever(fake: FakeNeon) -> None:
    def trickles(exchange: Exchange) -> None:
        exchange.cut()
        exchange.handler.send_response(200)
        exchange.handler.send_header("Content-Length", "1000000")
        exchange.handler.end_headers()
        for _ in range(60):
            fake.clock.pass_by(50)
            try:
                exchange.handler.wfile.write(b" " * 10000)
            except ConnectionError:
                return

    fake.fail("GET", PROJECT, *40 * [trickles])  # however early we hang up on it, it does so again
    with pytest.raises(NeonFault, match="the answer has no end"):
        fake.neon().project()


def test_each_request_has_a_connection_of_its_own(fake: FakeNeon) -> None:
    """A kept connection that the server has closed meanwhile would look like a lost answer."""
    for _ in range(5):
        fake.neon().project()
    assert len({one.port for one in fake.seen}) == 5


# --- answers that cannot be right ------------------------------------------------------------------------------------


def test_a_page_of_html_instead_of_an_answer_is_a_fault(fake: FakeNeon) -> None:
    fake.fail("GET", PROJECT, lambda exchange: exchange.answer(200, b"<html>", {"Content-Type": "text/html"}))
    with pytest.raises(NeonFault, match="answered text/html instead of JSON"):
        fake.neon().project()
    assert len(fake.seen) == 1


def test_a_redirect_is_not_followed(fake: FakeNeon) -> None:
    with FakeNeon() as elsewhere:
        fake.fail("GET", PROJECT, says(302, Location=f"{elsewhere.api}/projects/{PROJECT}"))
        with pytest.raises(NeonFault, match="answered 302"):
            fake.neon().project()
        assert elsewhere.seen == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda project: project.pop("history_retention_seconds"), "project.history_retention_seconds"),
        (lambda project: project.update(history_retention_seconds="86400"), "project.history_retention_seconds"),
        (lambda project: project.update(history_retention_seconds=-1), "project.history_retention_seconds"),
        (lambda project: project.update(pg_version=True), "project.pg_version"),
        (lambda project: project.update(id=None), "project.id"),
        (lambda project: project.update(created_at="yesterday"), "project.created_at"),
        (lambda project: project.update(created_at="2026-03-01T12:00:00"), "project.created_at"),
    ],
)
def test_a_needed_field_that_is_missing_or_wrong_is_named(
    fake: FakeNeon, change: Callable[[dict[str, Any]], Any], named: str
) -> None:
    def altered(body: Any) -> Any:
        change(body["project"])
        return body

    fake.fail("GET", PROJECT, gives(altered))
    with pytest.raises(NeonFault, match=f"Neon's answer is not usable at {named}"):
        fake.neon().project()


@pytest.mark.parametrize("body", [{}, {"projects": []}, {"project": None}, {"project": []}, {"project": "x"}])
def test_an_answer_without_its_record_is_a_fault(fake: FakeNeon, body: Any) -> None:
    fake.fail("GET", PROJECT, gives(lambda _: body))
    with pytest.raises(NeonFault, match=r"Neon's answer (has no project|is not usable at project)"):
        fake.neon().project()


@pytest.mark.parametrize("body", [{}, {"branches": None}, {"branches": {}}, {"branches": [[]]}, {"branches": [{}]}])
def test_an_answer_without_its_list_is_a_fault_and_not_an_empty_list(fake: FakeNeon, body: Any) -> None:
    fake.fail("GET", "/branches", gives(lambda _: body))
    with pytest.raises(NeonFault, match="Neon's answer"):
        fake.neon().branches()


def test_fields_we_do_not_know_are_tolerated(fake: FakeNeon) -> None:
    fake.projects[PROJECT]["new_in_2027"] = {"a": [1, 2]}
    assert fake.neon().project().history_retention == timedelta(days=1)


def test_a_time_to_the_nanosecond_is_read(fake: FakeNeon) -> None:
    fake.projects[PROJECT]["created_at"] = "2026-01-01T00:00:00.123456789Z"
    assert fake.neon().project().created_at.iso() == "2026-01-01T00:00:00.123456Z"


# --- the key ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_key_or_password_that_the_service_echoes_is_not_repeated(fake: FakeNeon, status: int) -> None:
    echo = f"bad Authorization: Bearer {KEY} for\npostgresql://shop_owner:{PASSWORD}@ep-1.example/shop"
    fake.fail("GET", PROJECT, says(status, echo))
    with pytest.raises(BloomError) as caught:
        fake.neon().project()
    assert KEY not in everything_told(caught.value)
    assert PASSWORD not in everything_told(caught.value)
    assert "\n" not in caught.value.happened


def test_the_key_is_in_no_log_progress_or_repr(fake: FakeNeon, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fake.fail("GET", PROJECT, says(503, f"what is {KEY}"), cut_before)
    neon = fake.neon()
    neon.project()
    assert neon.reveal_password(branch_id="br-main-000001", role="shop_owner").reveal() == PASSWORD
    assert caplog.text, "else this test proves nothing"
    for told in (caplog.text, *fake.progress, repr(neon), repr(vars(neon)), repr(fake.account())):
        assert KEY not in told
        assert PASSWORD not in told


@pytest.mark.parametrize("wrong", [{"id": 7, "name": PASSWORD}, {"created_at": PASSWORD}])
def test_a_password_in_a_wrong_answer_is_not_quoted(fake: FakeNeon, wrong: Any) -> None:
    fake.fail("GET", "/branches/.*", gives(lambda body: {"branch": body["branch"] | wrong}))
    with pytest.raises(NeonFault) as caught:
        fake.neon().branch("br-main-000001")
    assert PASSWORD not in everything_told(caught.value)


@pytest.mark.parametrize("key", ["", "napi_1\n", "napi 1", "napi_ü", "napi_\x00"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(fake: FakeNeon, key: str) -> None:
    with pytest.raises(UsageFault) as caught:
        fake.neon(key=Secret(key))
    assert not key or key not in everything_told(caught.value)


@pytest.mark.parametrize(
    "api",
    [
        "http://console.neon.tech/api/v2",
        "http://192.168.0.7/api/v2",
        "http://localhost.example/api/v2",
        "ftp://127.0.0.1/",
        "console.neon.tech/api/v2",
        "https://user:pw@console.neon.tech/api/v2",
        "https://console.neon.tech:port/api/v2",
        "",
    ],
)
def test_an_address_that_would_show_the_key_or_is_none_is_refused(fake: FakeNeon, api: str) -> None:
    with pytest.raises(UsageFault):
        fake.neon(api=api)


@pytest.mark.parametrize("api", ["https://console.neon.tech/api/v2", "http://localhost:1/x", "http://[::1]:1/x"])
def test_tls_and_this_machine_are_accepted(fake: FakeNeon, api: str) -> None:
    fake.neon(api=api)


def test_the_key_does_not_go_through_a_proxy_when_the_service_is_on_this_machine(
    fake: FakeNeon, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeNeon() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.api)
        monkeypatch.setenv("ALL_PROXY", proxy.api)
        assert fake.neon().project().name == "shop"
        assert proxy.seen == []


@pytest.mark.parametrize("project_id", ["", "..", "."])
def test_a_missing_id_is_refused_before_any_request(fake: FakeNeon, project_id: str) -> None:
    with pytest.raises(UsageFault):
        fake.neon(project_id=project_id).project()
    assert fake.seen == []


def test_a_role_with_odd_letters_stays_one_part_of_the_path(fake: FakeNeon) -> None:
    fake.passwords["br-main-000001", "odd/role ?#%ü"] = "its-pw"
    assert fake.neon().reveal_password(branch_id="br-main-000001", role="odd/role ?#%ü").reveal() == "its-pw"


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def untrusted(tmp_path: Path) -> Iterator[str]:
    """The address of a server whose certificate nobody has signed."""
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "crt")]
    try:
        subprocess.run(["openssl", *request.split(), *names], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl on this machine to make a certificate with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")

    def greet(server: socket.socket) -> None:
        try:
            with context.wrap_socket(server.accept()[0], server_side=True):
                pass
        except OSError:
            pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        thread = threading.Thread(target=greet, args=(server,))
        thread.start()
        yield f"https://localhost:{server.getsockname()[1]}/api/v2"
        thread.join()


def test_a_certificate_that_is_not_valid_is_final(fake: FakeNeon, untrusted: str) -> None:
    with pytest.raises(NeonFault, match=r"the certificate of localhost is not valid: self.signed"):
        fake.neon(api=untrusted).project()
    assert fake.clock.slept == []


def test_the_http_library_is_not_loaded_before_a_client_is_made() -> None:
    """A list of tasks is typed under stress: the client's modules must not load the HTTP library."""
    code = "import runbooks.clients.neon, runbooks.clients.neon_account, sys; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
