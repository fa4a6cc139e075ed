"""C16: what a run needs from its environment, and what of it is not there."""

from __future__ import annotations

from datetime import timedelta

import pytest

from runbooks.model.policy import NeonEnvironment, SandboxEnvironment
from runbooks.model.variables import missing, needed

NEON = NeonEnvironment(
    project="quiet-lake-12345678", database="neondb", role="owner", api_key_env="BLOOM_NEON_KEY",
    promised_window=timedelta(days=1),
)  # fmt: skip
KEY = {"BLOOM_NEON_KEY": "napi_x"}


def test_an_environment_at_neon_needs_the_variable_that_its_policy_names() -> None:
    assert needed(NEON) == ("BLOOM_NEON_KEY",)


def test_the_sandbox_needs_nothing() -> None:
    sandbox = SandboxEnvironment(sandbox=True)
    assert needed(sandbox) == ()
    assert missing({"AWS_ACCESS_KEY_ID": "left over"}, sandbox) == ()


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, ("BLOOM_NEON_KEY",)),
        ({"NEON_API_KEY": "napi_x"}, ("BLOOM_NEON_KEY",)),
        ({"BLOOM_NEON_KEY": ""}, ("BLOOM_NEON_KEY",)),
        ({"BLOOM_NEON_KEY": " \n"}, ("BLOOM_NEON_KEY",)),
        (KEY, ()),
        (KEY | {"AWS_ACCESS_KEY_ID": "AKIA"}, ("AWS_SECRET_ACCESS_KEY",)),
        (KEY | {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s"}, ()),
        (KEY | {"AWS_SECRET_ACCESS_KEY": "s"}, ()),  # AWS's chain goes on to the machine's role
        (KEY | {"AWS_WEB_IDENTITY_TOKEN_FILE": "/t"}, ("AWS_ROLE_ARN",)),
        (KEY | {"AWS_WEB_IDENTITY_TOKEN_FILE": "/t", "AWS_ROLE_ARN": "arn"}, ()),
        ({"AWS_ACCESS_KEY_ID": "AKIA"}, ("BLOOM_NEON_KEY", "AWS_SECRET_ACCESS_KEY")),
    ],
)
def test_c16_what_is_not_set_is_named(environ: dict[str, str], names: tuple[str, ...]) -> None:
    assert missing(environ, NEON) == names
