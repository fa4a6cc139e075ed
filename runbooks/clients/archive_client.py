"""The boto3 client behind the archive: how it signs, waits and checks, all of it said and none left to defaults."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]

from runbooks.model.errors import UsageFault
from runbooks.model.secret import Secret

CONNECT_SECONDS = 10
SILENCE_SECONDS = 60
"""The longest wait for the next piece of an answer."""


def open_client(
    *,
    region: str,
    endpoint: str | None = None,
    access_key: str | None = None,
    secret_key: Secret | None = None,
    silence: float = SILENCE_SECONDS,
    connections: int = 16,
) -> Any:
    """A new client with fresh credentials: the given ones, else whatever the usual AWS chain finds now.

    It sends a request once: the archive repeats, because only it knows which calls may be. Checksums are the archive's
    own headers; the ones boto3 adds by itself travel in the body's framing, which some stores keep as content.
    """
    if endpoint is not None:
        check_endpoint(endpoint)
    settings = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=silence,
        retries={"total_max_attempts": 1, "mode": "standard"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        max_pool_connections=connections,
        signature_version="s3v4",
        s3={"addressing_style": "path" if endpoint else "auto"},
        # A proxy from the environment has no business between us and this machine.
        **({"proxies": {}} if endpoint and is_loopback(endpoint) else {}),
    )
    # A session of its own: the default one keeps the credentials it once found.
    return boto3.session.Session().client(
        "s3",
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key.reveal() if secret_key else None,
        config=settings,
    )


def check_endpoint(endpoint: str) -> None:
    """UsageFault unless TLS, or this machine, protects what goes there."""
    parts = urlsplit(endpoint)
    plain = parts.scheme in ("http", "https") and parts.hostname and not (parts.username or parts.query)
    if plain and (parts.scheme == "https" or is_loopback(endpoint)):
        return
    raise UsageFault(
        "the endpoint of the archive is not a plain https address (http is for this machine only)",
        safe="no request was sent",
        next_step="set [backup] endpoint in the policy to the https address of the S3 service, or leave it out for AWS",
    )


def is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
