"""Who may import whom, which words are taken, and what every error has to say."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runbooks import registry
from runbooks.engine.step import AnyRunbook, Effect
from runbooks.model.errors import BloomError, every_error

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "model": {"model"},
    "engine": {"engine", "model"},
    "clients": {"clients", "model"},
    "rows": {"rows", "clients", "model"},
    "backups": {"backups", "clients", "model", "sandbox"},
    "report": {"report", "rows", "backups", "clients", "engine", "model"},
    "sandbox": {"sandbox", "clients", "model"},
    "cli": {"cli", "", "backups", "clients", "engine", "model", "report", "sandbox"},
    "past": {"past", "engine", "clients", "rows", "backups", "model", "sandbox"},
    "drills": {"drills", "", "engine", "clients", "backups", "report", "model", "sandbox"},
    "": {"", "drills", "past", "engine", "clients", "rows", "backups", "report", "model", "sandbox"},
}
"""Folder below runbooks/ ("" for the runbooks themselves) to what its modules may import from runbooks."""

SOURCES = sorted((ROOT / "runbooks").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names below `runbooks` (or infra, tasks) that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {
        name for name in found if name.split(".")[0] in ("runbooks", "infra", "neon_posture", "tasks", "tests", "bench")
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_in_one_direction(path: Path) -> None:
    parts = path.relative_to(ROOT / "runbooks").parts
    folder = parts[0] if len(parts) > 1 else ""
    for name in imports(path):
        top, *rest = name.split(".")
        assert top == "runbooks", f"{path.name} imports {name}"
        if not rest:
            continue
        package = rest[0] if (ROOT / "runbooks" / rest[0]).is_dir() else ""
        allowed = MAY_IMPORT[folder]
        assert package in allowed, f"{folder or 'a runbook'} imports {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "infra").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_infra_sees_the_model_only(path: Path) -> None:
    for name in imports(path):
        assert name.startswith(("infra", "runbooks.model", "neon_posture")), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "neon_posture").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_neon_provider_stands_between_pulumi_and_our_client(path: Path) -> None:
    for name in imports(path):
        assert name.startswith(("neon_posture", "runbooks.clients", "runbooks.model")), f"{path.name} imports {name}"


def test_every_module_beside_the_registry_is_one_registered_runbook() -> None:
    modules = {p.stem for p in (ROOT / "runbooks").glob("*.py")} - {"__init__", "registry"}
    owners = {inspect.getmodule(book.survey).__name__.split(".")[-1] for book in registry.RUNBOOKS}  # type: ignore[union-attr]
    assert owners == modules
    assert len(registry.RUNBOOKS) == len(modules)


@pytest.mark.parametrize("book", registry.RUNBOOKS, ids=lambda b: b.name)
def test_a_plan_is_made_of_request_and_survey_alone(book: AnyRunbook) -> None:
    assert list(inspect.signature(book.plan).parameters) == ["request", "survey"]


@pytest.mark.parametrize("book", registry.RUNBOOKS, ids=lambda b: b.name)
def test_a_runbook_tells_all_that_its_page_needs(book: AnyRunbook) -> None:
    assert book.symptom
    assert book.may_be_lost
    assert book.takes
    assert (ROOT / "docs" / "runbooks" / f"{book.page}.md").exists()
    assert len({step.name for step in book.steps}) == len(book.steps)
    for step in book.steps:
        assert step.why, step.name
        assert step.by_hand, step.name
        assert "|" not in step.why + step.by_hand, "it would break the table of the page"
        assert step.deadline.total_seconds() > 0
    destroying = [s.effect for s in book.steps if s.effect is Effect.DESTROYS]
    assert len(destroying) <= 2


def test_exit_codes_are_unique_and_explained() -> None:
    kinds = list(every_error())
    assert len({kind.exit_code for kind in kinds}) == len(kinds)
    for kind in kinds:
        assert kind.meaning
        assert 1 < kind.exit_code < 126


def test_an_error_without_its_three_sentences_cannot_be_made() -> None:
    kind = next(iter(every_error()))
    with pytest.raises(ValueError, match="what is safe"):
        kind("it broke", safe="", next_step="invoke run.list")


def _next_steps() -> list[tuple[str, str]]:
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "next_step":
                text = "".join(
                    n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant) and isinstance(n.value, str)
                )
                found.append((path.name, text))
    return found


def test_every_command_that_an_error_names_exists() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "invoke", "--list", "-F", "flat"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    known = set(re.findall(r"^\s+([a-z]+\.[a-z-]+)", listed, re.MULTILINE))
    named = [(f, c) for f, text in _next_steps() for c in re.findall(r"invoke ([a-z]+\.[a-z-]+)", text)]
    assert named
    assert [(f, c) for f, c in named if c not in known] == []


@pytest.mark.parametrize("word", ["utils", "helpers", "manager", "common", "handler"])
def test_no_module_has_a_name_that_says_nothing(word: str) -> None:
    assert not [p for p in SOURCES if p.stem == word or p.parent.name == word]


def test_listing_the_commands_loads_nothing_heavy() -> None:
    heavy = ("psycopg", "pydantic", "httpx", "rich", "boto3", "pulumi", "jinja2", "http.server")
    code = f"import sys, tasks; print([m for m in {heavy!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_the_switchboard_stays_readable_at_a_glance() -> None:
    assert len((ROOT / "tasks.py").read_text().splitlines()) <= 200


def test_errors_are_raised_from_the_one_family() -> None:
    assert all(issubclass(kind, BloomError) for kind in every_error())
    deeper = [k for kind in BloomError.__subclasses__() for k in kind.__subclasses__()]
    assert not deeper, "one small class per situation; a subclass of a subclass would share its exit code"
