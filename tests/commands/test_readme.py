"""What README.md tells a newcomer to type works as it stands there."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from runbooks.sandbox import daemon
from tests.commands.operator import CODES, ROOT, Operator
from tests.stack import stack_root


def block(heading: str) -> list[str]:
    """The command lines of the console block below a heading, without their comments."""
    text = (ROOT / "README.md").read_text()
    found = re.search(rf"^## {re.escape(heading)}\n.*?^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found
    return [line.removeprefix("$ ").split("  #")[0].strip() for line in found[1].splitlines()]


@pytest.mark.long
def test_the_way_by_hand_leads_to_a_preview_and_its_command_to_the_rows(tmp_path: Path) -> None:
    lines = block("Try it by hand, without an account")
    by_hand = "invoke sandbox.psql"
    assert lines[0].endswith("activate")
    assert by_hand in lines
    with stack_root() as root:
        newcomer = Operator(root, tmp_path / "runs")
        try:
            up_to_seed, moment, accident = lines[1:3], lines[3], "delete from clients where id = 7"
            for line in up_to_seed:
                assert newcomer.paste(line).code == 0
            time.sleep(1.1)  # a person needs longer; the moment has whole seconds
            said = newcomer.paste(f"{moment}; sleep 1; echo '{accident}' | {lines[4]} >&2; {lines[5]}")
            assert said.code == CODES["ConsentNeeded"], said
            assert newcomer.paste(said.pasted).code in (0, CODES["Incomplete"])
            assert newcomer.sql("select id from clients where id = 7") == [(7,)]
            taken, verified, restored, down = lines[6:]
            assert newcomer.paste(taken).code == 0
            assert newcomer.paste(verified).code == 0
            said = newcomer.paste(restored)
            assert said.code == CODES["ConsentNeeded"], said
            assert newcomer.paste(said.pasted).code == 0
            assert newcomer.paste(down).code == 0
            assert daemon.status(root).running is None
        finally:
            daemon.down(root)


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "runbooks").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists_with_its_flags(page: Path) -> None:
    import tasks

    for name, rest in re.findall(r"invoke (?:--dry )?([a-z]+\.[a-z-]+)([^\n`|#]*)", page.read_text()):
        assert name in tasks.namespace.task_names, name
        flags = {alias for argument in tasks.namespace[name].get_arguments() for alias in argument.names}
        assert set(re.findall(r"--([a-z][a-z-]*)", rest)) <= {flag.replace("_", "-") for flag in flags}, name + rest
