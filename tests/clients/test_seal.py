"""What is sealed opens with the right key, whole, and with nothing else."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.clients.seal import KeyPair, Method, Opener, Sealer
from runbooks.model.errors import ArchiveFault, LocalFault, LoginRefused, NotFound, PolicyFault, UsageFault
from runbooks.model.secret import Secret
from tests.foreign import foreign

METHODS: tuple[Method, ...] = ("age", "gpg")
_PAIRS = {(method, number): KeyPair.new(method, name=f"test {number}") for method in METHODS for number in (1, 2)}


@pytest.fixture(params=METHODS)
def pair(request: pytest.FixtureRequest) -> KeyPair:
    return _PAIRS[request.param, 1]


@pytest.fixture
def other(pair: KeyPair) -> KeyPair:
    return _PAIRS[pair.method, 2]


def seal(sealer: Sealer, content: bytes) -> bytes:
    sink = io.BytesIO()
    passed = sealer.seal(io.BytesIO(content), sink)
    assert (passed.size_in, passed.sha256_in) == (len(content), hashlib.sha256(content).hexdigest())
    sealed = sink.getvalue()
    assert (passed.size_out, passed.sha256_out) == (len(sealed), hashlib.sha256(sealed).hexdigest())
    return sealed


def unseal(opener: Opener, sealed: bytes) -> bytes:
    sink = io.BytesIO()
    passed = opener.unseal(io.BytesIO(sealed), sink)
    assert (passed.size_out, passed.sha256_out) == (len(sink.getvalue()), hashlib.sha256(sink.getvalue()).hexdigest())
    return sink.getvalue()


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 3_000_000])
def test_what_is_sealed_opens_again(pair: KeyPair, size: int) -> None:
    content = os.urandom(size)
    sealed = seal(pair.sealer(), content)
    assert content not in sealed or size < 2
    assert unseal(pair.opener(), sealed) == content


@given(st.binary(max_size=200_000))
def test_any_content_opens_again(content: bytes) -> None:
    pair = _PAIRS["age", 1]
    assert unseal(pair.opener(), seal(pair.sealer(), content)) == content


def test_every_recipient_opens_it_and_nobody_else_c17(pair: KeyPair, other: KeyPair) -> None:
    both = Sealer.to(pair.method, [pair.recipient, other.recipient])
    sealed = seal(both, b"for both")
    assert unseal(pair.opener(), sealed) == unseal(other.opener(), sealed) == b"for both"
    assert both.fingerprints == pair.opener().fingerprints + other.opener().fingerprints
    with pytest.raises(LoginRefused, match="no private key given fits") as refused:
        unseal(other.opener(), seal(pair.sealer(), b"for one"))
    assert other.opener().fingerprints[0] in refused.value.happened


def test_one_of_several_keys_is_enough(pair: KeyPair, other: KeyPair) -> None:
    ring = Opener.having(pair.method, [other.secret, pair.secret])
    assert unseal(ring, seal(pair.sealer(), b"x")) == b"x"


@pytest.mark.parametrize("cut", [1, 16, 100, 70_000])
def test_a_cut_file_is_damaged(pair: KeyPair, cut: int) -> None:
    sealed = seal(pair.sealer(), os.urandom(150_000))
    with pytest.raises(ArchiveFault, match="cut, damaged"):
        unseal(pair.opener(), sealed[:-cut])


@pytest.mark.parametrize("left", [0, 3, 80])
def test_of_a_file_cut_near_its_beginning_nothing_is_made(pair: KeyPair, left: int) -> None:
    sealed = seal(pair.sealer(), os.urandom(150_000))
    with pytest.raises((ArchiveFault, LoginRefused)):
        unseal(pair.opener(), sealed[:left])


@pytest.mark.parametrize("at", [0.3, 0.6, 0.9, 0.9999])
def test_a_flipped_bit_is_damage(pair: KeyPair, at: float) -> None:
    sealed = bytearray(seal(pair.sealer(), os.urandom(150_000)))
    sealed[int(len(sealed) * at)] ^= 1
    with pytest.raises(ArchiveFault, match="cut, damaged"):
        unseal(pair.opener(), bytes(sealed))


def test_what_was_never_sealed_is_not_opened(pair: KeyPair) -> None:
    for content in (b"PGDMP plain", b"\x1f\x8b\x08" + bytes(100), b"age-encryption.org/v1\n"):
        with pytest.raises(ArchiveFault):
            unseal(pair.opener(), content)


def test_text_that_is_signed_or_plain_openpgp_is_not_taken_for_sealed() -> None:
    literal = b"\xcb\x0bb\x00\x00\x00\x00\x00hello"
    with pytest.raises(ArchiveFault):
        unseal(_PAIRS["gpg", 1].opener(), literal)


class Failing(io.RawIOBase):
    """A file that ends in an error after `good` bytes."""

    def __init__(self, good: int, error: Exception) -> None:
        self._left, self._error = good, error

    def read(self, size: int | None = -1, /) -> bytes:
        if self._left <= 0:
            raise self._error
        block = bytes(min(self._left, size if size and size > 0 else self._left))
        self._left -= len(block)
        return block

    def write(self, block: Any, /) -> int:
        self._left -= len(block)
        if self._left <= 0:
            raise self._error
        return len(block)


@pytest.mark.parametrize("good", [0, 100_000, 3_000_000])
def test_a_full_disk_is_named_and_a_source_that_fails_is_no_end(pair: KeyPair, good: int) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(LocalFault, match="No space left"):
        pair.sealer().seal(io.BytesIO(bytes(6_000_000)), Failing(good, full))
    begun = io.BytesIO()
    with pytest.raises(LocalFault, match="No space left"):
        pair.sealer().seal(cast(Any, Failing(good, full)), begun)
    with pytest.raises((ArchiveFault, LoginRefused)):  # no end was put to it
        unseal(pair.opener(), begun.getvalue())
    sealed = seal(pair.sealer(), bytes(6_000_000))
    with pytest.raises(LocalFault, match="No space left"):
        pair.opener().unseal(io.BytesIO(sealed), Failing(good, full))
    gone = NotFound("the object is gone", safe="nothing", next_step="list it")
    with pytest.raises(NotFound):
        pair.opener().unseal(cast(Any, Failing(1000, gone)), io.BytesIO())


@pytest.mark.parametrize("recipients", [[], ["age1nonsense"], [""], ["ssh-ed25519 AAAA"]])
def test_a_recipient_that_is_none_is_refused_before_anything(recipients: list[str]) -> None:
    for method in METHODS:
        with pytest.raises(PolicyFault):
            Sealer.to(method, recipients)


def test_a_private_key_is_no_recipient_and_is_not_shown(pair: KeyPair) -> None:
    with pytest.raises(PolicyFault) as refused:
        Sealer.to(pair.method, [pair.secret.reveal()])
    middle = pair.secret.reveal()[len(pair.secret.reveal()) // 2 :][:30]
    assert middle not in repr(refused.value) + str(refused.value.__cause__)


def test_a_key_for_signing_only_is_refused_when_it_is_named() -> None:
    from runbooks.clients import seal_gpg

    with seal_gpg.home() as home:
        home.run("--passphrase", "", "--quick-gen-key", "signs only", "ed25519", "sign", "never")
        public, _ = home.run("--armor", "--export")
    with pytest.raises(PolicyFault, match="nothing can be sealed to"):
        Sealer.to("gpg", [public.decode()])


def test_a_private_key_that_cannot_be_read_is_refused_and_not_shown() -> None:
    for method in METHODS:
        for text in ("", "AGE-SECRET-KEY-1PLANTED", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nPLANTED\n"):
            with pytest.raises(UsageFault) as refused:
                Opener.having(method, [Secret(text)])
            assert "PLANTED" not in repr(refused.value) + str(refused.value.__cause__)
        with pytest.raises(UsageFault):
            Opener.having(method, [])


def test_a_key_file_with_comments_is_read() -> None:
    pair = _PAIRS["age", 1]
    text = f"# created: 2025-12-03T02:00:00Z\n# public key: {pair.recipient}\n{pair.secret.reveal()}\n\n"
    assert Opener.having("age", [Secret(text)]).fingerprints == (pair.recipient,)


@pytest.fixture(scope="module")
def guarded() -> tuple[str, Secret]:
    """A gpg key with a passphrase."""
    from runbooks.clients import seal_gpg

    with seal_gpg.home() as home:
        home.run("--passphrase", "open sesame", "--quick-gen-key", "guarded", "future-default", "default", "never")
        public, _ = home.run("--armor", "--export")
        private, _ = home.run("--passphrase", "open sesame", "--armor", "--export-secret-keys")
    return public.decode(), Secret(private.decode())


def test_a_passphrase_opens_a_guarded_key_and_a_wrong_one_is_said_so(guarded: tuple[str, Secret]) -> None:
    public, private = guarded
    sealed = seal(Sealer.to("gpg", [public]), b"guarded")
    assert unseal(Opener.having("gpg", [private], passphrase=Secret("open sesame")), sealed) == b"guarded"
    for wrong in (Secret("open barley"), None):
        with pytest.raises(LoginRefused, match="passphrase"):
            unseal(Opener.having("gpg", [private], passphrase=wrong), sealed)


def test_the_users_own_keyring_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GNUPGHOME", str(tmp_path / ".gnupg"))
    before = set(Path("/tmp").glob("bloom-gpg-*"))
    pair = KeyPair.new("gpg", name="elsewhere")
    assert unseal(pair.opener(), seal(pair.sealer(), b"x")) == b"x"
    assert list(tmp_path.iterdir()) == []
    assert set(Path("/tmp").glob("bloom-gpg-*")) <= before


def test_no_secret_is_shown_by_any_repr(pair: KeyPair) -> None:
    shown = repr(pair) + repr(pair.opener()) + str(pair.opener())
    assert pair.secret.reveal()[:40] not in shown
    assert "AGE-SECRET" not in shown


def test_stock_gpg_opens_what_we_sealed_and_we_open_what_it_sealed(tmp_path: Path) -> None:
    gpg = foreign("gpg")
    pair = _PAIRS["gpg", 1]
    for name, text in (("pub", pair.recipient), ("sec", pair.secret.reveal())):
        (tmp_path / name).write_text(text)
    home = tmp_path / "h"
    home.mkdir(mode=0o700)
    stock = [gpg, "--homedir", str(home), "--batch", "--no-tty"]
    subprocess.run([*stock, "--import", str(tmp_path / "sec")], check=True, capture_output=True)
    try:
        ours = seal(pair.sealer(), b"by us")
        done = subprocess.run([*stock, "--decrypt"], input=ours, check=True, capture_output=True)
        assert done.stdout == b"by us"
        theirs = subprocess.run(
            [*stock, "--recipient-file", str(tmp_path / "pub"), "--encrypt"],
            input=b"by gpg", check=True, capture_output=True,
        )  # fmt: skip
        assert unseal(pair.opener(), theirs.stdout) == b"by gpg"
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_memory_does_not_grow_with_the_stream(method: Method) -> None:
    code = (
        "import pathlib, sys\n"
        "from runbooks.clients.seal import KeyPair\n"
        "class Zeros:\n"
        "    left = 500 << 20\n"
        "    def read(self, size=-1):\n"
        "        size = min(size, self.left); self.left -= size; return bytes(size)\n"
        "class Count:\n"
        "    size = 0\n"
        "    def write(self, block): self.size += len(block)\n"
        "    def flush(self): pass\n"
        "KeyPair.new(sys.argv[1]).sealer().seal(Zeros(), Count())\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(int(status.split('VmHWM:')[1].split()[0]) // 1024)\n"  # ru_maxrss would count our own, before the exec
    )
    done = subprocess.run([sys.executable, "-c", code, method], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 150
