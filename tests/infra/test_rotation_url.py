"""How the rotation reads and writes connection URLs, and that it logs in nowhere without encryption."""

from __future__ import annotations

import datetime
import socket
import ssl
import string
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from infra.rotation import login, roles
from infra.rotation.fault import RotationFault
from infra.rotation.url import Url
from runbooks.model.dsn import Dsn
from runbooks.sandbox.stack import Stack
from tests.infra.rotation_ground import make_group

PRINTABLE = "".join(sorted(set(string.printable) - set("\t\n\r\x0b\x0c")))
HOST = "ep-quiet-lake-123456-pooler.c-2.us-east-1.aws.neon.tech"
NEON = f"postgresql://app:old@{HOST}/neondb?sslmode=require&channel_binding=require"
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)


@given(user=TEXT, password=TEXT)
def test_any_login_comes_back_from_a_url_as_it_went_in(user: str, password: str) -> None:
    written = Url.parse(NEON).as_role(user, password).text()
    again = Url.parse(written)
    assert (again.user, again.password) == (user, password)
    assert again.rest == NEON.partition("@")[2], "the rest is what somebody wrote, to the last character"
    ours = Dsn.parse(written)
    assert ours.password is not None
    assert (ours.user, ours.password.reveal(), ours.host) == (user, password, HOST)
    libpq = conninfo_to_dict(written)
    assert (libpq["user"], libpq["password"], libpq["host"], libpq["dbname"]) == (user, password, HOST, "neondb")


def test_every_printable_character_in_a_password_logs_in(shared_stack: Stack) -> None:
    owner = Url.parse(shared_stack.uri().reveal())
    make_group(owner.text(), "printable")
    roles.give(owner, "printable", "printable_a", PRINTABLE)
    roles.check(owner.as_role("printable_a", PRINTABLE), "printable")
    with pytest.raises(RotationFault, match="password authentication failed"):
        roles.check(owner.as_role("printable_a", PRINTABLE[1:]), "printable")


@pytest.mark.parametrize("text", [
    "postgresql://u:p@h:5432/d", "postgres://u:p@h/d", "postgresql://u%40x:p%2F@h/my%20d?a=b&options=x%3Dy%20z",
    "postgresql://u:p@ep-a.sandbox.localhost:20992/d?hostaddr=127.0.0.1&sslmode=disable",
])  # fmt: skip
def test_a_url_is_read_as_libpq_reads_it(text: str) -> None:
    found, libpq = Url.parse(text), conninfo_to_dict(text.replace("a=b&", ""))
    assert (found.user, found.password, found.host, found.database) == (
        libpq["user"], libpq["password"], libpq["host"], libpq["dbname"],
    )  # fmt: skip
    assert found.port == int(libpq.get("port") or 5432)
    assert {name: each for name, each in found.options.items() if name != "a"}.items() <= libpq.items()
    assert found.text() == text


@pytest.mark.parametrize("text", [
    "", "planted", "mysql://u:planted@h/d", "postgresql://h/d", "postgresql://u:planted@h", "postgresql://u:planted@h/",
    "postgresql://u:plan/ted@h/d", "postgresql://u:plan@ted@h/d", "postgresql://u:planted@a,b/d",
    "user=u password=planted", "postgresql://u:planted@h:port/d",
])  # fmt: skip
def test_what_is_no_url_with_one_host_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(RotationFault, match="what should be a connection URL") as caught:
        Url.parse(text)
    assert "plan" not in str(caught.value)


def test_a_url_that_is_shown_hides_its_password() -> None:
    assert str(Url.parse(NEON)) == repr(Url.parse(NEON)) == f"Url(app:***@{HOST})"


# --- encryption


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        ("db.example/d?sslmode=disable", "cross a network unencrypted"),
        ("localhost/d?sslmode=disable", "cross a network unencrypted"),
        ("db.example/d?sslmode=disable&hostaddr=192.0.2.1", "cross a network unencrypted"),
        ("db.example/d?sslmode=disable&hostaddr=localhost.example", "cross a network unencrypted"),
        ("db.example/d?sslmode=require&hostaddr=127.0.0.1", "for the sandbox only"),
        ("db.example/d?hostaddr=127.0.0.1", "for the sandbox only"),
    ],
)
def test_only_the_sandbox_is_reached_without_encryption(rest: str, told: str) -> None:
    with pytest.raises(RotationFault, match=told):
        roles.check(Url.parse(f"postgresql://u:p@{rest}"), "group")


@pytest.mark.parametrize("options", ["", "?sslmode=prefer", "?sslmode=allow", "?sslmode=require"])
def test_a_server_without_encryption_gets_no_password(shared_stack: Stack, options: str) -> None:
    port = Url.parse(shared_stack.uri().reveal()).port
    with pytest.raises(RotationFault, match=r"logging in failed as u at localhost: .*SSL"):
        roles.check(Url.parse(f"postgresql://u:p@localhost:{port}/d{options}"), "group")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pg8000 leaves its socket open
def test_a_server_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(RotationFault, match="timed out"):
            roles.check(Url.parse(f"postgresql://u:p@localhost:{port}/d"), "group")


@contextmanager
def encrypting(folder: Path, name: str) -> Iterator[tuple[int, list[bytes]]]:
    """A server that agrees to TLS and shows a certificate for `name`; what it hears afterwards."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = folder / "server.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context, heard = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), []
    context.load_cert_chain(pem)

    def answer(listening: socket.socket) -> None:
        client, _ = listening.accept()
        with client, suppress(OSError):
            client.recv(8)
            client.sendall(b"S")
            with context.wrap_socket(client, server_side=True) as safe:
                heard.append(safe.recv(4096))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        answering = threading.Thread(target=answer, args=(listening,))
        answering.start()
        yield listening.getsockname()[1], heard
        answering.join()


@pytest.mark.parametrize(
    ("name", "known", "told"),
    [("localhost", False, "self-signed"), ("elsewhere.example", True, "Hostname mismatch")],
)
def test_a_server_that_cannot_prove_who_it_is_gets_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, known: bool, told: str
) -> None:
    with encrypting(tmp_path, name) as (port, heard):
        if known:
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
        with pytest.raises(RotationFault, match=told):
            roles.check(Url.parse(f"postgresql://u:planted@localhost:{port}/d?sslmode=require"), "group")
    assert heard == []


def test_a_server_that_proves_who_it_is_is_spoken_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with encrypting(tmp_path, "localhost") as (port, heard):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
        with pytest.raises(RotationFault):  # it says nothing more
            roles.check(Url.parse(f"postgresql://u:p@localhost:{port}/d?sslmode=require"), "group")
    assert b"bloom-dr rotation" in heard[0]
