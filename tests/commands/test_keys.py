"""`backup.keys` as it is typed."""

from __future__ import annotations

from pathlib import Path

from tests.commands.operator import Operator


def test_the_sandbox_opens_what_it_backs_up(operator: Operator) -> None:
    taken = operator.json("backup.take", "--tier", "daily")
    answer = operator.json("backup.keys")
    assert answer["verdict"] == "passed"
    assert answer["newest"]["id"] == answer["tried"]["id"] == dict(taken["facts"])["backup"]
    (key,) = answer["policy"]
    assert key["private_key_here"]
    assert f"{key['fingerprint']}  of the policy" in operator.invoke("backup.keys").out


def test_a_pair_is_made_before_there_is_a_policy_and_its_private_half_is_told_nowhere(
    stranger: Operator, tmp_path: Path
) -> None:
    path = tmp_path / "restorer.key"
    lost = stranger.having(BLOOM_DR_POLICY=str(tmp_path / "not-there.toml"))
    said = lost.invoke("backup.keys", "--new", str(path))
    assert said.code == 0, said
    assert path.read_text().splitlines()[-1] not in said.out + said.err
    assert "AGE-SECRET-KEY" not in said.out + said.err
    again = lost.invoke("backup.keys", "--new", str(path))
    again.stopped("Refused", "is there already")
