"""The environment variables that a backup run needs, by name: a scheduler brings none by itself (C16).

Private keys are not among them: who takes backups needs none.
"""

from __future__ import annotations

from collections.abc import Mapping

from runbooks.model.policy import Environment


def needed(environment: Environment) -> tuple[str, ...]:
    """Those that have to be set, and hold secrets.

    AWS credentials are not among them: a machine's role is as good as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    """
    return () if environment.sandbox else (environment.api_key_env,)


def missing(environ: Mapping[str, str], environment: Environment) -> tuple[str, ...]:
    """Those without which no run can succeed, and that are not set; or empty, as GitHub passes a lacking secret. Pure.

    Of AWS credentials that is the other half where one half is set: AWS's libraries then look no further.
    """
    wanted = [*needed(environment)]
    if not environment.sandbox:
        if environ.get("AWS_ACCESS_KEY_ID"):
            wanted.append("AWS_SECRET_ACCESS_KEY")
        elif environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
            wanted.append("AWS_ROLE_ARN")
    return tuple(name for name in wanted if not environ.get(name, "").strip())
