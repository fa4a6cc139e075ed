"""Logging in to PostgreSQL, encrypted and with the server's certificate checked."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pg8000.exceptions import DatabaseError, Error  # type: ignore[import-untyped]
from pg8000.native import Connection  # type: ignore[import-untyped]

from .fault import RotationFault
from .url import Url

SECONDS = 30
"""For the first answer as for every other one: a sleeping compute of Neon has to wake up."""


@contextmanager
def session(url: Url, doing: str) -> Iterator[Connection]:
    """A session, ended with the block. RotationFault if that cannot log in, or if the server or the connection fails
    within: it names `doing`, the role and the host, and no secret."""
    address, context = _way(url)
    connection = None
    try:
        connection = Connection(
            url.user,
            password=url.password,
            host=address,
            port=url.port,
            database=url.database,
            timeout=SECONDS,
            ssl_context=context,
            application_name="bloom-dr rotation",
        )
        yield connection
    except (Error, OSError) as error:
        raise RotationFault(f"{doing} failed as {url.user} at {url.host}: {_said(error)}") from None
    finally:
        if connection is not None:
            with suppress(Error, OSError):  # of a connection that is gone already
                connection.close()


def _way(url: Url) -> tuple[str, ssl.SSLContext | bool]:
    """The address, and how it is encrypted. Not at all only within this machine: there the sandbox has its servers, and
    says so by sslmode=disable and hostaddr."""
    address = url.options.get("hostaddr")
    if url.options.get("sslmode") != "disable":
        if address is not None:
            raise RotationFault(f"the URL of {url.host} has a hostaddr, which is for the sandbox only")
        return url.host, ssl.create_default_context()
    if address is None or not _is_this_machine(address):
        raise RotationFault(
            f"the URL of {url.host} says sslmode=disable: the password would cross a network unencrypted"
        )
    return address, False


def _is_this_machine(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _said(error: Exception) -> str:
    """Not the statement, and not the place within it, which the server also sends."""
    if isinstance(error, DatabaseError) and error.args and isinstance(error.args[0], dict):
        fields = error.args[0]
        return f"{fields.get('M', 'no message')} (SQLSTATE {fields.get('C', 'unknown')})"
    return str(error)
