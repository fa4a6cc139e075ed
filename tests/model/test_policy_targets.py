"""Restore targets are named in the policy by a variable; a connection string in the file is refused, unquoted."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbooks.model.errors import PolicyFault
from runbooks.model.policy import Policy
from tests.model.test_policy import SMALLEST

URL = "postgresql://shop:geheim@db.example.com/shop"


def load(tmp_path: Path, text: str) -> Policy:
    (tmp_path / "policy.toml").write_text(SMALLEST + text)
    return Policy.load(tmp_path / "policy.toml")


def test_a_target_is_found_in_the_variable_that_the_policy_names(tmp_path: Path) -> None:
    policy = load(tmp_path, '[targets.rds]\nurl_env = "RDS_URL"\n')
    assert policy.targets["rds"].url({"RDS_URL": f" {URL}\n"}) == URL


@pytest.mark.parametrize("environ", [{}, {"RDS_URL": ""}, {"RDS_URL": " "}])
def test_a_variable_that_is_not_set_is_named(tmp_path: Path, environ: dict[str, str]) -> None:
    policy = load(tmp_path, '[targets.rds]\nurl_env = "RDS_URL"\n')
    with pytest.raises(PolicyFault, match="RDS_URL"):
        policy.targets["rds"].url(environ)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (f'url_env = "{URL}"', "is a connection string"),
        ('url_env = "host=db.example.com password=geheim"', "is a connection string"),
        ('url_env = "2RDS"', "is not the name of an environment variable"),
        ('url = "RDS_URL"', "did you mean 'url_env'"),
    ],
)
def test_what_is_no_name_of_a_variable_is_refused_and_never_quoted(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(PolicyFault, match=told) as refused:
        load(tmp_path, f"[targets.rds]\n{line}\n")
    assert "targets.rds.url" in refused.value.happened
    assert "geheim" not in str(refused.value)


def test_a_team_that_names_no_targets_has_none(tmp_path: Path) -> None:
    assert load(tmp_path, "").targets == {}
