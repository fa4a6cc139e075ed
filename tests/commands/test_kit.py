"""`backup.kit` as a command: a kit of the sandbox's newest backup, or a refusal that says why."""

from __future__ import annotations

import stat
from pathlib import Path

from tests.commands.operator import Operator


def test_a_kit_is_made_of_the_newest_backup_and_answers_with_its_facts(operator: Operator, tmp_path: Path) -> None:
    taken = operator.json("backup.take", "--tier", "daily")["results"]["take"]["id"]
    made = operator.json("backup.kit", "--out", str(tmp_path / "kit"))
    assert made["facts"]["example"]["id"] == taken
    assert made["files"] == ["RESTORE.md", "decrypt.py", "decrypt.sh"]
    assert sorted(path.name for path in (tmp_path / "kit").iterdir()) == made["files"]
    assert stat.S_IMODE((tmp_path / "kit").stat().st_mode) == 0o700
    text = (tmp_path / "kit" / "RESTORE.md").read_text()
    assert f"BACKUP={taken}" in text
    assert made["facts"]["contacts"], "the policy names whom to call"
    for contact in made["facts"]["contacts"]:
        assert f"{contact['name']}, {contact['how']} ({contact['role']})" in text
    said = operator.invoke("backup.kit", "--out", str(tmp_path / "kit"))
    said.stopped("Refused", "is not empty", "invoke backup.kit --out DIR")


def test_without_a_folder_nothing_is_read(stranger: Operator) -> None:
    stranger.invoke("backup.kit").stopped("UsageFault", "no folder was named")


def test_without_a_sandbox_it_says_how_to_get_one(stranger: Operator, tmp_path: Path) -> None:
    said = stranger.invoke("backup.kit", "--out", str(tmp_path / "kit"))
    said.stopped("SandboxFault", "invoke sandbox.up")
    assert not (tmp_path / "kit").exists()
