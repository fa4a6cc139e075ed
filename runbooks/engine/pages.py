"""Pages kept true by code: the parts of docs/ between markers are made from the runbooks and the errors themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from runbooks.engine.step import AnyRunbook
from runbooks.model.duration import spell
from runbooks.model.errors import INTERRUPTED, UNEXPECTED, LocalFault, every_error

_PART = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- /generated -->)", re.DOTALL)


def stale(docs: Path, registry: Iterable[AnyRunbook], *, write: bool) -> tuple[Path, ...]:
    """The pages whose generated parts differ from the code; with `write`, after bringing them up to date.

    Raises LocalFault if a runbook has no page, or its page no generated part. Safe to repeat.
    """
    books = tuple(registry)
    parts = {"index": _index(books), "errors": _errors()} | {book.page: _steps(book) for book in books}
    pages = {docs / "index.md": "index", docs / "errors.md": "errors"} | {
        docs / "runbooks" / f"{book.page}.md": book.page for book in books
    }
    return tuple(page for page, name in pages.items() if _differs(page, name, parts[name], write=write))


def _differs(page: Path, name: str, part: str, *, write: bool) -> bool:
    text = page.read_text() if page.exists() else ""
    if f"<!-- generated: {name} -->" not in text:
        raise LocalFault(
            f"{page} has no part marked '<!-- generated: {name} -->' … '<!-- /generated -->'",
            safe="no page was changed",
            next_step="write the head of the page by hand, with the two markers below it, then: invoke docs.pages",
        )
    fresh = _PART.sub(lambda m: f"{m[1]}{part}{m[3]}" if m[2] == name else m[0], text)
    if write and fresh != text:
        page.write_text(fresh)
    return fresh != text


def _steps(book: AnyRunbook) -> str:
    lines = [
        f"Command: `invoke {book.name}`. May be lost: {book.may_be_lost}. Takes: {book.takes}.\n",
        "| # | step | effect | why | at most | by hand, if it fails |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {number} | {step.name} | {step.effect} | {step.why} | {spell(step.deadline)} | {step.by_hand} |"
        for number, step in enumerate(book.steps, start=1)
    ]
    return "\n".join(lines) + "\n"


def _index(books: tuple[AnyRunbook, ...]) -> str:
    lines = ["| what you see | runbook | may be lost | takes |", "|---|---|---|---|"]
    lines += [
        f"| {b.symptom} | [`invoke {b.name}`](runbooks/{b.page}.md) | {b.may_be_lost} | {b.takes} |" for b in books
    ]
    return "\n".join(lines) + "\n"


def _errors() -> str:
    lines = ["| exit code | name | meaning |", "|---|---|---|", "| 0 | | what was asked for is done, and proved |"]
    lines += [f"| {UNEXPECTED} | | a fault in this program itself; the trace is on stderr |"]
    lines += [f"| {kind.exit_code} | {kind.__name__} | {kind.meaning} |" for kind in every_error()]
    lines += [f"| {INTERRUPTED} | | stopped by Ctrl-C or SIGTERM; `invoke run.resume` goes on |"]
    return "\n".join(lines) + "\n"
