"""Where AWS Lambda comes in."""

from __future__ import annotations

import os
from typing import Any

import boto3  # type: ignore[import-untyped]

from .turn import Turn
from .versions import Versions

ADMIN, GROUP = "ADMIN_SECRET", "ROLE_GROUP"
"""The function's variables: the ARN of the admin's secret, and the SQL group."""


def rotate(event: dict[str, Any], context: object) -> None:
    """One step, as Secrets Manager asks for it. Whatever fails is raised, and counts as an error of the function."""
    versions = Versions(boto3.client("secretsmanager"), event["SecretId"], event["ClientRequestToken"])
    Turn(versions, os.environ[ADMIN], os.environ[GROUP]).take(event["Step"])
